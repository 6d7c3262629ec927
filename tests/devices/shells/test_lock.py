"""The lock on a device: one holder at a time, who says so, and whose lock ends with it; on every peer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from devices.errors import DeviceBusy, DeviceFull, ShellError
from devices.shells.local import LocalShell
from devices.shells.lock import _TAKE_OVER, STALE_MIN, DeviceLock, Holder
from devices.shells.shell import Result, Shell
from tests.devices.peers import PEERS, small_disk
from tests.devices.sshd import Sshd


@pytest.fixture(scope="module", params=sorted(PEERS))
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with PEERS[request.param](tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


@pytest.fixture
def place(shell: Shell) -> Iterator[Path]:
    """Where the lock lies; nothing does when a test has ended."""
    place = Path(shell.root) / "lock"
    yield place
    left = list(place.parent.glob("lock*"))
    shutil.rmtree(place, ignore_errors=True)
    assert left == []


def left_by(place: Path, text: str, minutes: float) -> None:
    """A lock that somebody else took some minutes ago."""
    place.mkdir()
    (place / "holder").write_text(text)
    for path in (place / "holder", place):
        os.utime(path, (time.time() - 60 * minutes,) * 2)


ANNA = Holder("anna@desk", 4242, 1_700_000_000.0, "another machine", "0123456789abcdef")


def test_the_second_is_told_who_holds_it(shell: Shell, place: Path) -> None:
    with DeviceLock(shell):
        with pytest.raises(DeviceBusy) as told, DeviceLock(shell):
            pytest.fail("two of them")
        said = str(told.value)
        assert said.startswith(f"{shell.name} is held by ")
        assert f"(process {os.getpid()}) since {time.strftime('%Y-%m-%d')}" in said
        assert "\n" not in said
        assert place.is_dir()
    assert not place.exists()
    with DeviceLock(shell) as lock:
        lock.refresh()


@pytest.mark.parametrize("holder", [None, "", "named"], ids=["not named yet", "just being named", "taken"])
def test_an_interrupt_while_it_is_taken_leaves_no_lock(
    shell: Shell, place: Path, monkeypatch: pytest.MonkeyPatch, holder: str | None
) -> None:
    """Whoever works at another machine could not know that nobody holds it."""
    run, seen = type(shell).run, []

    def interrupted(self: Shell, *arguments: Any, **options: Any) -> Result:
        done = run(self, *arguments, **options)
        seen.append(place.exists())
        if len(seen) > 1:
            return done
        if holder != "named":
            (place / "holder").unlink()
        if holder == "":
            (place / "holder").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(type(shell), "run", interrupted)
    with pytest.raises(KeyboardInterrupt), DeviceLock(shell):
        pytest.fail("there is an interrupt")
    assert seen == [True, False]


def test_the_lock_of_another_machine_is_respected(shell: Shell, place: Path) -> None:
    left_by(place, json.dumps(asdict(ANNA)), STALE_MIN - 1)
    with pytest.raises(DeviceBusy, match=r"held by anna@desk \(process 4242\) since 2023-11-1"), DeviceLock(shell):
        pass
    (place / "holder").unlink()
    place.rmdir()


def test_waiting_says_for_whom(shell: Shell, place: Path) -> None:
    left_by(place, json.dumps(asdict(ANNA)), 0)

    def leave() -> None:
        (place / "holder").unlink()
        place.rmdir()

    threading.Timer(0.5, leave).start()
    said: list[str] = []
    start = time.monotonic()
    with DeviceLock(shell, 20, said.append):
        assert 0.4 < time.monotonic() - start < 5
    assert len(said) == 1
    assert "is held by anna@desk (process 4242)" in said[0]
    assert "waiting up to 20 s" in said[0]


def test_waiting_ends(shell: Shell, place: Path) -> None:
    with DeviceLock(shell):
        start = time.monotonic()
        with pytest.raises(DeviceBusy), DeviceLock(shell, 1.2):
            pass
        assert 1.1 < time.monotonic() - start < 3


def test_the_lock_of_a_dead_process_is_taken(shell: Shell, place: Path, request: pytest.FixtureRequest) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from devices.shells.local import LocalShell; from devices.shells.lock import DeviceLock\n"
        "with DeviceLock(LocalShell(Path(sys.argv[1]))): os.kill(os.getpid(), signal.SIGKILL)"
    )
    argv = (sys.executable, "-c", code, str(place.parent))
    child = subprocess.run(argv, cwd=request.config.rootpath, check=False)
    assert child.returncode == -signal.SIGKILL
    assert place.is_dir()
    with DeviceLock(shell) as lock:
        lock.refresh()
        assert str(os.getpid()) in (place / "holder").read_text()


@pytest.mark.parametrize("text", [json.dumps(asdict(ANNA)), "", "{torn", '{"token": 3}', "[]", '{"user": "x"}'])
def test_a_lock_that_nobody_refreshed_is_taken(shell: Shell, place: Path, text: str) -> None:
    left_by(place, text, STALE_MIN + 2)
    with DeviceLock(shell) as lock:
        lock.refresh()


def test_a_lock_lasts_fifteen_minutes(shell: Shell, place: Path) -> None:
    left_by(place, json.dumps(asdict(ANNA)), 14)
    with pytest.raises(DeviceBusy), DeviceLock(shell):
        pass
    os.utime(place / "holder", (time.time() - 60 * 16,) * 2)
    with DeviceLock(shell) as lock:
        lock.refresh()


def test_one_that_crashed_over_a_lock_blocks_it_for_a_while_only(shell: Shell, place: Path) -> None:
    text = json.dumps(asdict(ANNA))
    left_by(place, text, STALE_MIN + 2)
    taker = place / f"after-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    taker.mkdir()
    with pytest.raises(DeviceBusy), DeviceLock(shell):
        pass  # it may still be at it
    os.utime(taker, (time.time() - 60 * (STALE_MIN + 2),) * 2)
    with DeviceLock(shell) as lock:
        lock.refresh()


def test_a_lock_without_a_name(shell: Shell, place: Path) -> None:
    place.mkdir()
    with pytest.raises(DeviceBusy, match="left no name"), DeviceLock(shell):
        pass
    os.utime(place, (time.time() - 60 * (STALE_MIN + 2),) * 2)
    with DeviceLock(shell):
        pass


@pytest.mark.parametrize("kind", ["free", "stale", "nameless"])
def test_of_many_one_gets_it(shell: Shell, place: Path, kind: str) -> None:
    if kind == "stale":
        left_by(place, json.dumps(asdict(ANNA)), STALE_MIN + 2)
    elif kind == "nameless":
        left_by(place, "", STALE_MIN + 2)
    locks = [DeviceLock(LocalShell(place.parent)) for _ in range(8)]
    barrier = threading.Barrier(8)

    def enter(lock: DeviceLock) -> DeviceLock | None:
        barrier.wait()
        try:
            return lock.__enter__()
        except DeviceBusy:
            return None

    with ThreadPoolExecutor(8) as threads:
        holders = [lock for lock in threads.map(enter, locks) if lock]
    assert len(holders) == 1
    before = (place / "holder").stat().st_ino
    for lock in locks:
        if lock is not holders[0]:
            lock.__exit__(None, None, None)  # does nothing: it is not theirs
    assert (place / "holder").stat().st_ino == before
    holders[0].__exit__(None, None, None)


def test_of_many_that_replace_the_same_holder_one_does(tmp_path: Path) -> None:
    text = json.dumps(asdict(ANNA))
    shell, taken = LocalShell(tmp_path), b"taken\n"
    for _ in range(4):
        left_by(tmp_path / "lock", text, 0)
        barrier = threading.Barrier(12)

        def replace(i: int, barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait()
            return shell.run(("sh", "-c", _TAKE_OVER, "sh", str(tmp_path), str(i), text, "0123")).stdout

        with ThreadPoolExecutor(12) as threads:
            told = list(threads.map(replace, range(12)))
        assert sorted(told) == [b""] * 11 + [taken]
        assert (tmp_path / "lock" / "holder").read_text() == f"{told.index(taken)}\n"
        shutil.rmtree(tmp_path / "lock")


def test_a_holder_that_slept_learns_it(shell: Shell, place: Path) -> None:
    slept = DeviceLock(shell)
    with slept:
        for path in (place / "holder", place):
            os.utime(path, (time.time() - 60 * (STALE_MIN + 2),) * 2)
        with DeviceLock(LocalShell(place.parent)) as taker:
            with pytest.raises(DeviceBusy):
                slept.refresh()
            before = (place / "holder").stat().st_ino
            slept.__exit__(None, None, None)
            assert (place / "holder").stat().st_ino == before
            taker.refresh()


def test_refreshing_keeps_it_young_and_brings_it_back(shell: Shell, place: Path) -> None:
    with DeviceLock(shell) as lock:
        os.utime(place / "holder", (time.time() - 60 * (STALE_MIN - 1),) * 2)
        lock.refresh()
        assert time.time() - (place / "holder").stat().st_mtime < 10
        subprocess.run(("rm", "-r", str(place)), check=True)
        lock.refresh()
        assert place.is_dir()


def test_what_a_holder_calls_itself_cannot_hurt(shell: Shell, place: Path) -> None:
    holder = asdict(ANNA) | {"user": "\x1b[2J\nevil\r"}
    left_by(place, json.dumps(holder), 0)
    with pytest.raises(DeviceBusy) as told, DeviceLock(shell):
        pass
    assert str(told.value).isprintable()
    subprocess.run(("rm", "-r", str(place)), check=True)


def test_no_room_for_a_lock_is_told_from_other_trouble(shell: Shell) -> None:
    Path(shell.root).mkdir(exist_ok=True)
    with small_disk(shell.root, 1):
        shell.run(("sh", "-c", 'mkdir -p "$1/run"; head -c 2000000 /dev/zero >"$1/filled"', "sh", shell.root))
        with pytest.raises(DeviceFull, match="cannot lock"), DeviceLock(shell):
            pytest.fail("there is no room")
        assert not (Path(shell.root) / "lock").exists()


def test_who_sits_at_a_board_holds_what_ssh_to_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sshd(tmp_path) as server, server.shell() as far:
        for name in ("EDGENET_CACHE_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(server.home))
        with LocalShell() as near, DeviceLock(near), pytest.raises(DeviceBusy), DeviceLock(far):
            pytest.fail("two of them")


def test_no_place_for_a_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "lock").write_text("a file")
    with pytest.raises(ShellError, match="cannot lock local") as told, DeviceLock(LocalShell(tmp_path)):
        pass
    assert "\n" not in str(told.value)
