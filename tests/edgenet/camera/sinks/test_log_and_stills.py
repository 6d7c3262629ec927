"""What is kept beside a recording: the log's lines and stills."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgenet.camera.frame import Update
from edgenet.camera.sinks.log import Log
from edgenet.camera.sinks.stills import Stills
from edgenet.image import decode
from tests.edgenet.camera.stand_ins import picture, update
from tests.edgenet.camera.started import lines

# The log.


def test_the_log_has_one_document_a_frame_at_once(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    log = Log(path)
    first, second = update(picture(), 4, labels=("très", "狗")), update(picture(), 5)
    assert first.answer
    age_ms = (time.monotonic_ns() - first.answer.frame.captured_ns) / 1e6
    for shown in (Update(None, first.stats, False, False), first, first, second, second):
        log.show(shown)
    assert len(lines(path)) == 2  # before it is closed: tail -f
    log.close()
    log.close()
    log.show(update(picture(), 6))
    one, two = lines(path)
    assert (one["id"], two["id"]) == (4, 5)
    assert one["captured_ns"] == first.answer.frame.captured_ns
    assert (one["label"], one["probability"], one["raw_label"]) == ("très", 0.5, "狗")
    assert one["top"][1] == {"index": 1, "label": "狗", "raw": 0.5, "smoothed": 0.25}
    assert (one["preprocess_ms"], one["inference_ms"]) == (0.9, 12.0)
    assert age_ms - 0.001 <= one["age_ms"] < 10_000
    assert "狗" in path.read_text(encoding="utf-8")
    came_s = time.time() - (time.monotonic_ns() - first.answer.frame.captured_ns) / 1e9
    assert datetime.fromisoformat(one["time"]).timestamp() == pytest.approx(came_s, abs=0.01)
    assert one["time"].endswith("+00:00")
    assert one["at_s"] is None  # it is no clip


def test_a_log_that_takes_no_more_is_one_line_and_ends_nothing() -> None:
    said: list[str] = []
    log = Log(Path("/dev/full"), said.append)
    for number in range(3):
        log.show(update(picture(), number))
    log.close()
    assert said == ["/dev/full: the log ends here (No space left on device): make room or choose another file"]


# Stills.


def test_behind_half_a_line_comes_nothing(tmp_path: Path) -> None:
    """Somebody quits while a pipe is full."""
    pipe, quitting = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    log = Log(pipe, quitting=quitting)
    quitting.set()
    log.show(update(picture(), 1, labels=("x" * 6000, "y")))
    assert len(os.read(reader, 1 << 16)) == 4096
    log.show(update(picture(), 2))
    assert os.read(reader, 1 << 16) == b""  # and it is closed
    log.close()
    os.close(reader)


def test_a_still_is_the_picture_itself_without_loss(tmp_path: Path) -> None:
    told: list[str] = []
    stills = Stills(tmp_path, told.append)
    image = np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8)
    shown = update(image, labels=("crane, Grus/grus: été", "b"))
    assert shown.answer
    stills.save(shown.answer)
    stills.close()
    (path,) = tmp_path.iterdir()
    assert told == [f"saved {path}"]
    assert path.name.endswith("-crane_Grus_grus_été.png")
    assert (decode(path)[..., ::-1] == image).all()


@pytest.mark.parametrize(("label", "name"), [("é" * 300, "é" * 40), ("!?", "unnamed")], ids=["long", "of no letters"])
def test_any_label_gives_each_still_a_name_of_its_own_also_in_the_same_millisecond(
    tmp_path: Path, label: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    at = SimpleNamespace(now=lambda: datetime(2025, 1, 31, 12, 0, 0, 7000))
    monkeypatch.setattr("edgenet.camera.sinks.stills.datetime", at)
    stills = Stills(tmp_path, told.append)
    shown = update(picture(), labels=(label, "b"))
    assert shown.answer
    for _ in range(3):
        stills.save(shown.answer)
        stills.close()
    assert sorted(told) == sorted(f"saved {path}" for path in tmp_path.iterdir())
    assert [Path(line).name for line in told] == [f"20250131-120000-007-{name}{n}.png" for n in ("", "-2", "-3")]


def test_stills_are_bounded_whoever_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    stills = Stills(tmp_path, told.append)
    shown = update(np.random.default_rng(2).integers(0, 256, (2160, 3840, 3), np.uint8))
    assert shown.answer
    for _ in range(10):  # faster than they are saved
        stills.save(shown.answer)
    stills.close()
    files = list(tmp_path.iterdir())
    assert 1 <= len(files) < 10  # some may have been saved meanwhile
    assert sum("this one is not" in line for line in told) == 10 - len(files)
    monkeypatch.setattr(stills, "_left", 1)
    for _ in range(2):
        stills.save(shown.answer)
        stills.close()
    assert "1000 stills were saved" in told[-1]
    assert len(list(tmp_path.iterdir())) == len(files) + 1


def test_a_still_that_cannot_be_saved_is_one_line(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    stills = Stills(tmp_path / "file", told.append)
    shown = update(picture())
    assert shown.answer
    stills.save(shown.answer)
    stills.close()
    assert len(told) == 1
    assert "cannot write" in told[0]


def test_the_log_tells_the_raw_probability_of_this_frame_alone(tmp_path: Path) -> None:
    log = Log(tmp_path / "seen.jsonl")
    log.show(update(picture()))
    log.close()
    (one,) = lines(tmp_path / "seen.jsonl")
    assert (one["label"], one["probability"]) == ("ant", 0.5)
    assert (one["raw_label"], one["raw_probability"]) == ("cat", 0.5)
    assert one["top"][2] == {"index": 2, "label": "cat", "raw": 0.5, "smoothed": 0.125}
