"""The clock around a bare inference."""

from __future__ import annotations

from devices.timing import Schedule, time_session


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
