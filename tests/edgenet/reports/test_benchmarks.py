"""What a person is told of a benchmark: the tables, what is said beside them, and the document."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from devices.device import Android, DeviceState, probe
from devices.errors import DeviceError
from devices.latency import Latency, measure
from devices.native.runner import OperatorTime
from devices.profile import Published, find
from devices.runtimes.timing import Schedule
from devices.shells.local import LocalShell
from devices.statistics import Ratio
from edgenet.benchmarking import Profile, Row, benchmark
from edgenet.cli.bench import _judge
from edgenet.conditions import conditions
from edgenet.errors import GateMissed
from edgenet.gain import Gain
from edgenet.reports.benchmarks import operators, remarks, row_json, table, too_few
from tests.devices.boards import pi4, pi5
from tests.devices.scripted import COOL, Board, run
from tests.devices.tiny_models import tiny_tflite, write
from tests.edgenet.symbols_files import FLOAT32, INT8

ONCE = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=3, cap_s=5, repetitions=2)


@pytest.fixture
def latency(tmp_path: Path) -> Latency:
    (one,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=ONCE, bench=Board([run(), run()]))
    return one


def row(one: Latency, **changes: object) -> Row:
    return Row(dataclasses.replace(one, **changes), "int8", "native", "", None, "")


def cells(shown: Table) -> list[list[str]]:
    """Read a table in a wide terminal: its rows, the head first, cell by cell."""
    text = io.StringIO()
    Console(file=text, width=200, highlight=False, markup=False).print(shown)
    lines = [line for line in text.getvalue().splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


def test_every_figure_has_a_column_of_its_own(latency: Latency) -> None:
    pi = row(
        latency,
        device="pi",
        threads=4,
        median_ms=12.344,
        ci95_ms=(12.1, 12.6),
        p90_ms=13.5,
        p99_ms=19.25,
        cold_start_ms=87.4,
        peak_rss_bytes=43_000_000,
        file_bytes=3_990_000,
        delegate="XNNPACK",
        ops=66,
        delegated_ops=64,
        verdict="unstable",
    )
    pi = dataclasses.replace(pi, gain=Gain(Ratio(2.314, 2.2, 2.4), ""))
    local = row(latency, device="local", path=Path("b.tflite"), file_bytes=120_000, ci95_ms=None, median_ms=7.5)
    head, first, second = cells(table([pi, local]))
    assert head == [
        *("device", "file", "threads", "median", "interval", "p90", "p99"),
        *("cold start", "memory", "size", "gain", "runs on", "verdict"),
    ]
    assert first == [
        *("pi", "a.tflite", "4", "12.34 ms", "12.10 .. 12.60", "13.50 ms", "19.25 ms"),
        *("87 ms", "43 MB", "3.99 MB", "2.31x", "XNNPACK 64/66 ops", "unstable"),
    ]
    assert second == [
        *("local", "b.tflite", "1", "7.50 ms", "", "1.00 ms", "1.00 ms"),
        *("2 ms", "1 MB", "0.12 MB", "", "LiteRT 2.3.0", "valid"),
    ]
    assert cells(table([local])) == [head[1:], second[1:]]  # nobody needs to be told that it is this machine
    assert str(table([local]).caption).endswith("cold start: load + first run")
    assert str(table([pi]).caption).endswith("; gain: over the float32 file of the same network")
    python = dataclasses.replace(local, runner="python")
    assert str(table([python]).caption).endswith("; memory on this machine: Python's included")


def test_what_is_smaller_than_a_tenth_is_no_zero(latency: Latency) -> None:
    tiny = row(latency, median_ms=0.0312, ci95_ms=(0.00304, 0.0996), p90_ms=0.1, file_bytes=2_960, delegate="none")
    slow = dataclasses.replace(tiny, gain=Gain(Ratio(0.0044, 0.004, 0.005), "no fast kernels"))
    (_, shown) = cells(table([slow]))
    assert [shown[at] for at in (3, 4, 5, 9, 10)] == ["0.031 ms", "0.003 .. 0.1", "0.10 ms", "0.003 MB", "0.0044x"]
    assert "0.0044x its float sibling's speed" in remarks([slow])[0]


def test_a_missed_gate_tells_files_of_one_name_apart(latency: Latency) -> None:
    fast, slow = (row(latency, path=Path(folder, "m.tflite"), median_ms=ms) for folder, ms in (("a", 4), ("b", 6)))
    with pytest.raises(GateMissed, match=r"^slower than 5 ms: b/m\.tflite 6\.000 ms \(1 thread on board\)$"):
        _judge([fast, slow], 5)


def test_the_operators_that_take_longest_come_first_with_their_shares_of_the_whole() -> None:
    few = (
        OperatorTime("ADD", 254.0, 5, ""),
        OperatorTime("CONV_2D", 700.0, 5, "XNNPACK"),
        OperatorTime("MEAN", 46.0, 5, ""),
    )
    shown = operators(Profile("pi", Path("models/a.tflite"), 2, few))
    assert shown.title == "a.tflite on pi, 2 threads"
    assert shown.caption == "3 operators, 1.00 ms in all; profiling slows them"
    assert cells(shown) == [
        ["operator", "us", "share", "runs on"],
        ["CONV_2D", "700.0", "70.0%", "XNNPACK"],
        ["ADD", "254.0", "25.4%", ""],
        ["MEAN", "46.0", "4.6%", ""],
    ]
    many = tuple(OperatorTime(f"OP_{us}", us, 5, "") for us in range(1, 21))
    shown = operators(Profile("pi", Path("a.tflite"), 1, many))
    assert shown.title == "a.tflite on pi, 1 thread"
    assert [(line[0], line[2]) for line in cells(shown)[1:]] == [
        (f"OP_{us}", f"{100 * us / 210:.1f}%") for us in range(20, 5, -1)
    ]


def test_a_valid_row_needs_no_words(latency: Latency) -> None:
    assert remarks([row(latency)]) == ()


def test_what_a_reader_should_know(latency: Latency) -> None:
    gap = dataclasses.replace(latency.repetitions[0], after_gap=True, hot=True)
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
        outside="outside of XNNPACK run ADD 30% of its time",
        conditions=("its load was 3.0",),
    )
    where = "a.tflite on board, 2 threads: "
    assert remarks([told, told]) == (
        f"{where}throttled: it was hot",
        f"{where}the device was lost before 1 of 2 repetitions, and came back",
        f"{where}1 of 2 repetitions began before it had cooled down: give it air, or time fewer files at once",
        f"{where}30 of 40 runs lie far from the rest; they are counted in",
        f"{where}XNNPACK refuses it",
        f"{where}0.90x its float sibling's speed: stayed float: ADD",
        f"{where}outside of XNNPACK run ADD 30% of its time",
        f"{where}3.1x the published 24 ms",
        f"{where}2 threads are unusual",
        f"{where}its load was 3.0",
    )
    assert remarks([row(latency, outliers=4)]) == ()  # of 40: as everywhere
    assert remarks([row(latency, outliers=5)]) == (
        "a.tflite on board, 1 thread: 5 of 40 runs lie far from the rest; they are counted in",
    )


def test_few_repetitions_are_told_of() -> None:
    (said,) = too_few(4)
    assert said.startswith("--repetitions 4: too few")
    assert too_few(5) == ()


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


def test_a_schedule_of_none_is_refused_and_counts_may_be_numpys() -> None:
    counts: Any = np.arange(3)

    def quiet(*_: object) -> None: ...

    for threads, schedule in ((counts, ONCE), ((1,), dataclasses.replace(ONCE, repetitions=0))):
        with pytest.raises(DeviceError, match="1 repetition and 1 thread at least"):
            benchmark([INT8], threads, schedule, quiet, bench=Board([]))
    schedule = dataclasses.replace(ONCE, repetitions=counts[2])
    rows = benchmark([INT8], counts[1:], schedule, quiet, bench=Board([run()] * 4))
    assert [row.latency.threads for row in rows] == [1, 2]


def test_the_samples_of_a_document_are_those_that_count_and_its_repetitions_all(tmp_path: Path) -> None:
    hot = run(end=dataclasses.replace(COOL, throttled=0x4), ms=9)
    file = write(tmp_path, "a.tflite", tiny_tflite())
    (one,) = benchmark([file], (1,), ONCE, lambda *_: None, bench=Board([run(ms=1), hot, run(ms=2)]))
    document = row_json(one)
    assert document["samples_ns"] == [1_000_000] * 20 + [2_000_000] * 20
    assert [each.run.samples_ns[0] for each in document["repetitions"]] == [1_000_000, 9_000_000, 2_000_000]


def test_threads_without_a_processor_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Probed(Board):
        board = find("x86-64")  # where 4 threads make sense
        info = probe(LocalShell(tmp_path), root=str(pi4(tmp_path / "root")))  # 4 processors

    once = dataclasses.replace(ONCE, repetitions=1)
    rows = benchmark([INT8], (3, 4, 5), once, lambda *_: None, bench=Probed([run()] * 3))
    assert [row.threads_note for row in rows] == [
        "3 threads are unusual on x86-64 computer: 1, 2, 4 or 8 make sense",
        "",
        "5 threads are more than its 4 processors: they wait for each other",
    ]

    class Here(Probed):
        info = dataclasses.replace(Probed.info, kind="local")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)  # as in a container
    rows = benchmark([INT8], (2, 4), once, lambda *_: None, bench=Here([run()] * 2))
    assert [row.threads_note for row in rows] == [
        "",
        "4 threads are more than its 2 processors: they wait for each other",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ()),
        ({"load_1m": 4.5}, ()),
        ({"load_1m": 4.6}, ("its load was 4.6 on 4 processors before it began: end what else runs there",)),
        ({"frequency_khz": 1_630_000}, ()),
        (
            {"frequency_khz": 600_000, "governor": "powersave"},
            ("its clock was at 600 of 1800 MHz, its governor is powersave: edgenet devices check board",),
        ),
        ({"frequency_khz": 600_000, "clock_driver": "acpi-cpufreq"}, ()),  # of the first processor, not of ours
        (
            {"governor": "powersave", "clock_driver": "intel_cpufreq"},
            ("its governor is powersave, which holds the lowest clock: edgenet devices check board",),
        ),
        ({"governor": "powersave", "clock_driver": "amd-pstate-epp"}, ()),  # which raises the clock by itself
        ({"governor": "powersave"}, ()),  # whose lowest clock is its highest
        (
            {"throttled": None},
            ("whether it throttled is not known, as vcgencmd does not answer: edgenet devices check board",),
        ),
    ],
)
def test_what_meets_all_repetitions_alike_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], says: tuple[str, ...]
) -> None:
    monkeypatch.setattr("edgenet.conditions.lent", lambda: 1.5)
    state = dataclasses.replace(COOL, **changes)

    class Probed(Board):
        info = probe(LocalShell(tmp_path), root=str(pi4(tmp_path / "root")))

        def state(self) -> DeviceState:
            return state

    (one,) = benchmark([INT8], (1,), ONCE, lambda *_: None, bench=Probed([run(state, state)] * 2))
    assert (one.latency.verdict, one.conditions) == ("valid", says)
    assert conditions(dataclasses.replace(one.latency, threads=2), Probed.info) == says  # it is not this machine
    here = dataclasses.replace(Probed.info, kind="local")
    assert conditions(one.latency, here) == says
    assert conditions(dataclasses.replace(one.latency, threads=2), here) == (
        "the container it runs in may use 1.5 processors: beyond that it is made to wait",
        *says,
    )
    phone = Android(34, "14", "Phone 1", "", "", "arm64-v8a", 80, False)
    assert conditions(one.latency, dataclasses.replace(Probed.info, android=phone)) == ()


def test_a_latency_is_held_against_what_was_published_for_its_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENET_CONFIG_HOME", str(tmp_path))
    published = Published("mobilenet_v2_0.35_96", "int8", 1, 2.0, "a runtime", "a paper")

    class Known(Board):
        board = dataclasses.replace(find("raspberry-pi-4b"), published=(published,))

    def said(file: Path, ms: float, threads: int = 1) -> str:
        (one,) = benchmark([file], (threads,), ONCE, lambda *_: None, bench=Known([run(ms=ms), run(ms=ms)]))
        return one.published

    assert said(INT8, 6.0) == "3.0x the published 2 ms for this board (a paper): check the governor"
    assert said(INT8, 3.2).startswith("1.6x the published")
    assert said(INT8, 6.0, threads=2) == ""
    assert said(INT8, 2.9) == said(FLOAT32, 6.0) == ""
    monkeypatch.setattr(Known, "info", probe(LocalShell(tmp_path), root=str(pi5(tmp_path / "root"))))
    assert said(INT8, 6.0).startswith("it says that it is Raspberry Pi 5 Model B Rev 1.0, whose profile is raspberry-")
