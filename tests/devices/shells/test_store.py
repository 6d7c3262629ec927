"""Files on a device: sent once, found again, checked, bounded; on every peer."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from devices.errors import DeviceFull, DeviceUnfit, ShellError
from devices.shells.shell import Result, Shell
from devices.shells.store import Store
from tests.devices.peers import PEERS, small_disk


@pytest.fixture(scope="module", params=sorted(PEERS))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with PEERS[request.param](tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


@pytest.fixture
def shell(peer: Shell) -> Iterator[Shell]:
    """An empty device that ends with nothing half-arrived on it."""
    yield peer
    assert list((Path(peer.root) / "incoming").glob("*")) == []
    Store(peer).clean()


class Altered:
    """A shell, one of whose methods does something else."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    @property
    def name(self) -> str:
        return self._shell.name

    @property
    def root(self) -> str:
        return self._shell.root

    def run(self, command: Sequence[str], timeout_s: float = 30.0, stdin: bytes = b"") -> Result:
        return self._shell.run(command, timeout_s, stdin)

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        return self._shell.push(files, folder, timeout_s)

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        return self._shell.pull(path, timeout_s)

    def close(self) -> None: ...

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Flipping(Altered):
    """A connection that damages what is pushed."""

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        moved = super().push(files, folder, timeout_s)
        self.run(("sh", "-c", 'cd "$1" && for f in *; do printf x >>"$f"; done', "sh", folder))
        return moved


class Bare(Altered):
    """A device with few tools."""

    def run(self, command: Sequence[str], timeout_s: float = 30.0, stdin: bytes = b"") -> Result:
        return super().run(("env", f"PATH={self.root}/bare", *command), timeout_s, stdin)


def write(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored(shell: Shell) -> set[str]:
    return {path.name for path in (Path(shell.root) / "files").glob("*")}


def test_a_second_put_moves_nothing(shell: Shell, tmp_path: Path) -> None:
    odd = write(tmp_path / "a model's $(touch x)\n☃.tflite", 100_000, 1)
    runner = write(tmp_path / "runner", 5000, 2)
    runner.chmod(0o755)
    twin = tmp_path / "twin.tflite"
    twin.write_bytes(odd.read_bytes())
    empty = write(tmp_path / "empty.bad suffix", 0)
    files = [odd, runner, twin, empty]
    first = Store(shell).put(files)
    assert 105_000 < first.moved_bytes < 130_000  # the twin went once
    assert first.paths[odd] == f"{shell.root}/files/{digest(odd)}.tflite" == first.paths[twin]
    assert first.paths[empty] == f"{shell.root}/files/{digest(empty)}"
    for path in files:
        assert shell.pull(first.paths[path]) == path.read_bytes()
    assert os.access(first.paths[runner], os.X_OK)
    assert Store(shell).put(files) == type(first)(first.paths, 0)
    odd.write_bytes(b"another one")
    again = Store(shell).put([odd, runner])
    assert again.moved_bytes > 0
    assert again.paths[odd] != first.paths[odd]
    assert shell.pull(again.paths[odd]) == b"another one"
    assert Store(shell).put([]).moved_bytes == 0


def test_a_file_that_was_cut_short_is_sent_again(shell: Shell, tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", 5000)
    path = Store(shell).put([model]).paths[model]
    os.truncate(path, 100)
    assert Store(shell).put([model]).moved_bytes > 5000
    assert shell.pull(path) == model.read_bytes()


def test_what_arrives_damaged_is_refused(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(ShellError, match="is not what was sent"):
        Store(Flipping(shell)).put([write(tmp_path / "m.onnx", 5000)])
    with pytest.raises(ShellError, match="is not what was sent"):
        Store(Flipping(shell)).put_bundle(bundle(tmp_path / "b.tar"))
    assert stored(shell) == set()


def test_the_least_recently_used_goes_first(shell: Shell, tmp_path: Path) -> None:
    a, b, c, d = (write(tmp_path / name, 1_000_000, i) for i, name in enumerate("abcd"))
    store = Store(shell, limit_bytes=2_500_000)
    for minutes, path in ((9, a), (5, b)):
        os.utime(store.put([path]).paths[path], (time.time() - 60 * minutes,) * 2)
    store.put([a])  # used, not sent
    store.put([c])
    assert stored(shell) == {digest(a), digest(c)}
    store.put([b, c, d])  # more than the limit, and all of it wanted
    assert stored(shell) == {digest(b), digest(c), digest(d)}


def test_old_files_make_room(shell: Shell, tmp_path: Path) -> None:
    (Path(shell.root) / "files").mkdir(exist_ok=True)
    with small_disk(f"{shell.root}"):
        shell.run(("mkdir", f"{shell.root}/run"))
        Store(shell).put([write(tmp_path / "a", 1_500_000, 1)])
        Store(shell).put([write(tmp_path / "b", 1_500_000, 2)])
        assert stored(shell) == {digest(tmp_path / "b")}
        with pytest.raises(DeviceFull, match="no room on"):
            Store(shell).put([tmp_path / "b", write(tmp_path / "c", 1_500_000, 3)])
        assert stored(shell) == {digest(tmp_path / "b")}
        with pytest.raises(DeviceFull, match=r"no room on .* for 3\.0 MB"):
            Store(shell).put_bundle(bundle(tmp_path / "b.tar", zeros=3_000_000, packed=True))
        assert list((Path(shell.root) / "incoming").iterdir()) == []


@pytest.mark.parametrize(("zeros", "packed"), [(1_500_000, True), (900_000, False)])  # full as it unpacks, or arrives
def test_old_files_make_room_for_a_bundle(shell: Shell, tmp_path: Path, zeros: int, packed: bool) -> None:
    (Path(shell.root) / "files").mkdir(exist_ok=True)
    with small_disk(f"{shell.root}"):
        shell.run(("mkdir", f"{shell.root}/run"))
        Store(shell).put([write(tmp_path / "a", 1_500_000, 1)])
        folder, moved = Store(shell).put_bundle(bundle(tmp_path / "b.tar", zeros=zeros, packed=packed))
        assert (Path(folder) / "zeros").stat().st_size == zeros
        assert moved > 0
        assert stored(shell) == set()
        assert list((Path(shell.root) / "incoming").iterdir()) == []


def test_no_sha256sum_on_the_device(shell: Shell, tmp_path: Path) -> None:
    tools = Path(shell.root) / "bare"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "mkdir", "touch", "wc"):
        if not (tools / name).is_symlink():
            (tools / name).symlink_to(str(shutil.which(name)))
    for put in (Store(Bare(shell)).put, lambda files: Store(Bare(shell)).put_bundle(files[0])):
        with pytest.raises(DeviceUnfit, match="no sha256sum"):
            put([bundle(tmp_path / "b.tar")])


def test_a_file_that_is_not_there(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(ShellError, match=r"cannot read .*nowhere.tflite"):
        Store(shell).put([tmp_path / "nowhere.tflite"])


# ---- bundles


def bundle(path: Path, seed: int = 0, zeros: int = 0, packed: bool = False) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, mode, data in (
            ("lib/libx.so.1", 0o644, random.Random(seed).randbytes(3000)),
            ("bin/run", 0o755, b"#!/bin/sh\necho $1 ran\n"),
            ("zeros", 0o644, bytes(zeros)),
        ):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("lib/libx.so")
        link.type, link.linkname = tarfile.SYMTYPE, "libx.so.1"
        archive.addfile(link)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_bundle_is_unpacked_once(shell: Shell, tmp_path: Path, packed: bool) -> None:
    archive = bundle(tmp_path / "b.tar", packed=packed)
    folder, moved = Store(shell).put_bundle(archive)
    assert folder == f"{shell.root}/bundles/{digest(archive)}"
    assert moved > archive.stat().st_size
    assert shell.run((f"{folder}/bin/run", "it")).stdout == b"it ran\n"
    assert shell.pull(f"{folder}/lib/libx.so") == random.Random(0).randbytes(3000)
    assert Store(shell).put_bundle(archive) == (folder, 0)
    shell.run(("rm", f"{folder}/.complete", f"{folder}/bin/run"))  # as if the power had gone
    assert Store(shell).put_bundle(archive) == (folder, moved)
    assert shell.run((f"{folder}/bin/run", "it")).stdout == b"it ran\n"


def test_the_last_three_bundles_stay(shell: Shell, tmp_path: Path) -> None:
    archives = [bundle(tmp_path / f"{seed}.tar", seed) for seed in range(5)]
    for minutes, i in ((9, 0), (8, 1), (7, 2), (0, 0), (0, 3), (0, 4)):
        folder, _ = Store(shell).put_bundle(archives[i])
        os.utime(folder, (time.time() - 60 * minutes,) * 2)
    kept = {path.name for path in (Path(shell.root) / "bundles").iterdir()}
    assert kept == {digest(archives[i]) for i in (0, 3, 4)}


def test_a_bundle_that_is_none(shell: Shell, tmp_path: Path) -> None:
    for data in (random.Random(1).randbytes(5000), bundle(tmp_path / "b.tar").read_bytes()[:1500]):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(ShellError, match="could not unpack") as told:
            Store(shell).put_bundle(tmp_path / "x.tar")
        assert "\n" not in str(told.value)
    assert not (Path(shell.root) / "bundles").exists()


# ---- cleaning


def test_cleaning_frees_all_and_kills_nothing(shell: Shell, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    put = Store(shell).put([program, write(tmp_path / "m.tflite", 70_000)])
    folder, _ = Store(shell).put_bundle(bundle(tmp_path / "b.tar"))
    (Path(shell.root) / "lock").mkdir()
    with subprocess.Popen((put.paths[program],)) as running:
        expected = program.stat().st_size + 70_000 + 3000 + len(b"#!/bin/sh\necho $1 ran\n")
        assert Store(shell).clean() == expected
        assert not stored(shell)
        assert not Path(folder).exists()
        assert running.poll() is None
        running.kill()
    assert (Path(shell.root) / "lock").is_dir()
    (Path(shell.root) / "lock").rmdir()
    assert Store(shell).clean() == 0
