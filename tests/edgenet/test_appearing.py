"""Files appear whole and under their name at the last moment, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgenet.appearing import appearing, check_folder
from edgenet.errors import EdgenetError


def test_a_file_appears_at_the_end_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "model.tflite"
    there_when_synced: list[bool] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: there_when_synced.append(file.exists()) or fsync(fd))
    with appearing(file) as partial:
        assert (partial.parent, partial.suffix) == (file.parent, ".tflite")
        assert partial.name.startswith("."), "whoever lists the folder meanwhile should not take it for a model"
        partial.write_text("whole")
        assert not file.exists()
    assert there_when_synced == [False]
    assert [one.name for one in file.parent.iterdir()] == ["model.tflite"]
    assert file.read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError("of whoever writes"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_what_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "model.tflite"
    file.write_text("before")
    expected = EdgenetError if isinstance(error, OSError) else type(error)

    def write() -> None:
        with appearing(file) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(expected) as caught:
        write()
    assert [one.name for one in tmp_path.iterdir()] == ["model.tflite"]
    assert file.read_text() == "before"
    if expected is EdgenetError:
        assert str(caught.value) == f"cannot write {file}: No space left; make room or choose another folder"


def test_a_folder_that_takes_no_files_is_told_before_the_work(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "deeper")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(EdgenetError, match=r"file is no folder; choose another folder$"):
            check_folder(folder)
        with pytest.raises(EdgenetError, match=r"choose another folder$"), appearing(folder / "model.tflite"):
            pass
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    with pytest.raises(EdgenetError, match=r"link leads nowhere; choose another folder$"):
        check_folder(tmp_path / "link" / "out")


def test_a_name_that_no_folder_takes_is_one_line_too(tmp_path: Path) -> None:
    """Nor can what was never written be removed."""
    with (
        pytest.raises(EdgenetError, match=r"n\.tflite: File name too long; give it a shorter name"),
        appearing(tmp_path / f"{'n' * 247}.tflite") as partial,
    ):
        partial.write_text("whole")
