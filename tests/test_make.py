"""`make` on a fresh machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_environment_that_could_not_be_made_whole_is_made_anew(tmp_path: Path) -> None:
    """Debian without python3-venv leaves a Python without pip behind, and says what to install."""
    python, kept = tmp_path / "python", tmp_path / "venv" / "bin" / "python"
    half = f'[ "$1" = -m ] || exec {sys.executable} "$@"\n{sys.executable} -m venv --without-pip "$3"\nexit 1\n'
    python.write_text(f"#!/bin/sh\n{half}")
    python.chmod(0o700)
    make = ["make", str(kept), f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    assert subprocess.run(make, cwd=ROOT, capture_output=True, check=False).returncode == 2
    assert (tmp_path / "venv" / "pyvenv.cfg").exists()
    assert not kept.exists()


def test_another_python_than_that_of_the_environment_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for path, version in ((tmp_path / "bin" / "python", "3.11.7"), (tmp_path / "other", "3.12.1")):
        path.write_text(f"#!/bin/sh\necho Python {version}\n")
        path.chmod(0o700)

    def said(*settings: str) -> str:
        make = ["make", "chosen", f"VENV={tmp_path}", *settings]
        ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHON", "VENV")}
        return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True, env=ours).stderr

    assert said(f"PYTHON={tmp_path / 'other'}").startswith(f"{tmp_path} was made of Python 3.11.7 and stays so: ")
    assert said() == said(f"PYTHON={tmp_path / 'bin' / 'python'}") == said("PYTHON=none", "VENV=none") == ""
