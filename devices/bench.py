"""Where model files are timed: this machine through its Python runtimes, or any device through the native runner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devices import profile, registry
from devices.device import DeviceInfo, DeviceState, probe, state
from devices.errors import DeviceFull, DeviceUnfit
from devices.machine import isa_features, machine_state
from devices.native import bundle
from devices.native.place import Place, bundle_place, local_place, require_64_bit
from devices.native.runner import ENGINES, OperatorTime, native_measure, native_profile
from devices.profile import Profile, cpus_for
from devices.registry import Target
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Run, Schedule
from devices.shells.local import LocalShell
from devices.shells.lock import DeviceLock
from devices.shells.shell import Shell
from devices.shells.store import Store
from devices.steady import steady

PROFILED = Schedule()
"""How long operators are timed."""

HELD_S = 60.0
"""How often a device's lock is refreshed while its state is asked again and again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What runs a file.

    Attributes:
        runtime: "LiteRT 2.3.0".
        delegate: "XNNPACK", "none", "CPUExecutionProvider"; "" where the runtime does not tell.
        delegate_note: why the default delegate was left out, else "".
        ops: operators in the file's graph; None where the runtime does not tell.
        delegated_ops: how many of them the delegate took.
    """

    runtime: str
    delegate: str = ""
    delegate_note: str = ""
    ops: int | None = None
    delegated_ops: int | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """One repetition on a device, and what ran it; after_gap: the device was lost before it, and came back."""

    run: Run
    facts: Facts
    after_gap: bool = False


class Bench(Protocol):
    """A device that files are timed on."""

    @property
    def device(self) -> str:
        """The device, as the user calls it."""

    @property
    def runner(self) -> str:
        """What times files there: "python" or "native"."""

    @property
    def isa(self) -> tuple[str, ...]:
        """Those of machine.ISA_FEATURES that its processor has."""

    @property
    def info(self) -> DeviceInfo | None:
        """What it is; None where it was not probed."""

    @property
    def board(self) -> Profile | None:
        """What is known of such boards; None where nothing is."""

    def state(self) -> DeviceState:
        """Read what moves timings, now."""

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        """Open a file anew, warm up and time it; raises DeviceError."""

    def profile(self, path: Path, threads: int, schedule: Schedule = PROFILED) -> tuple[OperatorTime, ...]:
        """Time each operator, in a run of its own; raises DeviceError."""


class PythonBench:
    """This machine, through the installed Python runtimes, each file in a child process.

    info, board: what it is, where it was probed. lock: refreshed before each repetition.
    """

    device = "local"
    runner = "python"

    def __init__(
        self,
        timeout_s: float = 60.0,
        info: DeviceInfo | None = None,
        board: Profile | None = None,
        lock: DeviceLock | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.info = info
        self.board = board
        self._lock = lock

    @property
    def isa(self) -> tuple[str, ...]:
        """Those of machine.ISA_FEATURES that this processor has."""
        return isa_features()

    def state(self) -> DeviceState:
        """Read what moves timings, now."""
        if self._lock:
            self._lock.refresh(HELD_S)
        return machine_state()

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        """Open a file anew, warm up and time it; raises what ModelProcess raises, and the lock."""
        if self._lock:
            self._lock.refresh()
        with ModelProcess(path, threads, self.timeout_s) as process:
            info = process.info
            facts = Facts(info.runtime, info.delegate, info.delegate_note, info.ops, info.delegated_ops)
            return Timed(process.measure(schedule), facts)

    def profile(self, path: Path, threads: int, schedule: Schedule = PROFILED) -> tuple[OperatorTime, ...]:
        """Time each operator with the native runner: the Python runtimes do not tell; raises DeviceError."""
        if self._lock:
            self._lock.refresh()
        where, engine = str(path.absolute()), ENGINES[path.suffix.lower()]
        with LocalShell() as shell:
            return native_profile(shell, local_place(), where, engine, threads, schedule, name=str(path))


class NativeBench:
    """A device, through the native runner: nothing but a shell is needed there.

    A model file is pushed when it is first timed; one that is there already is not pushed again.
    """

    runner = "native"

    def __init__(self, shell: Shell, info: DeviceInfo, place: Place, lock: DeviceLock, board: Profile | None) -> None:
        self.info = info
        self.board = board
        self.pushed_bytes = 0
        self._shell, self._place, self._lock = shell, place, lock
        self._there: dict[Path, str] = {}
        self._connections = shell.connections
        self._store = Store(shell)

    @property
    def device(self) -> str:
        """The device, as the user calls it."""
        return self._shell.name

    @property
    def isa(self) -> tuple[str, ...]:
        """Those of machine.ISA_FEATURES that its processor has; its profile's, where it tells of none."""
        return self.info.isa or (self.board.isa if self.board else ())

    def state(self) -> DeviceState:
        """Read what moves timings, now."""
        self._lock.refresh(HELD_S)  # this is what is asked while it cools down
        return state(self._shell)

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        """Open a file anew, warm up and time it; raises what native_measure raises."""
        self._lock.refresh()
        where = self._pushed(path)
        timed = native_measure(
            self._shell,
            self._place,
            where,
            ENGINES[path.suffix.lower()],
            threads,
            schedule,
            cpus=self._cpus(threads),
            name=str(path),
        )
        before, self._connections = self._connections, self._shell.connections
        facts = Facts(timed.runtime, timed.delegate, timed.delegate_note)
        return Timed(timed.run, facts, after_gap=self._connections > before)

    def profile(self, path: Path, threads: int, schedule: Schedule = PROFILED) -> tuple[OperatorTime, ...]:
        """Time each operator, in a run of its own; raises what native_profile raises."""
        self._lock.refresh()
        engine = ENGINES[path.suffix.lower()]
        where, cpus = self._pushed(path), self._cpus(threads)
        return native_profile(self._shell, self._place, where, engine, threads, schedule, cpus=cpus, name=str(path))

    def _pushed(self, path: Path) -> str:
        if path not in self._there:
            put = self._store.put([path])
            self.pushed_bytes += put.moved_bytes
            self._there[path] = put.paths[path]
            if put.moved_bytes:  # over a slow network that may have lasted
                self._lock.refresh()
        return self._there[path]

    def _cpus(self, threads: int) -> str | None:
        return ",".join(map(str, cpus_for(self.board, self.info, threads))) or None


@contextlib.contextmanager
def open_bench(
    target: Target, *, native: bool = False, wait_s: float = 0.0, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Bench]:
    """Connect to a device, hold it, and see to it that the native runner is there.

    Args:
        target: the device.
        native: use the native runner on this machine, too.
        wait_s: for a device that another edgenet holds.
        tell: told of each step.

    Raises:
        ShellError: it cannot be reached, does not let us in, is held, or runs no 64-bit programs.
        BundleError: the runtime for it could not be assembled.
    """
    if target.kind == "local" and not native:
        with _here(wait_s, tell) as here:
            yield here
        return
    with registry.open_shell(target) as shell:
        info = probe(shell, target.kind)
        require_64_bit(target.name, info.arch, info.bits)
        # Before the device is held: what is downloaded for it may take longer than a lock lasts.
        archive = None if target.kind == "local" else _archive(info, tell)
        with DeviceLock(shell, wait_s, tell) as lock:
            place = _place(shell, info, archive, tell) if archive else local_place()
            lock.refresh()
            known = profile.find(target.profile) if target.profile else profile.matching(info)
            with steady(shell, info, tell) if archive else contextlib.nullcontext():
                yield NativeBench(shell, info, place, lock, known)


@contextlib.contextmanager
def _here(wait_s: float, tell: Callable[[str], None]) -> Iterator[PythonBench]:
    """Hold this machine, and probe it, where there is a POSIX shell, and room for us; go on without elsewhere."""
    if os.name != "posix":
        yield PythonBench()
        return
    info: DeviceInfo | None = None
    lock: DeviceLock | None = None
    with contextlib.ExitStack() as held:
        try:
            shell = held.enter_context(LocalShell())
            info = probe(shell, "local")
            lock = held.enter_context(DeviceLock(shell, wait_s, tell))
        except (DeviceFull, DeviceUnfit) as exc:
            tell(f"this machine is {'not held' if info else 'neither held nor probed'}: {exc}")
        yield PythonBench(info=info, board=profile.matching(info) if info else None, lock=lock)


def _archive(info: DeviceInfo, tell: Callable[[str], None]) -> Path:
    return bundle.assemble(info.arch, lambda _done, _all, what: tell(f"fetch {what}" if what else "pack the runtime"))


def _place(shell: Shell, info: DeviceInfo, archive: Path, tell: Callable[[str], None]) -> Place:
    tell(f"push the runtime to {shell.name}, where it is missing")
    folder, _ = Store(shell).put_bundle(archive)
    return bundle_place(folder, info.arch)
