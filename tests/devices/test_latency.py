"""The measuring protocol: what is kept, how files are interleaved, and the statistics."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from devices import patience
from devices.bench import Facts, Timed
from devices.errors import DeviceError, DeviceLost, DeviceUnreachable, ModelCrashed, ModelUnreadable
from devices.latency import RETRIES, Latency, measure, speedup
from devices.patience import COOL_DOWN, RETURN_S, TRY_EVERY_S
from devices.profile import CoolDown, find
from devices.repetition import Repetition, fault
from devices.runtimes.timing import Run, Schedule

from .scripted import COOL, Board, run
from .tiny_models import tiny_onnx, tiny_tflite, write

SHORT = Schedule(warmup_s=0.01, warmup_runs=5, duration_s=0.05, min_runs=20, cap_s=2, repetitions=3)


def test_every_sample_is_kept_in_order_with_what_it_was_measured_on(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.tflite", tiny_tflite()), write(tmp_path, "b.onnx", tiny_onnx())]
    steps: list[tuple[int, int, str]] = []
    results = measure(files, (1, 2), SHORT, seed=3, progress=lambda *step: steps.append(step))
    assert [(result.path.name, result.threads) for result in results] == [
        ("a.tflite", 1),
        ("a.tflite", 2),
        ("b.onnx", 1),
        ("b.onnx", 2),
    ]
    for result in results:
        assert result.samples_ns.dtype == np.int64
        assert len(result.repetitions) == 3
        assert all(len(one.run.samples_ns) >= 20 for one in result.repetitions)
        assert [one.round for one in result.repetitions] == [0, 1, 2]
        assert result.samples_ns.min() > 0
        assert result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
        assert result.cold_start_ms == sorted(one.run.load_ms + one.run.first_ms for one in result.repetitions)[1]
        assert result.cold_start_ms > result.median_ms
        assert result.median_ms == pytest.approx(np.median(result.medians_ms))
        assert result.ci95_ms is not None
        assert result.ci95_ms[0] <= result.median_ms <= result.ci95_ms[1]
        assert result.p90_ms == pytest.approx(np.percentile(result.samples_ns, 90) / 1e6)
        assert result.p90_ms <= result.p99_ms
        assert 10 << 20 < result.peak_rss_bytes < 1 << 30
    assert results[0].delegate == "XNNPACK"
    assert results[2].runtime.startswith("ONNX Runtime")
    assert [step[:2] for step in steps] == [(n, 12) for n in range(13)]
    names = [step[2] for step in steps[:-1]]
    rounds = [names[n : n + 4] for n in range(0, 12, 4)]
    assert all(sorted(one) == sorted(rounds[0]) for one in rounds)  # each round holds every case once
    assert len({tuple(one) for one in rounds}) > 1  # in another order
    assert "a.tflite, 2 threads" in names


def test_the_clock_sees_a_slower_file(tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    wide = np.ones((3, 200_000), np.float32)
    slow = tiny_onnx(
        extra=[helper.make_node("MatMul", ["s", "w"], ["x"]), helper.make_node("MatMul", ["x", "v"], ["y"])],
        tensors=[numpy_helper.from_array(wide, "w"), numpy_helper.from_array(wide.T.copy(), "v")],
        scores="y",
    )
    fast_one, slow_one = measure(
        [write(tmp_path, "fast.onnx", tiny_onnx()), write(tmp_path, "slow.onnx", slow)], schedule=SHORT
    )
    ratio = speedup(slow_one, fast_one)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.low > 2
    assert speedup(fast_one, fast_one).value == 1
    assert slow_one.peak_rss_bytes > fast_one.peak_rss_bytes
    other = dataclasses.replace(slow_one, call="another")
    with pytest.raises(ValueError, match="same measure"):
        speedup(other, fast_one)


def test_one_repetition_claims_no_interval(tmp_path: Path) -> None:
    once = dataclasses.replace(SHORT, repetitions=1)
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=once)
    assert result.ci95_ms is None
    assert len(result.repetitions) == 1


def test_the_cap_ends_a_repetition_before_its_runs_are_made(tmp_path: Path) -> None:
    capped = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=10**9, cap_s=0.2, repetitions=1)
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=capped)
    assert 0 < result.samples_ns.sum() / 1e9 <= 0.5


def test_a_broken_file_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    steps: list[int] = []
    good, empty = write(tmp_path, "a.tflite", tiny_tflite()), write(tmp_path, "b.tflite", b"")
    with pytest.raises(ModelUnreadable, match=r"b\.tflite is empty"):
        measure([good, empty], schedule=SHORT, progress=lambda done, *_: steps.append(done))
    assert steps == []


HOT = dataclasses.replace(COOL, throttled=0x4)


def test_a_throttled_repetition_is_tried_again_and_never_averaged_in(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    kept: list[Repetition] = []
    board = Board([run(), run(end=HOT, ms=9), run(), run()])
    (result,) = measure([file], schedule=SHORT, bench=board, keep=lambda _path, _threads, one: kept.append(one))
    assert (result.verdict, result.median_ms, result.device) == ("valid", 1.0, "board")
    assert [(one.round, one.fault) for one in result.repetitions] == [(0, ""), (1, "it throttles"), (1, ""), (2, "")]
    assert kept == list(result.repetitions)
    assert result.samples_ns.max() == 1e6


def test_what_stays_throttled_is_reported_as_such(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    board = Board([run(), *[run(end=HOT, ms=9)] * (1 + RETRIES), run()])
    (result,) = measure([file], schedule=SHORT, bench=board)
    assert result.verdict == "throttled"
    assert result.why == "1 of 3 repetitions, each tried 3 times: it throttles"
    assert result.median_ms == 1.0
    (hot,) = measure([file], schedule=SHORT, bench=Board([run(end=HOT, ms=9)] * 9))
    assert (hot.verdict, hot.median_ms) == ("throttled", 9.0)


@pytest.mark.parametrize(
    ("first", "last", "driver", "bits", "said"),
    [
        (1_800_000, 1_800_000, "cpufreq-dt", 0x50000, ""),  # since boot: not now
        (1_800_000, 600_000, "cpufreq-dt", 0, "its clock went from 1800 to 600 MHz"),
        (600_000, 1_800_000, "cpufreq-dt", 0, "its clock went from 600 to 1800 MHz"),
        (1_000_000, 1_080_000, "cpufreq-dt", 0, ""),
        (1_000_000, 1_120_000, "cpufreq-dt", 0, "its clock went from 1000 to 1120 MHz"),
        (3_000_000, 2_000_000, "intel_pstate", 0, ""),
        (2_200_000, 3_600_000, "acpi-cpufreq", 0, ""),  # a Ryzen of Zen 2 or 3: each core has its own
        (1_500_000, 1_500_000, "cpufreq-dt", 0x50005, "under-voltage, it throttles"),
        (None, 600_000, None, None, ""),
    ],
)
def test_what_makes_a_repetition_invalid(
    first: int | None, last: int | None, driver: str | None, bits: int | None, said: str
) -> None:
    warm = dataclasses.replace(COOL, frequency_khz=first, clock_driver=driver, throttled=bits)
    assert fault(run(warm, dataclasses.replace(warm, frequency_khz=last))) == said


@pytest.mark.parametrize(
    ("warm", "end", "said"),
    [
        (0x0, 0x40000, "it throttles"),  # it did within the repetition, and no longer does
        (0x40000, 0x50000, "under-voltage"),
        (0x40004, 0x40000, "it throttles"),  # as it began, and no longer
        (0x50000, 0x50000, ""),
        (None, 0x40000, ""),  # when that was nobody knows
        (0x0, None, ""),
    ],
)
def test_what_held_for_a_moment_within_a_repetition(warm: int | None, end: int | None, said: str) -> None:
    states = [dataclasses.replace(COOL, throttled=bits) for bits in (warm, end)]
    assert fault(run(*states)) == said


def test_a_lost_device_gets_one_chance_and_the_gap_is_marked(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    (result,) = measure([file], schedule=SHORT, bench=Board([run(), DeviceLost("gone"), run(), run()]))
    assert [one.after_gap for one in result.repetitions] == [False, True, False]
    kept: list[Repetition] = []
    gone = Board([run(), DeviceLost("gone"), DeviceLost("gone for good")])
    with pytest.raises(DeviceLost, match="for good"):
        measure([file], schedule=SHORT, bench=gone, keep=lambda _path, _threads, one: kept.append(one))
    assert len(kept) == 1


class Clock:
    """A monotonic clock that only sleeping, and a device that does not answer, move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1.0
        self.naps_s: list[float] = []
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(patience.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.naps_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


AWAY = DeviceUnreachable("no answer")


def test_a_device_that_starts_anew_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    (result,) = measure([file], schedule=SHORT, bench=Board([run(), DeviceLost("gone"), AWAY, AWAY, run(), run()]))
    assert [one.after_gap for one in result.repetitions] == [False, True, False]
    assert clock.naps_s == [TRY_EVERY_S] * 2
    (away,) = measure([file], schedule=SHORT, bench=Board([run(), AWAY, DeviceLost("restarts"), run(), run()]))
    assert [one.after_gap for one in away.repetitions] == [False, True, False]


def test_it_is_waited_for_by_the_clock_and_not_by_the_number_of_tries(tmp_path: Path, clock: Clock) -> None:
    class Slow(Board):
        def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
            if len(self.answers) < 1000:
                clock.now_s += 20.0  # what ssh takes to give up on one that is off
            return super().time(path, threads, schedule)

    began = clock.now_s
    with pytest.raises(DeviceUnreachable):
        measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=SHORT, bench=Slow([run(), *[AWAY] * 999]))
    assert RETURN_S <= clock.now_s - began <= RETURN_S + 2 * 22


def test_the_first_contact_fails_at_once(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(DeviceUnreachable):
        measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=SHORT, bench=Board([], states=[AWAY]))
    assert clock.naps_s == []


def test_a_device_lost_while_it_cools_or_at_the_very_end_spoils_nothing(tmp_path: Path, clock: Clock) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    lost = DeviceLost("gone")
    states = [None, lost, AWAY, None, None, None, lost, AWAY]  # before; of the first cool-down; ...; at the end
    (result,) = measure([file], schedule=SHORT, bench=Board([run()] * 3, states=states))
    assert [one.after_gap for one in result.repetitions] == [True, False, False]
    assert result.after.temperature_c == 45.0
    warm = run(end=dataclasses.replace(COOL, temperature_c=61.0))
    gone = Board([run(), run(), warm], states=[None] * 4 + [AWAY] * 1000)
    (kept,) = measure([file], schedule=SHORT, bench=gone)
    assert len(kept.repetitions) == 3
    assert kept.after == warm.end


def test_a_state_lost_at_the_end_is_the_one_that_the_last_round_ended_in(tmp_path: Path, clock: Clock) -> None:
    files = [write(tmp_path, name, tiny_tflite()) for name in ("a.tflite", "b.tflite")]
    warm = dataclasses.replace(COOL, temperature_c=61.0)

    class Brief(Board):
        tried = 0

        def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
            self.tried += path.name == "a.tflite"
            if path.name == "a.tflite" and self.tried > 1:
                raise ModelCrashed("a.tflite: died")  # its only repetition is of the first round
            return super().time(path, threads, schedule)

    board = Brief([run(), run(), run(), run(end=warm)], states=[None] * 6 + [AWAY] * 1000)
    (result,) = measure(files, schedule=SHORT, bench=board, failed=lambda *_: None)
    assert [one.round for one in result.repetitions] == [0, 1, 2]
    assert result.after == warm


@pytest.mark.parametrize("seed", range(4))
def test_of_several_files_it_is_the_one_that_was_timed_last(tmp_path: Path, clock: Clock, seed: int) -> None:
    files = [write(tmp_path, name, tiny_tflite()) for name in ("a.tflite", "b.tflite")]
    ends = [dataclasses.replace(COOL, temperature_c=50.0 + i) for i in range(6)]
    board = Board([run(end=end) for end in ends], states=[None] * 7 + [AWAY] * 1000)
    results = measure(files, schedule=SHORT, bench=board, seed=seed)
    assert [result.after for result in results] == [ends[-1]] * 2


def test_a_hot_device_is_let_cool(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    once = dataclasses.replace(SHORT, repetitions=1)
    board = Board([run()], [45.0, 61.0, 55.0, 45.0 + COOL_DOWN.above_idle_c])
    measure(
        [write(tmp_path, "a.tflite", tiny_tflite())],
        schedule=once,
        bench=board,
        progress=lambda _done, _total, what: said.append(what),
    )
    assert len(clock.naps_s) == 2
    assert said[0] == "cool down: 61 °C, idle was 45 °C"
    forever = Board([run(), run()], [45.0, 50.0, *[90.0] * 1000])
    clock.naps_s.clear()
    twice = dataclasses.replace(SHORT, repetitions=2)
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=twice, bench=forever)
    assert sum(clock.naps_s) == COOL_DOWN.max_s
    assert [one.hot for one in result.repetitions] == [False, True]
    used_to_it = Board([run()], [45.0, 61.0])
    used_to_it.board = dataclasses.replace(find("raspberry-pi-4b"), cool_down=CoolDown(above_idle_c=20, max_s=1))
    clock.naps_s.clear()
    measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=once, bench=used_to_it)
    assert clock.naps_s == []


def test_a_file_that_crashes_spoils_no_other(tmp_path: Path) -> None:
    files = [write(tmp_path, name, tiny_tflite()) for name in ("a.tflite", "b.tflite")]

    class Picky(Board):
        def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
            if path.name == "b.tflite":
                raise ModelCrashed("b.tflite: died")
            return super().time(path, threads, schedule)

    failed: list[tuple[str, int, DeviceError]] = []
    (result,) = measure(
        files,
        schedule=SHORT,
        bench=Picky([run()] * 3),
        failed=lambda path, threads, exc: failed.append((path.name, threads, exc)),
    )
    assert (result.path.name, len(result.repetitions)) == ("a.tflite", 3)
    assert [(name, threads, str(exc)) for name, threads, exc in failed] == [("b.tflite", 1, "b.tflite: died")]
    with pytest.raises(ModelCrashed):
        measure(files, schedule=SHORT, bench=Picky([run()] * 3))


def test_a_file_is_hashed_before_it_is_timed(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    said = hashlib.sha256(file.read_bytes()).hexdigest()
    (result,) = measure([file], schedule=SHORT, bench=Board([run()] * 3), keep=lambda *_: file.unlink(missing_ok=True))
    assert result.sha256 == said


def test_a_file_that_is_replaced_while_it_is_timed_has_no_result(tmp_path: Path) -> None:
    """Its times would stand under the name and the hash of the other one."""
    file = write(tmp_path, "a.tflite", tiny_tflite())
    kept: list[int] = []

    def replace(_path: Path, _threads: int, one: Repetition) -> None:
        kept.append(one.round)
        write(tmp_path, "a.tflite", tiny_tflite() + b"\0")

    with pytest.raises(ModelUnreadable, match=r"a\.tflite was changed while it was being timed: time it again$"):
        measure([file], schedule=SHORT, bench=Board([run()] * 3), keep=replace)
    assert kept == [0]


def test_a_speed_up_is_of_rounds_without_a_fault(tmp_path: Path) -> None:
    files = [write(tmp_path, name, tiny_tflite()) for name in ("a.tflite", "b.tflite")]
    hot = run(end=HOT, ms=9)

    class Paired(Board):
        def __init__(self, slow: list[Run], fast: list[Run]) -> None:
            super().__init__([])
            self.of = {"a.tflite": slow, "b.tflite": fast}

        def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
            return Timed(self.of[path.name].pop(0), Facts("LiteRT 2.3.0"))

    def both(slow: list[Run], fast: list[Run]) -> list[Latency]:
        return measure(files, schedule=SHORT, bench=Paired(slow, fast))

    slow, fast = both([run(ms=4), hot, hot, hot, run(ms=4)], [run(ms=2)] * 3)
    assert speedup(slow, fast).value == 2
    slow, fast = both([hot] * 9, [run(ms=2)] * 3)
    with pytest.raises(ValueError, match="no valid repetition"):
        speedup(slow, fast)


def test_outliers_are_counted_and_kept(tmp_path: Path) -> None:
    samples = np.full(20, 1_000_000, np.int64) + np.arange(20) * 1000
    samples[7] = 5_000_000
    far = dataclasses.replace(run(), samples_ns=samples)
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=SHORT, bench=Board([far, run(), run()]))
    assert result.outliers == 1
    assert result.samples_ns.max() == 5_000_000


def test_the_figures_of_known_samples(tmp_path: Path) -> None:
    parts = np.split(np.arange(1, 102) * 1_000_000, [40, 70])  # 1 .. 101 ms, over three repetitions
    runs = [dataclasses.replace(run(), samples_ns=part) for part in parts]
    answers = [dataclasses.replace(one, peak_rss_bytes=peak) for one, peak in zip(runs, (30, 50, 40), strict=True)]
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=SHORT, bench=Board([*answers]))
    assert list(result.medians_ms) == [20.5, 55.5, 86.0]
    assert result.median_ms == 55.5
    assert (result.p90_ms, result.p99_ms, result.mad_ms) == pytest.approx((91.0, 100.0, 25.0))
    assert result.cv == pytest.approx(850**0.5 / 51)
    assert result.peak_rss_bytes == 50


@pytest.mark.parametrize(
    ("runs", "verdict", "why"),
    [
        ([run(ms=1), run(ms=1.001), run(ms=1.002)], "valid", ""),
        ([run(ms=1), run(ms=1.5), run(ms=2)], "unstable", "only known to"),
        ([run(), run(output="1"), run()], "unstable", "answers differently"),
    ],
)
def test_the_verdict_on_a_device(tmp_path: Path, runs: list[Run], verdict: str, why: str) -> None:
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=SHORT, bench=Board([*runs]))
    assert result.verdict == verdict
    assert why in result.why


def test_a_median_that_is_known_to_two_percent_is_known_well_enough(tmp_path: Path) -> None:
    file = write(tmp_path, "a.tflite", tiny_tflite())
    verdicts = []
    for off in (0.019, 0.021, 0.03):
        (result,) = measure([file], schedule=SHORT, bench=Board([run(ms=1 - off), run(ms=1), run(ms=1 + off)]))
        assert result.ci95_ms == pytest.approx((1 - off, 1 + off))
        verdicts.append((result.verdict, result.why))
    cure = "end what else runs, or give edgenet bench more --repetitions"
    assert verdicts == [("valid", ""), *(("unstable", f"the median is only known to +-{n} %: {cure}") for n in (2, 3))]
