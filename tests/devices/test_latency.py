"""The measuring protocol: what is kept, how files are interleaved, and the statistics."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import ModelUnreadable
from devices.latency import bootstrap_ci95, measure, repetition_medians_ms, speedup
from devices.timing import Schedule

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
        assert len(result.samples_ns) == sum(result.repetition_runs) >= 60
        assert min(result.repetition_runs) >= 20
        assert result.samples_ns.min() > 0
        assert result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
        assert len(result.cold_starts_ms) == len(result.repetition_runs) == 3
        assert result.cold_start_ms == sorted(result.cold_starts_ms)[1]
        assert result.cold_start_ms > result.median_ms
        assert result.median_ms == pytest.approx(np.median(repetition_medians_ms(result)))
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
    other = dataclasses.replace(slow_one, before=dataclasses.replace(slow_one.before, temperature_c=-1.0))
    with pytest.raises(ValueError, match="same measure"):
        speedup(other, fast_one)


def test_one_repetition_claims_no_interval(tmp_path: Path) -> None:
    once = dataclasses.replace(SHORT, repetitions=1)
    (result,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=once)
    assert result.ci95_ms is None
    assert len(result.cold_starts_ms) == 1


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


@given(st.lists(st.floats(0.01, 1000), min_size=2, max_size=9))
@settings(deadline=None, max_examples=30)
def test_the_interval_lies_within_the_values_and_is_reproducible(values: list[float]) -> None:
    array = np.array(values)
    low, high = bootstrap_ci95(array, 1)
    assert array.min() <= low <= np.median(array) <= high <= array.max()
    assert (low, high) == bootstrap_ci95(array, 1)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_ci95(rng.normal(10, 1, 15))
        hits += low <= 10 <= high
    assert 0.88 <= hits / 200 <= 1
