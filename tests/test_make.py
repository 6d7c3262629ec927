"""`make` on a fresh machine."""

from __future__ import annotations

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
