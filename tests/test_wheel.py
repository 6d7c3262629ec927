"""What a user installs holds what is no Python: runners, the pinned bundle, profiles, symbols, the camera's page.

A source archive holds what that is made and tested with.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
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


FOLDERS = ("edgenet", "converters", "devices", "tests", "examples", "benchmarks")
FILES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile", "requirements.lock", "CHANGELOG.md")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", "77")
    copy = tmp_path_factory.mktemp("source") / "edgenet"  # building writes beside the sources
    copy.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    build = "import sys; from setuptools import build_meta as b; o = sys.argv[1]; b.build_sdist(o); b.build_wheel(o)"
    out = copy.parent
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=copy, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (made,) = built.glob("edgenet-*.whl")
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


def test_a_wheel_holds_the_licences_of_what_it_holds_and_no_sources_of_the_runners(wheel: zipfile.ZipFile) -> None:
    licences = {name.partition("/licenses/")[2] for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "edgenet/camera/web/page/litert/LICENSE"}
    assert not [name for name in wheel.namelist() if name.endswith((".c", ".h"))]


def test_a_source_archive_holds_all_that_it_is_made_and_tested_with(built: Path) -> None:
    (made,) = built.glob("edgenet-*.tar.gz")
    with tarfile.open(made) as archive:
        held = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"} | {*FILES}
    assert not wanted - held
