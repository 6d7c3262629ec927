"""Pictures and files that several tests share: made once a session, by the command line itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices import registry
from edgenet.symbols.generate import write_folder
from tests.devices.adbd import Adbd
from tests.devices.peers import running
from tests.devices.sshd import Sshd

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


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that keeps what was fetched and assembled for devices."""
    return tmp_path_factory.mktemp("cache")


@dataclass(frozen=True, slots=True)
class Desk:
    """What lies on it: a board reached over ssh, called pi, and a phone."""

    server: Sshd
    phone: Adbd
    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        return ("local", "pi", f"android:{self.phone.serial}")

    def running(self) -> list[str]:
        """Command lines of the runners on the board and on the phone."""
        return running(str(self.server.root / "bundles")) + running(str(self.folder / "phone" / "bundles"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> Iterator[Desk]:
    """Two devices that every module meets anew: nothing is on them."""
    adb = shutil.which("adb")
    if adb is None:
        pytest.skip("adb is not installed: apt install adb")
    folder = tmp_path_factory.mktemp("desk")
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as free,
        Sshd(tmp_path_factory.mktemp("board")) as server,
        Adbd() as phone,
    ):
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("EDGENET_ADB_ROOT", str(folder / "phone"))
        for kind in ("CONFIG", "DATA"):
            patch.setenv(f"EDGENET_{kind}_HOME", str(folder / kind.lower()))
        patch.setenv("EDGENET_CACHE_HOME", str(bundles))
        free.close()
        registry.add(registry.addressed("pi", server.address, key=server.key))
        yield Desk(server, phone, folder)
        subprocess.run([adb, "kill-server"], capture_output=True, check=False)
