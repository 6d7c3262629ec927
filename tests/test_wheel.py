"""What a user installs holds what is no Python: runners, the pinned bundle, profiles, symbols, the camera's page."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = (
    "devices/bundle.toml",
    "devices/profiles/*.toml",
    "devices/runner/bin/*",
    "edgenet/symbols/*.json",
    "edgenet/symbols/*.tflite",
    "edgenet/symbols/*.h5",
    "edgenet/camera/web/page/**/*",
    "*/py.typed",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("setuptools", "77")
    copy = tmp_path_factory.mktemp("source") / "edgenet"  # building writes beside the sources
    copy.mkdir()
    for room in ("edgenet", "converters", "devices"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    out = copy.parent
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=copy, check=True, capture_output=True)
    (made,) = out.glob("edgenet-*.whl")
    return zipfile.ZipFile(made)


@pytest.mark.parametrize("pattern", DATA)
def test_a_wheel_holds_it_byte_for_byte(wheel: zipfile.ZipFile, pattern: str) -> None:
    paths = [path for path in ROOT.glob(pattern) if path.is_file() and ".venv" not in path.parts]
    assert paths
    for path in paths:
        assert wheel.read(path.relative_to(ROOT).as_posix()) == path.read_bytes()


def test_the_runners_of_a_wheel_are_small_and_can_be_executed(wheel: zipfile.ZipFile) -> None:
    runners = [one for one in wheel.infolist() if one.filename.startswith("devices/runner/bin/")]
    assert len(runners) == 2
    assert all(one.file_size < 100_000 and one.external_attr >> 16 & 0o111 == 0o111 for one in runners)


def test_a_wheel_holds_the_three_rooms_alone(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {
        "edgenet",
        "converters",
        "devices",
    }
