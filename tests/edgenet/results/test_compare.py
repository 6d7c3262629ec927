"""Faster, slower, no difference, or nobody can tell: never more than the repetitions hold."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from devices.bench import Facts, Timed
from devices.device import DeviceState
from devices.latency import Latency, measure
from devices.runtimes.timing import Run, Schedule
from edgenet.benchmarking import Row
from edgenet.cli.fitting import fitting
from edgenet.cli.terminal import _plain
from edgenet.errors import EdgenetError, GateMissed, UsageError
from edgenet.reports.benchmarks import row_json
from edgenet.reports.results import outcome_table, recorded_json, recorded_table
from edgenet.results.compare import ENOUGH, Outcome, check, compare, judge, parse_tolerance
from edgenet.results.kept import Kept, Recorded, find, recent
from edgenet.results.recorder import Recorder
from tests.edgenet.command_line import PLAIN
from tests.edgenet.conftest import Edgenet

STATE = DeviceState(None, None, None, None, None, None)
HOT = dataclasses.replace(STATE, throttled=4)
SWAPPED = {"faster": "slower", "slower": "faster"}


def recorded(times: list[float] | np.ndarray, **changes: Any) -> Recorded:
    """A result with these medians of its repetitions, in ms."""
    repetitions = tuple(Kept(turn, float(ms), "") for turn, ms in enumerate(times))
    file = changes.get("file", "model.tflite")
    one = Recorded(
        id=1,
        started_at="2026-01-01T00:00:00+00:00",
        call="",
        device="pi4",
        board="",
        runner="",
        runtime="",
        path=f"/out/{file}",
        file=file,
        sha256="0" * 64,
        precision="int8",
        threads=1,
        median_ms=float(np.median(times)),
        ci95=None,
        verdict="valid",
        why="",
        repetitions=repetitions,
        complete=True,
    )
    return dataclasses.replace(one, **changes)


def answers(outcome: Outcome) -> list[str]:
    return [row.answer for row in outcome.rows]


def noisy(ms: float, noise: float, seed: int, repetitions: int = 15) -> np.ndarray:
    return ms * (1 + noise * np.random.default_rng(seed).standard_normal(repetitions))


medians = st.lists(st.floats(0.5, 50, allow_nan=False), min_size=ENOUGH, max_size=12)
tolerances = st.floats(0, 0.5)


@pytest.mark.parametrize("seed", range(10))
def test_four_percent_is_found_and_one_is_not(seed: int) -> None:
    base = recorded(noisy(10, 0.004, seed))
    for slower_by, answer in (
        (1.04, "slower"),
        (1.01, "no difference"),
        (1 / 1.01, "no difference"),
        (1 / 1.04, "faster"),
    ):
        new = recorded(noisy(10 * slower_by, 0.004, seed + 100))
        assert answers(compare([base], [new], 0.03)) == [answer]


def test_drift_hides_nothing_from_files_that_were_timed_in_turns() -> None:
    drift = np.linspace(1, 1.3, 9)  # the device gets slower and slower, under both
    base, new = recorded(10 * drift, call="a"), recorded(10.5 * drift * noisy(1, 0.002, 1, 9), call="a")
    (row,) = compare([base], [new], 0.03).rows
    assert (row.answer, row.paired) == ("slower", True)
    assert row.interval is not None
    assert 1.03 < row.interval[0] <= (row.ratio or 0) <= row.interval[1] < 1.07
    apart = dataclasses.replace(new, call="b")
    (row,) = compare([base], [apart], 0.03).rows
    assert (row.answer, row.paired) == ("cannot tell", False)
    assert "more --repetitions" in row.why


def test_paired_results_are_paired_by_round_and_not_by_place() -> None:
    base = recorded([10, 20, 30, 40, 50, 60, 70], call="a")
    times = [Kept(turn, 10.0 * (turn + 1), "") for turn in (6, 2, 3, 4, 5, 1)]  # round 0 was throttled
    new = dataclasses.replace(base, repetitions=(Kept(0, 99.0, "it throttles"), *times))
    (row,) = compare([base], [new], 0.03).rows
    assert (row.answer, row.ratio, row.interval) == ("no difference", 1.0, (1.0, 1.0))


@given(medians, medians, tolerances, st.booleans())
@settings(deadline=None, max_examples=60)
def test_who_swaps_the_sides_swaps_the_answer(
    ours: list[float], theirs: list[float], tolerance: float, paired: bool
) -> None:
    base, new = recorded(ours, call="a"), recorded(theirs, call="a" if paired else "b")
    (there,), (back,) = compare([base], [new], tolerance).rows, compare([new], [base], tolerance).rows
    assert back.answer == SWAPPED.get(there.answer, there.answer)
    assert there.ratio == pytest.approx(1 / (back.ratio or 0))
    assert there.interval is not None
    assert there.interval[0] <= there.interval[1]


@given(medians, tolerances)
@settings(deadline=None, max_examples=30)
def test_a_result_is_no_different_from_itself(times: list[float], tolerance: float) -> None:
    one = recorded(times, call="a")
    assert answers(compare([one], [one], tolerance)) == ["no difference"]


@given(st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted), st.tuples(tolerances, tolerances).map(sorted))
def test_a_wider_tolerance_only_ever_hides_differences(interval: list[float], widths: list[float]) -> None:
    low, high = interval
    narrow, wide = (judge((low, high), width) for width in widths)
    if wide in ("slower", "faster"):
        assert narrow == wide
    if narrow == "no difference":
        assert wide == narrow
    assert judge((1 / high, 1 / low), 0.7) == SWAPPED.get(judge((low, high), 0.7), judge((low, high), 0.7))


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ((1.031, 1.05), "slower"),
        ((1.029, 1.05), "cannot tell"),
        ((0.95, 0.97), "faster"),
        ((0.95, 0.98), "cannot tell"),
        ((0.98, 1.02), "no difference"),
        ((0.9, 1.1), "cannot tell"),
    ],
)
def test_what_an_interval_means(interval: tuple[float, float], answer: str) -> None:
    assert judge(interval, 0.03) == answer


def test_few_repetitions_claim_nothing() -> None:
    thin, thick = recorded([10.0] * 4, id=7), recorded([99.0] * 15, id=8)
    (row,) = compare([thin], [thick], 0.03).rows
    assert (row.answer, row.interval) == ("cannot tell", None)
    assert row.ratio == pytest.approx(9.9)
    assert "4 repetitions are too few" in row.why
    for pair in ((thin, thick), (thick, thin)):
        assert compare(pair[:1], pair[1:], 0.03).rows[0].why.startswith("7: model.tflite on pi4")
    (row,) = compare([thick], [recorded([10.0])], 0.03).rows
    assert "1 repetition is too few" in row.why


def test_a_throttled_result_is_no_evidence() -> None:
    good = recorded(noisy(10, 0.001, 1))
    hot = recorded(noisy(20, 0.001, 2), id=7, verdict="throttled", why="5 of 15 repetitions: it throttles")
    for pair in ((good, hot), (hot, good)):
        outcome = compare(pair[:1], pair[1:], 0.03)
        assert answers(outcome) == ["no evidence"]
        assert outcome.rows[0].ratio is None
        with pytest.raises(
            EdgenetError, match=r"7: model\.tflite on pi4, 1 thread is throttled: 5 of 15 .* cool$"
        ) as caught:
            check(outcome)
        assert caught.value.exit_code == 1


def test_files_timed_in_turns_without_a_round_that_counts_for_both_are_no_evidence() -> None:
    one = recorded([10.0] * 8, call="a")
    early, late = (
        dataclasses.replace(one, repetitions=tuple(Kept(turn, 10.0, "hot" * (turn // 4 != half)) for turn in range(8)))
        for half in (0, 1)
    )
    (row,) = compare([early], [late], 0.03).rows
    assert (row.answer, row.ratio) == ("no evidence", None)
    assert "no round counts on both sides" in row.why


def test_a_regression_beside_a_throttled_result_is_still_one() -> None:
    base = [recorded(noisy(10, 0.001, n), threads=n) for n in (1, 2)]
    new = [recorded(noisy(20, 0.001, 3)), recorded(noisy(20, 0.001, 4), threads=2, verdict="throttled")]
    outcome = compare(base, new, 0.03)
    assert answers(outcome) == ["slower", "no evidence"]
    with pytest.raises(
        GateMissed, match=r"slower by more than 3 %: 1: model\.tflite on pi4, 1 thread takes 1\.999x as long$"
    ):
        check(outcome)


def test_what_a_reader_should_know_is_said() -> None:
    base = recorded(noisy(10, 0.001, 1), verdict="unstable", why="the median is only known to +-4 %", runner="python")
    new = recorded(noisy(10, 0.001, 2), id=2, verdict="unfinished", complete=False, runner="native", runtime="LiteRT 2")
    remarks = "\n".join(compare([base], [new], 0.03).remarks)
    assert "1: model.tflite on pi4, 1 thread is unstable: the median is only known to +-4 %" in remarks
    assert "2: model.tflite on pi4, 1 thread: its benchmark is not complete; it has 15 repetitions" in remarks
    assert "timed by the native runner, and by the python one before" in remarks
    assert "LiteRT 2" not in remarks  # before, nobody knows
    known = [recorded(noisy(10, 0.001, 1), runner="native", runtime=f"LiteRT {number}") for number in (1, 2)]
    assert compare(known[:1], known[1:], 0.03).remarks == (
        "1: model.tflite on pi4, 1 thread: LiteRT 2, and LiteRT 1 before",
    )
    assert compare(known[:1], known[:1], 0.03).remarks == ()
    fell = [dataclasses.replace(known[0], delegate=name) for name in ("XNNPACK", "none", "CPUExecutionProvider", "")]
    assert compare(fell[:1], fell[1:2], 0.03).remarks == (
        "1: model.tflite on pi4, 1 thread: its delegate is none, and was XNNPACK before",
    )
    for one, other in ((0, 0), (1, 1), (0, 2), (1, 3)):
        assert compare(fell[one : one + 1], fell[other : other + 1], 0.03).remarks == ()


def cells(shown: Table) -> list[str]:
    """Read the only row of a table."""
    text = io.StringIO()
    Console(file=text, width=200, highlight=False, markup=False).print(shown)
    (row,) = (line for line in text.getvalue().splitlines() if line.startswith("│"))
    return [cell.strip() for cell in row.split("│")[1:-1]]


def test_every_figure_of_a_comparison_has_a_column_of_its_own() -> None:
    base = recorded([10.0] * 5, call="once", ci95=(9.5, 10.5))
    new = recorded([10.5, 11.0, 11.0, 11.0, 11.5], call="once", file="new.tflite")
    outcome = compare([base], [new], 0.03)
    assert cells(outcome_table(outcome)) == [
        *("model.tflite", "new.tflite", "pi4", "1", "10.00 ms", "11.00 ms", "1.100", "1.050 .. 1.150"),
        *("in turns", "slower"),
    ]
    assert outcome_table(outcome).caption == "new / base with its 95 % interval; a difference counts from 3 % on"
    apart = outcome_table(compare([base], [dataclasses.replace(new, call="")], 0.03))
    assert cells(apart)[8] == "apart"
    assert str(apart.caption).endswith("; timed apart: what changed on the device in between is part of it")
    table = recorded_table([base])
    listed = cells(table)
    assert listed[:1] + listed[2:] == ["1", "pi4", "model.tflite", "int8", "1", "10.00 ms", "9.50 .. 10.50", "valid"]
    (narrow,) = fitting(table, 80)
    assert list(map(str, narrow.columns[1].cells)) == list(listed)  # on its side: a date is as whole as a figure


def test_files_of_one_name_are_told_apart() -> None:
    base, new = recorded([10.0] * 5), recorded([11.0] * 5, path="/out/best/model.tflite")
    assert cells(outcome_table(compare([base], [new], 0.03)))[:2] == ["/out/model.tflite", "/out/best/model.tflite"]
    assert cells(outcome_table(compare([base], [base], 0.03)))[:2] == ["model.tflite", "model.tflite"]
    text = io.StringIO()
    Console(file=text, width=200).print(recorded_table([base, new, recorded([5.0], file="other.tflite")]))
    assert " /out/best/model.tflite " in text.getvalue()
    assert " other.tflite " in text.getvalue()


def test_results_are_matched_by_device_threads_and_of_several_files_by_name() -> None:
    times = noisy(10, 0.001, 1)
    base = [recorded(times, device=device, threads=threads) for device in ("pi4", "phone") for threads in (1, 2)]
    new = [recorded(times, device="pi4", threads=2, file="renamed.tflite"), recorded(times, device="pi5")]
    outcome = compare(base, new, 0.03)
    assert [(row.base.device, row.base.threads, row.new.file) for row in outcome.rows] == [("pi4", 2, "renamed.tflite")]
    assert len(outcome.left_out) == 4
    assert len(compare(base, base, 0.03, device="phone").rows) == 2
    assert len(compare(base, base, 0.03, device="phone", threads=2).rows) == 1
    several = [recorded(times, file=name) for name in ("a.tflite", "b.tflite")]
    (row,) = compare(several, [recorded(times, file="b.tflite")], 0.03).rows
    assert row.base.file == "b.tflite"
    assert compare([recorded(times, board="Pi 4")], [recorded(times)], 0.03).rows  # nobody knows what the other was


@pytest.mark.parametrize(
    ("base", "new", "says"),
    [
        ([{}], [{"device": "phone"}], "BASE was timed on pi4 and NEW on phone"),
        ([{}], [{"threads": 4}], "4 threads"),
        ([{"file": "a.onnx"}, {"file": "b.onnx"}], [{}], "of several files, the name"),
        ([{}, {}], [{}], "several results of one file name"),
        ([{"board": "Pi 4"}], [{"board": "Pi 5"}], "pi4 was Pi 4 and is Pi 5"),
    ],
)
def test_what_does_not_compare_is_refused_in_a_line(
    base: list[dict[str, Any]], new: list[dict[str, Any]], says: str
) -> None:
    times = noisy(10, 0.001, 1)
    with pytest.raises(UsageError, match=says) as caught:
        compare([recorded(times, **one) for one in base], [recorded(times, **one) for one in new], 0.03)
    assert "\n" not in str(caught.value)


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    one = recorded(noisy(10, 0.001, 1))
    with pytest.raises(UsageError, match="BASE has no result on phone with 2 threads"):
        compare([one], [one], 0.03, device="phone", threads=2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3%", 0.03), ("0.03", 0.03), ("3", 0.03), ("0.5 %", 0.005), ("0", 0), ("1", 0.01), ("50%", 0.5)],
)
def test_a_tolerance_is_read(text: str, value: float) -> None:
    assert parse_tolerance(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "x", "nan", "inf%", "-1%", "100", "3%%", "0.5", "1e999"])
def test_a_tolerance_that_is_none_or_may_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tolerance"):
        parse_tolerance(text)


class Board:
    """A device that takes a file's own time, in ms, and throttles when told to."""

    device = "pi4"

    runner, isa, info, board = "native", (), None, None

    def __init__(self, times: dict[str, float], end: DeviceState = STATE) -> None:
        self.times, self.end, self.rng = times, end, np.random.default_rng(5)

    def state(self) -> DeviceState:
        return STATE

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        samples = (self.times[path.name] * 1e6 * (1 + 0.002 * self.rng.standard_normal(30))).astype(np.int64)
        return Timed(Run(samples, 5, 2.0, 1.0, 1 << 20, "0", STATE, self.end), Facts("LiteRT 2.3.0", "XNNPACK"))


def benchmark(times: dict[str, float], folder: Path, end: DeviceState = STATE) -> list[Latency]:
    """Measure and record as edgenet bench does."""
    for name in times:
        (folder / name).write_bytes(b"\0\0\0\0TFL3" + name.encode())
    with Recorder("edgenet bench", warn=pytest.fail) as recorder:
        keep = recorder.keeper("pi4", "ssh", "native")
        paths = [folder / name for name in times]
        made = measure(paths, schedule=Schedule(repetitions=7), bench=Board(times, end), keep=keep)  # type: ignore[arg-type]
        recorder.finished(made)
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGENET_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def written(folder: Path, made: list[Latency]) -> Path:
    """The JSON document that edgenet bench writes."""
    file = folder / "base.json"
    file.write_text(
        json.dumps({"rows": [row_json(Row(one, "int8", "native", "", None, "")) for one in made]}, default=_plain)
    )
    return file


def test_a_json_document_of_bench_is_the_result_it_was_written_from(home: Path, tmp_path: Path) -> None:
    made = benchmark({"a.tflite": 5.0, "b.tflite": 6.0}, tmp_path)
    read = {one.file: one for one in find(str(written(tmp_path, made)))}
    for kept in recent(9):
        assert kept.repetitions == read[kept.file].repetitions
        assert (kept.call, kept.sha256, kept.ci95, kept.delegate) == tuple(
            getattr(read[kept.file], name) for name in ("call", "sha256", "ci95", "delegate")
        )
        outcome = compare([kept], [read[kept.file]], 0.0)
        assert outcome.rows[0].paired
        assert "BASE and NEW are one measurement" in outcome.remarks[0]
    assert "one measurement" not in str(compare([read["a.tflite"]], [read["b.tflite"]], 0.0).remarks)


def test_what_results_lists_as_json_can_be_compared(home: Path, tmp_path: Path) -> None:
    benchmark({"a.tflite": 5.0}, tmp_path)
    (kept,) = recent(9)
    file = tmp_path / "listed.json"
    file.write_text(json.dumps([recorded_json(kept)]))
    assert find(str(file)) == (dataclasses.replace(kept, id=None),)
    file.write_text(file.read_text(), "utf-16")  # as > of PowerShell writes it
    assert find(str(file)) == (dataclasses.replace(kept, id=None),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "[5]",
        '{"rows": 5}',
        "[{}]",
        "[" * 100_000,
        '[{"device": "a"}]',
        "\xff",
        "BASE:repetitions:5",
        "BASE:repetitions:[5]",
        'BASE:repetitions:[{"round": 0, "fault": "", "median_ms": -1}]',
        'BASE:repetitions:[{"round": 0, "fault": "", "run": {"samples_ns": []}}]',
        'BASE:repetitions:[{"round": 0, "fault": "", "run": {"samples_ns": ["x"]}}]',
        "BASE:median_ms:NaN",
        "BASE:threads:1e999",
        "BASE:ci95_ms:[1]",
        "BASE:path:7",
    ],
)
def test_a_document_that_is_none_is_refused_in_a_line(home: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.json"
    if text.startswith("BASE:"):
        _, name, value = text.split(":", 2)
        document = json.loads(written(tmp_path, benchmark({"a.tflite": 5.0}, tmp_path)).read_text())["rows"]
        text = json.dumps([{**document[0], name: json.loads(value)}])
    file.write_text(text, encoding="latin-1")
    with pytest.raises(EdgenetError, match="is no JSON of edgenet bench") as caught:
        find(str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_empty_document_holds_no_result(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"rows": []}')
    with pytest.raises(UsageError, match="holds no result"):
        find(str(tmp_path / "none.json"))


def test_the_verb_exits_3_on_a_regression_alone(edgenet: Edgenet, home: Path, tmp_path: Path) -> None:
    made = benchmark({"a.tflite": 5.0, "b.tflite": 5.2}, tmp_path)
    numbers = {one.file: one.id for one in recent(9)}
    slower = edgenet("compare", numbers["a.tflite"], tmp_path / "b.tflite", "--json")
    assert slower.code == 3
    assert slower.document["rows"][0]["answer"] == "slower"
    assert slower.document["tolerance"] == 0.03
    assert slower.err.count("\n") == 1
    assert "slower by more than 3 %" in slower.err
    document = written(tmp_path, made)
    table = edgenet("compare", tmp_path / "b.tflite", document, "--tolerance", "5%")
    assert (table.code, table.err.splitlines()) == (
        0,
        [
            "warning: a.tflite on pi4, 1 thread: the other side has no such result",
            "warning: b.tflite on pi4, 1 thread: BASE and NEW are one measurement, and never differ; "
            "edgenet results lists others",
        ],
    )
    assert "no difference" in table.out
    faster = edgenet("compare", tmp_path / "b.tflite", tmp_path / "a.tflite")
    assert (faster.code, "faster" in faster.out, "in turns" in faster.out) == (0, True, True)


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_the_gate_counts_though_nobody_reads_the_result(home: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    """As in `edgenet compare 1 2 --json | head -1` with pipefail, and with 2>&1."""
    benchmark({"a.tflite": 5.0, "b.tflite": 5.2}, tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    command = (*PLAIN, "compare", tmp_path / "a.tflite", tmp_path / "b.tflite", *how)
    with os.fdopen(writer, "wb") as unread:
        ran = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)
        unheard = subprocess.run(command, stdout=unread, stderr=unread, check=False)
    assert (ran.returncode, unheard.returncode) == (3, 3)
    assert ran.stderr.count("\n") == 1
    assert "slower by more than 3 %" in ran.stderr


def test_the_verb_refuses_what_is_no_evidence(edgenet: Edgenet, home: Path, tmp_path: Path) -> None:
    benchmark({"a.tflite": 5.0}, tmp_path)
    benchmark({"a.tflite": 9.0}, tmp_path, HOT)
    ran = edgenet("compare", 1, 2)
    assert ran.code == 1
    assert "no evidence" in ran.out
    assert "it throttles" in ran.err
    assert ran.err.count("\n") == 1
    assert edgenet("compare", 1, 99).code == 2
