"""Faults, each met through the command line as a user meets it: one clear line, nothing left running, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from devices import registry
from devices.shells.lock import DeviceLock
from edgenet.results.kept import recent
from tests.devices.adbd import Adbd
from tests.devices.peers import comes, running, small_disk
from tests.devices.sshd import Sshd, free_port, new_key
from tests.devices.tiny_models import tiny_tflite, write

from .conftest import Desk, Edgenet
from .symbols_files import INT8

Arguments = Sequence[object]  # of edgenet
Fault = Callable[[Desk, Path], AbstractContextManager[Arguments]]


def bench(device: object, file: Path = INT8) -> Arguments:
    return ("bench", file, "--device", device, "--repetitions", 1, "--wait", 0)


@contextmanager
def closed_port(desk: Desk, _: Path) -> Iterator[Arguments]:
    yield bench(f"somebody@127.0.0.1:{free_port()}")


@contextmanager
def unknown_host(desk: Desk, _: Path) -> Iterator[Arguments]:
    yield bench("somebody@no-such-board.invalid")


@contextmanager
def rude_port(desk: Desk, _: Path) -> Iterator[Arguments]:
    """Something that takes connections, and ends them."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    door.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        yield ("devices", "show", f"somebody@127.0.0.1:{door.getsockname()[1]}")
        door.shutdown(socket.SHUT_RDWR)


@contextmanager
def named(desk: Desk, address: str, key: Path) -> Iterator[str]:
    registry.add(registry.addressed("odd", address, key=key))
    try:
        yield "odd"
    finally:
        registry.remove("odd")


@contextmanager
def wrong_key(desk: Desk, folder: Path) -> Iterator[Arguments]:
    with named(desk, desk.server.address, new_key(folder / "other")) as name:
        yield bench(name)


@contextmanager
def open_key(desk: Desk, folder: Path) -> Iterator[Arguments]:
    shutil.copy(desk.server.key, folder / "open")
    (folder / "open").chmod(0o644)
    with named(desk, desk.server.address, folder / "open") as name:
        yield bench(name)


@contextmanager
def missing_key(desk: Desk, folder: Path) -> Iterator[Arguments]:
    with named(desk, desk.server.address, new_key(folder / "gone")) as name:
        (folder / "gone").unlink()
        yield bench(name)


@contextmanager
def unknown_host_key(desk: Desk, _: Path) -> Iterator[Arguments]:
    desk.server.known_hosts.write_text("")
    yield bench("pi")
    desk.server.trust()


@contextmanager
def changed_host_key(desk: Desk, folder: Path) -> Iterator[Arguments]:
    public = new_key(folder / "host").with_suffix(".pub").read_text()
    desk.server.known_hosts.write_text(f"[127.0.0.1]:{desk.server.port} {public}")
    yield bench("pi")
    desk.server.trust()


@contextmanager
def another_machine(desk: Desk, folder: Path, uname: str, bits: int) -> Iterator[Arguments]:
    """A board that says of itself what this machine is not."""
    home, programs = folder / "board/home", folder / "programs"
    programs.mkdir()
    for name, text in (("uname", f"echo Linux 6.1 {uname}"), ("getconf", f"echo {bits}")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    home.parent.mkdir()
    with Sshd(folder / "board", [f'SetEnv "HOME={home}" "PATH={programs}:/usr/bin:/bin"']) as server:
        desk.server.known_hosts.write_text(server.known_hosts.read_text())
        with named(desk, server.address, server.key) as name:
            yield bench(name)
        desk.server.trust()


def old_system(desk: Desk, folder: Path) -> AbstractContextManager[Arguments]:
    return another_machine(desk, folder, "aarch64", 32)


def old_processor(desk: Desk, folder: Path) -> AbstractContextManager[Arguments]:
    return another_machine(desk, folder, "armv6l", 32)


def other_processor(desk: Desk, folder: Path) -> AbstractContextManager[Arguments]:
    return another_machine(desk, folder, "riscv64", 64)


@contextmanager
def full_disk(desk: Desk, _: Path) -> Iterator[Arguments]:
    desk.server.root.mkdir(parents=True, exist_ok=True)
    with small_disk(str(desk.server.root)):
        yield bench("pi")


@contextmanager
def busy(desk: Desk, _: Path) -> Iterator[Arguments]:
    with registry.open_shell(registry.find("pi")) as shell, DeviceLock(shell):
        yield bench("pi")


@contextmanager
def busy_setup(desk: Desk, _: Path) -> Iterator[Arguments]:
    with registry.open_shell(registry.find("pi")) as shell, DeviceLock(shell):
        yield ("devices", "clean", "pi")


@contextmanager
def segfault(desk: Desk, folder: Path) -> Iterator[Arguments]:
    yield bench("pi", write(folder, "segfaults.tflite", tiny_tflite(beside="segfaults")))


@contextmanager
def abort(desk: Desk, folder: Path) -> Iterator[Arguments]:
    yield bench(f"android:{desk.phone.serial}", write(folder, "aborts.tflite", tiny_tflite(beside="aborts")))


@contextmanager
def corrupt(desk: Desk, folder: Path) -> Iterator[Arguments]:
    yield bench("pi", write(folder, "corrupt.tflite", INT8.read_bytes()[:1000] + bytes(range(256)) * 4))


@contextmanager
def no_such_phone(desk: Desk, _: Path) -> Iterator[Arguments]:
    yield bench("android:NO SUCH $(phone)")


@contextmanager
def unauthorized(desk: Desk, _: Path) -> Iterator[Arguments]:
    with Adbd(unauthorized=True) as phone:
        yield bench(f"android:{phone.serial}")


@contextmanager
def offline(desk: Desk, _: Path) -> Iterator[Arguments]:
    with Adbd(mute=True) as phone:
        yield bench(f"android:{phone.serial}")


@contextmanager
def old_android(desk: Desk, _: Path) -> Iterator[Arguments]:
    with Adbd(features=("cmd",)) as phone:
        yield bench(f"android:{phone.serial}")


FAULTS: dict[str, tuple[Fault, str]] = {
    "a closed port": (closed_port, "takes no ssh connections"),
    "a host that there is not": (unknown_host, "no machine answers to the name"),
    "a port that hangs up": (rude_port, "hung up before anyone could log in"),
    "a wrong key": (wrong_key, "does not accept our key"),
    "a key that others can read": (open_key, "chmod 600"),
    "a key that is gone": (missing_key, "there is no key file"),
    "a host key that nobody knows": (unknown_host_key, "is unknown here"),
    "a host key that changed": (changed_host_key, "is not the one known here"),
    "a 32-bit system": (old_system, "install the 64-bit OS"),
    "a 32-bit processor": (old_processor, "runs a 32-bit system (armv6l)"),
    "another processor": (other_processor, "is riscv64"),
    "a full disk": (full_disk, "no room on pi"),
    "a device that is held": (busy, "pi is held by"),
    "a device that is held, cleaned": (busy_setup, f"process {os.getpid()}"),
    "a model that segfaults": (segfault, "died of SIGSEGV on pi"),
    "a model that aborts": (abort, "died of SIGABRT on android:"),
    "a corrupt model": (corrupt, "corrupt.tflite: its runtime died"),
    "no such phone": (no_such_phone, "there is no phone 'NO SUCH $(phone)'"),
    "a phone that trusts us not": (unauthorized, "accept the question on the phone's screen"),
    "a phone that is offline": (offline, "offline"),
    "an Android without shell_v2": (old_android, "Android 7 or newer is needed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line(desk: Desk, edgenet: Edgenet, tmp_path: Path, fault: str) -> None:
    prepare, words = FAULTS[fault]
    with prepare(desk, tmp_path) as arguments:
        ran = edgenet(*arguments)
    assert ran.code == 1, ran.err
    assert ran.out == ""
    last = ran.err.splitlines()[-1]
    assert last.startswith("edgenet: ")
    assert words in last
    assert [line for line in ran.err.splitlines() if line.startswith("edgenet: ")] == [last]
    assert "Traceback" not in ran.err
    assert_nothing_runs(desk)


def assert_nothing_runs(desk: Desk) -> None:
    assert comes(lambda: not desk.running()), desk.running()
    clients = str(desk.server.known_hosts)  # in the command line of every ssh
    assert comes(lambda: not running(clients)), running(clients)


@contextmanager
def benchmark(device: str, file: Path = INT8) -> Iterator[subprocess.Popen[str]]:
    """A benchmark of 2 repetitions that has finished one."""
    before = len(recent(1000))
    command = [sys.executable, "-m", "edgenet", "bench", str(file), "--repetitions", "2", "--device", device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert comes(lambda: len(recent(1000)) > before and len(recent(1)[0].repetitions) > 0, 60)
            yield process
        finally:
            process.kill()


def reboot(desk: Desk) -> None:
    desk.phone.reboot(0.5)


def kill_server(desk: Desk) -> None:
    subprocess.run(["adb", "kill-server"], check=True, capture_output=True)


def hang_up(desk: Desk) -> None:
    desk.server.hang_up()


@pytest.mark.parametrize(("fault", "place"), [(reboot, 2), (kill_server, 2), (hang_up, 1)])
def test_a_device_lost_in_the_middle_loses_no_repetition(desk: Desk, fault: Callable[[Desk], None], place: int) -> None:
    with benchmark(desk.names[place]) as process:
        assert comes(lambda: bool(desk.running()), 10)
        fault(desk)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert INT8.name in out
    assert "the device was lost before 1 of 2 repetitions, and came back" in err
    assert len(recent(1)[0].repetitions) == 2
    assert recent(1)[0].complete
    assert_nothing_runs(desk)


def test_killed_at_once_it_keeps_what_was_measured(desk: Desk) -> None:
    with benchmark("pi") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        measured = len(recent(1)[0].repetitions)
    assert measured >= 1
    assert recent(1)[0].verdict == "unfinished"
    assert_nothing_runs(desk)


def test_a_database_that_cannot_be_written_costs_no_result(
    desk: Desk, edgenet: Edgenet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("a file")
    monkeypatch.setenv("EDGENET_DATA_HOME", str(tmp_path / "data"))
    ran = edgenet(*bench("local"), "--json")
    assert ran.code == 0
    assert len(ran.document["rows"]) == 1
    assert [line for line in ran.err.splitlines() if "not recorded" in line]
    assert "Traceback" not in ran.err
