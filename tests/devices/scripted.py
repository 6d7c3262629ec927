"""A device that answers from a script: no board throttles, or is unplugged, at a test's command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from devices.bench import Facts, Timed
from devices.device import DeviceState
from devices.runtimes.timing import Run, Schedule

COOL = DeviceState(
    load_1m=0.1,
    governor="ondemand",
    clock_driver="cpufreq-dt",
    frequency_khz=1_800_000,
    temperature_c=45.0,
    throttled=0,
)


def run(warm: DeviceState = COOL, end: DeviceState = COOL, ms: float = 1.0, output: str = "0") -> Run:
    return Run(np.full(20, int(ms * 1e6), np.int64), 5, 1.0, 1.0, 1 << 20, output, warm, end)


class Board:
    """A device whose repetitions, temperatures and troubles with its state are a script."""

    device = "board"
    runner = "native"
    isa = ()
    info = None
    board = None

    def __init__(
        self,
        answers: list[Run | Exception],
        temperatures: list[float] | None = None,
        states: list[Exception | None] | None = None,
    ) -> None:
        self.answers, self.temperatures, self.states = answers, temperatures or [], states or []

    def state(self) -> DeviceState:
        trouble = self.states.pop(0) if self.states else None
        if trouble:
            raise trouble
        return dataclasses.replace(COOL, temperature_c=self.temperatures.pop(0) if self.temperatures else 45.0)

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Timed(answer, Facts("LiteRT 2.3.0"))
