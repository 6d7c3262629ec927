"""What a person is told of a benchmark beside the table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from devices.latency import Latency, measure
from devices.statistics import Ratio
from devices.timing import Schedule
from edgenet.benchmarking import Row, benchmark
from edgenet.benchmarking_report import remarks, row_json
from edgenet.gain import Gain
from tests.devices.scripted import Board, run
from tests.devices.tiny_models import tiny_tflite, write

ONCE = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=3, cap_s=5, repetitions=2)


@pytest.fixture
def latency(tmp_path: Path) -> Latency:
    (one,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=ONCE, bench=Board([run(), run()]))
    return one


def row(one: Latency, **changes: object) -> Row:
    return Row(dataclasses.replace(one, **changes), "int8", "native", "", None, "")


def test_a_valid_row_needs_no_words(latency: Latency) -> None:
    assert remarks([row(latency)]) == ()


def test_what_a_reader_should_know(latency: Latency) -> None:
    gap = dataclasses.replace(latency.repetitions[0], after_gap=True)
    told = dataclasses.replace(
        row(
            latency,
            verdict="throttled",
            why="it was hot",
            repetitions=(gap, latency.repetitions[1]),
            outliers=30,
            delegate_note="XNNPACK refuses it",
            threads=2,
        ),
        gain=Gain(Ratio(0.9, 0.8, 1.0), "stayed float: ADD"),
        published="3.1x the published 24 ms",
        threads_note="2 threads are unusual",
    )
    where = "a.tflite on board, 2 threads: "
    assert remarks([told, told]) == (
        f"{where}throttled: it was hot",
        f"{where}the device was lost before 1 of 2 repetitions, and came back",
        f"{where}30 of 40 runs lie far from the rest; they are counted in",
        f"{where}XNNPACK refuses it",
        f"{where}0.90x its float sibling's speed: stayed float: ADD",
        f"{where}3.1x the published 24 ms",
        f"{where}2 threads are unusual",
    )
    assert remarks([row(latency, outliers=2)]) == ()  # of 40: as everywhere


def test_devices_that_answer_differently_are_told_of(latency: Latency) -> None:
    here, there = row(latency), row(latency, device="pi", output_hash="1")
    (said,) = remarks([here, there])
    assert said.startswith("a.tflite answers differently on board and on pi: an int8 TFLite file")
    assert (
        "last bits of a float answer" in remarks([dataclasses.replace(one, precision="") for one in (here, there)])[0]
    )
    (threads,) = remarks([here, row(latency, threads=2, output_hash="1")])
    assert "with different numbers of threads" in threads
    assert remarks([here, row(latency, device="pi")]) == ()
    assert remarks([here, row(latency, sha256="other", output_hash="1")]) == ()  # another file


def test_outliers_and_notes_are_in_the_document(tmp_path: Path) -> None:
    samples = np.full(20, 1_000_000, np.int64)
    samples[3] = 9_000_000
    far = dataclasses.replace(run(), samples_ns=samples)
    file = write(tmp_path, "a.tflite", tiny_tflite())
    (one,) = benchmark([file], (1,), ONCE, lambda *_: None, bench=Board([far, run()]))
    document = row_json(one)
    assert (document["outliers"], document["threads_note"]) == (1, "")
