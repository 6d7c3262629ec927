"""Pictures and files that several tests share: made once a session, by the command line itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgenet.symbols.generate import write_folder

NETWORK = "mobilenet_v2_0.35_48"  # for what needs no trained weights


@dataclass(frozen=True, slots=True)
class Ran:
    """What one call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as exactly one JSON document."""
        return json.loads(self.out)


Edgenet = Callable[..., Ran]


@pytest.fixture(scope="session")
def edgenet(tmp_path_factory: pytest.TempPathFactory) -> Edgenet:
    """Run the command line in a process of its own, as a user does, but with settings and results of its own."""
    home = tmp_path_factory.mktemp("home")
    own = {f"EDGENET_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}

    def run(*arguments: object, timeout_s: float = 180, cwd: Path | None = None) -> Ran:
        environment = {**own, **os.environ, "COLUMNS": "160"}
        done = subprocess.run(
            [sys.executable, "-m", "edgenet", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
            cwd=cwd,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: 6 generated pictures of each symbol, of a seed that nothing was trained on."""
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root, 6, seed=11)
    return root


@pytest.fixture(scope="session")
def made(edgenet: Edgenet, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of float32 and int8 files of the embedded classifier, as `convert` and `quantize` make them."""
    out = tmp_path_factory.mktemp("made")
    for arguments in (("convert", "symbols"), ("quantize", "symbols", "--calibration", pictures)):
        ran = edgenet(*arguments, "-o", out, "--json")
        assert ran.code == 0, ran.err
        assert len(ran.document) == 2
    return out
