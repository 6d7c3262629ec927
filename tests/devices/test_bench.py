"""Where files are timed: who holds a device meanwhile, for how long, and what is known of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from devices import bench as bench_module
from devices import registry
from devices.bench import NativeBench, PythonBench, open_bench
from devices.device import probe
from devices.errors import DeviceBusy
from devices.native import bundle
from devices.native.place import local_place
from devices.profile import find
from devices.runtimes.timing import Schedule
from devices.shells.local import LocalShell
from devices.shells.lock import DeviceLock
from devices.shells.store import Put, Store

from .boards import pi4, pixel6
from .peers import small_disk
from .sshd import Sshd
from .tiny_models import tiny_tflite, write

SHORT = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=3, cap_s=5, repetitions=1)
LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"EDGENET_{kind}_HOME", str(tmp_path / kind.lower()))
    return tmp_path / "cache"


@pytest.mark.parametrize("native", [False, True])
def test_this_machine_is_held_and_probed(native: bool) -> None:
    with open_bench(registry.LOCAL, native=native) as bench:
        assert bench.info is not None
        assert bench.info.arch == platform.machine()
        assert bench.board is not None
        with pytest.raises(DeviceBusy, match=f"process {os.getpid()}"), open_bench(registry.LOCAL):
            pass
    with open_bench(registry.LOCAL):
        pass


def test_where_this_machine_has_no_folder_for_us_it_is_measured_all_the_same(cache: Path) -> None:
    cache.write_text("a file")
    said: list[str] = []
    with open_bench(registry.LOCAL, tell=said.append) as bench:
        assert bench.info is None
        bench.state()
    assert "neither held nor probed" in said[0]
    assert said[0].endswith("set EDGENET_CACHE_HOME to a folder of yours")


def test_where_its_disk_is_full_it_is_measured_all_the_same(cache: Path) -> None:
    cache.mkdir()
    said: list[str] = []
    with small_disk(str(cache), 1):
        with contextlib.suppress(OSError):
            (cache / "rest").write_bytes(b"x" * (2 << 20))
        with open_bench(registry.LOCAL, tell=said.append) as bench:
            assert bench.info is not None
            bench.state()
    assert said[0].startswith("this machine is not held: cannot lock local in ")


def test_a_lock_is_refreshed_by_all_that_lasts(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    holder = cache / "device" / "lock" / "holder"

    def refreshed() -> bool:
        fresh = holder.stat().st_mtime > LONG_AGO
        os.utime(holder, (LONG_AGO, LONG_AGO))
        return fresh

    with LocalShell() as shell, DeviceLock(shell) as lock:
        info = probe(shell, "local")
        native, python = NativeBench(shell, info, local_place(), lock, None), PythonBench(lock=lock)
        refreshed()
        for bench in (native, python):
            bench.time(file, 1, SHORT)
            assert refreshed()
            bench.profile(file, 1, SHORT)
            assert refreshed()
        for bench in (native, python):
            bench.state()
            assert not refreshed()  # it was said a moment ago
        monkeypatch.setattr(bench_module, "HELD_S", 0.0)
        for bench in (native, python):
            bench.state()
            assert refreshed()


def test_a_push_ends_in_a_fresh_lock(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    holder = cache / "device" / "lock" / "holder"
    seen: list[float] = []

    class Slow(Store):
        def put(self, files: Sequence[Path]) -> Put:
            put = super().put(files)
            os.utime(holder, (LONG_AGO, LONG_AGO))
            return put

    def measured(*_: object, **__: object) -> NoReturn:
        seen.append(holder.stat().st_mtime)
        raise KeyboardInterrupt

    with LocalShell() as shell, DeviceLock(shell) as lock:
        monkeypatch.setattr(bench_module, "Store", Slow)
        monkeypatch.setattr(bench_module, "native_measure", measured)
        bench = NativeBench(shell, probe(shell, "local"), local_place(), lock, None)
        with pytest.raises(KeyboardInterrupt):
            bench.time(file, 1, SHORT)
    assert seen[0] > LONG_AGO


def test_a_device_is_not_held_while_its_runtime_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").mkdir()
    with Sshd(tmp_path / "ssh") as server:
        monkeypatch.setenv("PATH", f"{server.bin}{os.pathsep}{os.environ['PATH']}")
        held: list[bool] = []

        def assemble(*_: object) -> Path:
            held.append((server.root / "lock").exists())
            raise KeyboardInterrupt

        monkeypatch.setattr(bundle, "assemble", assemble)
        target = registry.addressed("pi", server.address, key=server.key)
        with pytest.raises(KeyboardInterrupt), open_bench(target):
            pass
    assert held == [False]


def test_instructions_that_a_device_does_not_tell_are_its_profiles(cache: Path) -> None:
    with LocalShell() as shell, DeviceLock(shell) as lock:
        info = probe(shell, "local")
        mute = dataclasses.replace(info, isa=())
        pixel = find("google-pixel-6")
        assert NativeBench(shell, info, local_place(), lock, pixel).isa == info.isa
        assert NativeBench(shell, mute, local_place(), lock, pixel).isa == pixel.isa
        assert NativeBench(shell, mute, local_place(), lock, None).isa == ()


def test_a_phone_is_timed_on_its_fastest_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    asked: list[str | None] = []

    def native(*_: object, cpus: str | None = None, **__: object) -> NoReturn:
        asked.append(cpus)
        raise KeyboardInterrupt

    for name in ("native_measure", "native_profile"):
        monkeypatch.setattr(bench_module, name, native)
    with LocalShell() as shell, DeviceLock(shell) as lock:
        phone, pi = probe(shell, "ssh", str(pixel6(tmp_path / "phone"))), probe(shell, "ssh", str(pi4(tmp_path / "pi")))
        for info, board in ((phone, "google-pixel-6"), (pi, "raspberry-pi-4b")):
            bench = NativeBench(shell, info, local_place(), lock, find(board))
            for ask in (bench.time, bench.profile):
                for threads in (1, 4):
                    with pytest.raises(KeyboardInterrupt):
                        ask(file, threads, SHORT)
    assert asked == ["6,7", "4,5,6,7"] * 2 + [None] * 4  # a Raspberry Pi's are all alike
