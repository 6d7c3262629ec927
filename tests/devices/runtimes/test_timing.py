"""The clock around a bare inference."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from devices.runtimes.timing import Schedule, peak_rss_bytes, time_session


class Session:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def invoke(self) -> None:
        self.asked.append("invoke")

    def state(self) -> int:
        self.asked.append("state")
        return len(self.asked)


def test_the_first_run_after_the_state_was_read_is_none_of_the_samples() -> None:
    session = Session()
    schedule = Schedule(warmup_s=0, warmup_runs=2, duration_s=0, min_runs=3, cap_s=5)
    samples, warmed, warm, end = time_session(session, schedule, session.state)  # type: ignore[arg-type]
    assert session.asked == ["invoke", "invoke", "state", "invoke", "invoke", "invoke", "invoke", "state"]
    assert (len(samples), warmed, warm, end) == (3, 3, 3, 8)


def test_a_device_is_warm_by_default() -> None:
    assert Schedule().warmup_s >= 1
    assert Schedule().warmup_runs >= 5


def test_no_garbage_is_collected_while_the_clock_runs() -> None:
    collected: list[bool] = []

    class Watched(Session):
        def invoke(self) -> None:
            collected.append(gc.isenabled())
            if len(collected) > 6:
                raise KeyboardInterrupt

    session = Watched()
    schedule = Schedule(warmup_s=0, warmup_runs=2, duration_s=0, min_runs=3, cap_s=5)
    time_session(session, schedule, session.state)  # type: ignore[arg-type]
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        time_session(session, schedule, session.state)  # type: ignore[arg-type]
    assert gc.isenabled()
    assert collected == [False] * 7


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read from /proc")
def test_the_peak_is_what_linux_calls_the_high_water_mark() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    mark = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    assert peak_rss_bytes() == pytest.approx(mark, rel=0.01)  # the kernel counts pages in batches
