"""Where model files are timed: this machine through its Python runtimes, or any device through the native runner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devices import bundle, profile, registry
from devices.device import DeviceInfo, DeviceState, probe, state
from devices.lock import DeviceLock
from devices.machine import isa_features, machine_state
from devices.model_process import ModelProcess
from devices.native import ENGINES, OperatorTime, native_measure, native_profile
from devices.place import Place, bundle_place, local_place, require_64_bit
from devices.profile import Profile, cpus_for
from devices.registry import Target
from devices.shell import Shell
from devices.store import Store
from devices.timing import Run, Schedule


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

    def profile(self, path: Path, threads: int) -> tuple[OperatorTime, ...]:
        """Time each operator, in a run of its own; raises DeviceError."""


class PythonBench:
    """This machine, through the installed Python runtimes, each file in a child process."""

    device = "local"
    runner = "python"
    info = None
    board = None

    def __init__(self, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s

    @property
    def isa(self) -> tuple[str, ...]:
        """Those of machine.ISA_FEATURES that this processor has."""
        return isa_features()

    def state(self) -> DeviceState:
        """Read what moves timings, now."""
        return machine_state()

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        """Open a file anew, warm up and time it; raises what ModelProcess raises."""
        with ModelProcess(path, threads, self.timeout_s) as process:
            info = process.info
            facts = Facts(info.runtime, info.delegate, info.delegate_note, info.ops, info.delegated_ops)
            return Timed(process.measure(schedule), facts)

    def profile(self, path: Path, threads: int) -> tuple[OperatorTime, ...]:
        """Time each operator with the native runner: the Python runtimes do not tell; raises DeviceError."""
        with open_bench(registry.find("local"), native=True) as bench:
            return bench.profile(path, threads)


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
        """Those of machine.ISA_FEATURES that its processor has."""
        return self.info.isa

    def state(self) -> DeviceState:
        """Read what moves timings, now."""
        return state(self._shell)

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        """Open a file anew, warm up and time it; raises what native_measure raises."""
        self._lock.refresh()
        timed = native_measure(
            self._shell,
            self._place,
            self._pushed(path),
            ENGINES[path.suffix.lower()],
            threads,
            schedule,
            cpus=self._cpus(threads),
            name=str(path),
        )
        before, self._connections = self._connections, self._shell.connections
        facts = Facts(timed.runtime, timed.delegate, timed.delegate_note)
        return Timed(timed.run, facts, after_gap=self._connections > before)

    def profile(self, path: Path, threads: int) -> tuple[OperatorTime, ...]:
        """Time each operator, in a run of its own; raises what native_profile raises."""
        engine = ENGINES[path.suffix.lower()]
        where, cpus = self._pushed(path), self._cpus(threads)
        return native_profile(self._shell, self._place, where, engine, threads, Schedule(), cpus=cpus, name=str(path))

    def _pushed(self, path: Path) -> str:
        if path not in self._there:
            put = self._store.put([path])
            self.pushed_bytes += put.moved_bytes
            self._there[path] = put.paths[path]
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
        yield PythonBench()
        return
    with registry.open_shell(target) as shell, DeviceLock(shell, wait_s, tell) as lock:
        info = probe(shell, target.kind)
        require_64_bit(target.name, info.arch, info.bits)
        known = profile.find(target.profile) if target.profile else profile.matching(info)
        yield NativeBench(shell, info, _place(shell, target, info, tell), lock, known)


def _place(shell: Shell, target: Target, info: DeviceInfo, tell: Callable[[str], None]) -> Place:
    if target.kind == "local":
        return local_place()
    archive = bundle.assemble(
        info.arch, lambda _done, _total, what: tell(f"fetch {what}" if what else "pack the runtime")
    )
    tell(f"push the runtime to {target.name}, where it is missing")
    folder, _ = Store(shell).put_bundle(archive)
    return bundle_place(folder, info.arch)
