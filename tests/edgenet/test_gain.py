"""Why a smaller file is hardly faster than its float sibling, in one sentence."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from devices import registry
from devices.bench import Facts, open_bench
from devices.errors import ModelCrashed
from devices.latency import Latency, measure
from devices.native.runner import OperatorTime
from devices.runtimes.timing import Schedule
from edgenet import artifact
from edgenet.benchmarking import EXPLAINED, benchmark
from edgenet.gain import gain_of, outside, why
from tests.devices.scripted import Board, run
from tests.devices.tiny_models import tiny_tflite, write

from .symbols_files import FLOAT32, INT8

ONCE = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=3, cap_s=5, repetitions=1)
TAKEN = [OperatorTime("CONV_2D", 60.0, 5, "XNNPACK"), OperatorTime("DEPTHWISE_CONV_2D", 20.0, 5, "XNNPACK")]
FALLEN = [
    OperatorTime("HARD_SWISH", 15.0, 5, ""),
    OperatorTime("HARD_SWISH", 3.0, 5, ""),
    OperatorTime("ADD", 2.0, 5, ""),
]


@pytest.fixture
def latency(tmp_path: Path) -> Latency:
    (one,) = measure([write(tmp_path, "a.tflite", tiny_tflite())], schedule=ONCE, bench=Board([run()]))
    return dataclasses.replace(one, delegate="XNNPACK")


def manifest(precision: str = "int8", kept: Sequence[str] | None = None) -> artifact.Manifest:
    found = artifact.load(INT8)
    assert found
    assert found.manifest.quantization
    quantization = dataclasses.replace(found.manifest.quantization, kept_float=tuple(kept or ()))
    return dataclasses.replace(found.manifest, precision=precision, quantization=quantization)


@pytest.mark.parametrize(
    ("facts", "precision", "kept", "features", "operators", "said"),
    [
        (
            {"delegate": "none", "delegate_note": "XNNPACK refuses it"},
            "int8",
            (),
            (),
            FALLEN,
            "no delegate: XNNPACK ref",
        ),
        ({"delegate": "none"}, "int8", (), (), (), "no delegate: the reference kernels run it"),
        ({}, "int16x8", (), (), FALLEN, "no fast int16 kernels"),
        ({}, "float16", (), (), FALLEN, "unpacked to float32"),
        ({"ops": 64, "delegated_ops": 57}, "int8", (), (), (), "7 of 64 operators run outside of XNNPACK"),
        ({}, "int8", (), (), TAKEN + FALLEN, "outside of XNNPACK run HARD_SWISH 18%, ADD 2% of its time"),
        ({}, "int8", ("HARD_SWISH x 19", "SOFTMAX x 1"), (), TAKEN, "HARD_SWISH x 19; the processor has no int8 dot"),
        ({}, "int8", ("HARD_SWISH x 19", "SOFTMAX x 1"), ("i8mm",), TAKEN, "stayed float: HARD_SWISH x 19"),
        ({}, "int8", ("SOFTMAX x 1",), (), [*TAKEN, OperatorTime("CAST", 1.0, 5, "")], "no int8 dot product"),
        ({}, "int8", (), ("asimddp",), TAKEN, "too small to gain"),
        ({}, "int8", ("Softmax x 1",), ("asimddp",), TAKEN, "too small to gain"),  # as ONNX calls it
        ({}, "int8", (), None, (), "too small to gain"),  # nobody knows what the processor has
    ],
)
def test_one_sentence(
    latency: Latency,
    facts: dict[str, object],
    precision: str,
    kept: Sequence[str],
    features: Sequence[str] | None,
    operators: Sequence[OperatorTime],
    said: str,
) -> None:
    one = dataclasses.replace(latency, **facts)
    assert said in why(one, manifest(precision, kept), features, lambda: operators)


def test_the_three_kinds_that_take_longest_are_named() -> None:
    kinds = [OperatorTime(name, us, 5, "") for name, us in (("A", 1.0), ("B", 40.0), ("C", 30.0), ("D", 29.0))]
    assert outside(kinds, "XNNPACK") == "outside of XNNPACK run B 40%, C 30%, D 29% of its time"
    assert outside([], "XNNPACK") == ""


def test_operators_outside_of_the_delegate_are_found_where_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENET_CACHE_HOME", str(tmp_path / "cache"))
    file = write(tmp_path, "bare.tflite", tiny_tflite(bare=True))  # XNNPACK takes none of its operators
    with open_bench(registry.LOCAL, native=True) as bench:
        (row,) = benchmark([file], (1,), ONCE, lambda *_: None, bench=bench)
        said = row.outside
        none = outside(bench.profile(INT8, 1, EXPLAINED), "XNNPACK")
    assert re.fullmatch(r"outside of XNNPACK run \w+ \d+%, \w+ \d+% of its time", said)
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (\d+)%", said)}
    assert shares.keys() == {"MEAN", "CAST"}
    assert 99 <= sum(shares.values()) <= 101  # each is rounded
    assert none == ""


class Pair(Board):
    """A board on which the int8 file takes `ms`, the float one 1 ms; profiles are of a script, too."""

    def __init__(self, ms: float, operators: Sequence[OperatorTime] | Exception = ()) -> None:
        super().__init__([])
        self.ms, self.operators = ms, operators
        self.profiled: list[str] = []

    def time(self, path: Path, threads: int, schedule: Schedule) -> object:
        self.answers = [run(ms=self.ms if path == INT8 else 1.0)]
        return dataclasses.replace(super().time(path, threads, schedule), facts=Facts("LiteRT 2.3.0", "XNNPACK"))

    def profile(self, path: Path, threads: int, schedule: Schedule) -> Sequence[OperatorTime]:
        self.profiled.append(path.name)
        if isinstance(self.operators, Exception):
            raise self.operators
        return self.operators


def gains(bench: Pair) -> list[object]:
    return [row.gain for row in benchmark([FLOAT32, INT8], (1,), ONCE, lambda *_: None, bench=bench)]


def test_operators_are_timed_only_where_there_is_something_to_explain() -> None:
    for ms in (0.5, 1 / 1.06):
        fast = Pair(ms, TAKEN + FALLEN)
        _, gain = gains(fast)
        assert (gain.ratio.value, gain.why, fast.profiled) == (pytest.approx(1 / ms, rel=1e-3), "", [])
    hardly = Pair(1 / 1.04, TAKEN + FALLEN)
    assert gains(hardly)[1].why, "faster, but not so that anybody would notice"
    slow = Pair(1.0, TAKEN + FALLEN)
    none, gain = gains(slow)
    assert none is None
    assert (gain.ratio.value, slow.profiled) == (1.0, [INT8.name])
    assert gain.why == "outside of XNNPACK run HARD_SWISH 18%, ADD 2% of its time"


def test_what_runs_outside_of_the_delegate_is_told_where_no_float_sibling_shows_it() -> None:
    alone, float_alone = Pair(1.0, TAKEN + FALLEN), Pair(1.0, TAKEN + FALLEN)
    (row,) = benchmark([INT8], (1,), ONCE, lambda *_: None, bench=alone)
    assert row.outside == "outside of XNNPACK run HARD_SWISH 18%, ADD 2% of its time"
    (row,) = benchmark([FLOAT32], (1,), ONCE, lambda *_: None, bench=float_alone)
    assert (row.outside, float_alone.profiled) == ("", [])
    _, row = benchmark([FLOAT32, INT8], (1,), ONCE, lambda *_: None, bench=Pair(1.0, TAKEN + FALLEN))
    assert (row.outside, bool(row.gain.why)) == ("", True)


def test_a_gain_is_over_the_sibling_with_as_many_threads() -> None:
    class Threaded(Pair):
        def time(self, path: Path, threads: int, schedule: Schedule) -> object:
            timed = super().time(path, threads, schedule)
            return dataclasses.replace(timed, run=run(ms=(0.5 if path == INT8 else 1.0) / threads))

    rows = benchmark([FLOAT32, INT8], (1, 2), ONCE, lambda *_: None, bench=Threaded(0.5))
    assert [row.gain.ratio.value for row in rows if row.gain] == [2.0, 2.0]


def test_a_profile_that_fails_costs_no_row() -> None:
    _, gain = gains(Pair(1.0, ModelCrashed("it died")))
    assert gain.why == "the processor has no int8 dot product"  # the board has no instructions at all


def test_the_instructions_that_explain_it_are_the_devices() -> None:
    able, plain = Pair(1.0), Pair(1.0)
    able.isa = ("asimddp",)
    assert [gains(bench)[1].why for bench in (able, plain)] == [
        "its operators are too small to gain",
        "the processor has no int8 dot product",
    ]


def test_no_gain_without_a_sibling_or_a_round_that_counts(latency: Latency) -> None:
    one = dataclasses.replace(latency, path=INT8)
    assert gain_of(one, [one], {INT8: manifest()}, ()) is None
    assert gain_of(one, [one], {INT8: None}, ()) is None
    sibling = dataclasses.replace(latency, path=FLOAT32, call="another")
    of = {INT8: manifest(), FLOAT32: dataclasses.replace(manifest(), precision="float32")}
    assert gain_of(one, [one, sibling], of, ()) is None
    assert gain_of(one, [sibling, one], {INT8: manifest(), FLOAT32: None}, ()) is None


def test_a_sibling_is_the_same_network_in_the_same_format_on_as_many_threads(latency: Latency) -> None:
    one, other = (dataclasses.replace(latency, path=path) for path in (INT8, FLOAT32))
    ours, theirs = manifest(), dataclasses.replace(manifest(), precision="float32")

    def gain(sibling: Latency = other, **changes: object) -> object:
        of = {INT8: ours, FLOAT32: dataclasses.replace(theirs, **changes)}
        return gain_of(one, [one, sibling], of, ())

    assert gain()
    assert gain(dataclasses.replace(other, threads=2)) is None
    assert gain(format="onnx") is None
    assert gain(precision="float16") is None
    assert theirs.source
    assert gain(source=dataclasses.replace(theirs.source, weights_sha256="0")) is None
    assert gain(source=dataclasses.replace(theirs.source, model="/moved/mine.keras"))
    assert gain(input=dataclasses.replace(theirs.input, width=95)) is None
    assert gain(output=dataclasses.replace(theirs.output, classes=21)) is None
