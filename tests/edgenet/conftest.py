"""Pictures and files that several tests share: made once a session, by the command line itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from devices import registry
from edgenet.symbols.generate import write_folder
from tests.devices.adbd import Adbd
from tests.devices.peers import running
from tests.devices.sshd import Sshd

from .command_line import CommandLine as CommandLine
from .command_line import Edgenet as Edgenet
from .command_line import Ran as Ran

NETWORK = "mobilenet_v2_0.35_48"  # for what needs no trained weights


CLASSIFIER = """
import sys, keras
from keras import layers
keras.utils.set_random_seed(2)
def own(normalize):
    steps = [keras.Input((64, 64, 3)), layers.RandomFlip(), *normalize, layers.Conv2D(8, 3, strides=2), layers.ReLU(),
             layers.MaxPooling2D(), layers.Conv2D(16, 3, strides=2, activation="relu"), layers.Flatten(),
             layers.Dropout(0.5), layers.Dense(5)]
    return keras.Sequential(steps)
folder = sys.argv[1]
own([layers.Rescaling(1 / 255)]).save(f"{folder}/rescaled.keras")
own([]).save(f"{folder}/bare.h5")
own([layers.Lambda(lambda x: x / 255)]).save(f"{folder}/lambda.keras")
yes = own([layers.Rescaling(1 / 255)])
yes.pop()
yes.add(layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(0, 3)))
yes.save(f"{folder}/yes.keras")
# What a user serves has no augmentation in it.
plain = keras.Sequential([layer for layer in own([layers.Rescaling(1 / 255)]).layers if "flip" not in layer.name])
plain.build((None, 64, 64, 3))
plain.export(f"{folder}/saved", verbose=False)
"""


@pytest.fixture(scope="session")
def edgenet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edgenet]:
    """Run the command line in a process of its own, as a user does, but with settings and results of its own."""
    home = tmp_path_factory.mktemp("home")
    own = {f"EDGENET_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}
    with CommandLine(own, tmp_path_factory.mktemp("said")) as run:
        yield run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: 6 generated pictures of each symbol, of a seed that nothing was trained on."""
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root, 6, seed=11)
    return root


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the suite share: what one has made there, all read and none changes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def demo(edgenet: Edgenet, shared: Path) -> tuple[Path, Ran]:
    """The folder that `demo` filled, and what it said: it does all that the command line can, so it is run once."""
    folder, said = shared / "demo", shared / "demo.json"
    with FileLock(shared / "demo.lock"):
        if not said.exists():
            said.write_text(json.dumps(asdict(edgenet("demo", "-o", folder, timeout_s=400))))
        return folder, Ran(**json.loads(said.read_text()))


@pytest.fixture(scope="session")
def made(demo: tuple[Path, Ran]) -> Path:
    """A folder of float32 and int8 files of the embedded classifier, and of the pictures they were calibrated on."""
    folder, ran = demo
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras files of a user's own network, saved by Keras in another process."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-c", CLASSIFIER, folder], check=True, capture_output=True)
    return folder


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


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """Let SIGHUP mean that the terminal is gone, here and in what is started: under nohup it means nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
