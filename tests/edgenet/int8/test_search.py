"""The search for the best int8 form: its order, its determinism, what it costs in float, and the gate behind it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.int8 import clipping, correct, distill, islands, prepare
from converters.int8.costs import noise_alone
from devices.runtimes.model_process import ModelProcess
from edgenet import conditions
from edgenet.artifact import Artifact, Attempt, Source
from edgenet.dataset import batches
from edgenet.image import Preprocessing
from edgenet.int8 import affordable, island_latency, search, trial
from edgenet.int8.advice import FLOAT16, advise
from edgenet.int8.candidates import held_out
from edgenet.int8.trial import Images, drop_points, judged
from edgenet.nets.network import Network
from edgenet.order import NONE, Calibration, Demand, Order, calibration_images
from edgenet.quantization import quantize
from tests.converters.int8.networks import SIGNED, WIDTH, chain_network, coarse_network
from tests.devices.scripted import COOL
from tests.edgenet.conftest import Edgenet


def named(name: str, core: Any) -> Network:
    source = Source(name, "", "", "none", "", int(core.outputs[0].shape[-1]), "-1..1", None)
    return Network(name, core, SIGNED["scale"], SIGNED["offset"], None, source)


@pytest.fixture(scope="module")
def coarse() -> Network:
    """Six layers that 8 bits do not fit: every step of the search has something to do, and little to trace."""
    return named("coarse", coarse_network())


@pytest.fixture(scope="module")
def few(pictures: Path) -> Calibration:
    return calibration_images(pictures, 30)


@pytest.fixture
def island_seeker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the search look for islands wherever it stands and whatever they cost, with the quickest correction."""
    monkeypatch.setattr(search, "ENOUGH_DB", 90.0)
    monkeypatch.setattr(affordable, "CHEAP", 3.0)
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[:1])


@pytest.fixture
def undemanding(island_seeker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let islands part the runtimes, and gain next to nothing."""
    monkeypatch.setattr(islands, "PARTED", 1.0)
    monkeypatch.setattr(search, "WORTHWHILE_DB", 0.01)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files be equally fast: opening and timing them takes longer than all else."""
    monkeypatch.setattr(island_latency, "fastest_ms", lambda files, *_: [1.0] * len(files))


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files that are made at the end be timed once."""
    monkeypatch.setattr(trial, "QUICK", dataclasses.replace(trial.QUICK, repetitions=1))


@pytest.fixture(scope="module")
def chain() -> Network:
    """Layers that copies of channels fit into."""
    return named("chain", chain_network())


def let_copies_gain(db: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge copies of channels to be so much better than they are."""
    judge = search.judged

    def judged(what: str, *others: Any) -> Attempt:
        answer = judge(what, *others)
        return dataclasses.replace(answer, sqnr_db=answer.sqnr_db + db * ("copies" in what))

    monkeypatch.setattr(search, "judged", judged)


def split(network: Network, calibration: Calibration) -> tuple[np.ndarray, Images]:
    """Return pictures to correct by, and ten to judge by."""
    images = np.concatenate(list(batches(calibration.files, Preprocessing(network.height, network.width), 16)))
    answers = np.concatenate(list(network.scores([images])))
    return images[10:], Images(images[:10], answers[:10], list, np.zeros(0, np.int64), np.zeros(0, np.int64))


def searched(
    network: Network, calibration: Calibration, out: Path, demand: Demand, warn: Callable[[str], None] = lambda _: None
) -> Artifact:
    order = Order(("tflite",), out)
    (file,) = quantize(network, "int8", calibration, order, lambda *_: None, demand=demand, warn=warn).files
    return file


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let more run on this machine than it has processors."""
    monkeypatch.setattr(conditions, "machine_state", lambda: dataclasses.replace(COOL, load_1m=9.0))
    monkeypatch.setattr(conditions, "cores", lambda: 2)


def simulated(file: Artifact) -> list[Attempt]:
    assert file.manifest.quantization is not None
    return [attempt for attempt in file.manifest.quantization.attempts if attempt.subject == "simulator"]


Step = tuple[float, float, float | None]  # SQNR, agreement, what it must gain


@pytest.mark.parametrize(
    ("steps", "kept", "why"),
    [
        ([(20.0, 0.9, None), (20.04, 0.9, None)], [0], "+0.0 dB: too little to measure"),
        ([(20.0, 0.9, None), (20.06, 0.9, None)], [0, 1], "+0.1 dB"),
        ([(20.0, 0.9, None), (19.0, 0.9, None)], [0], "-1.0 dB: no gain"),
        ([(20.0, 0.9, None), (20.3, 0.9, 0.5)], [0], "+0.3 dB: not worth what it costs"),
        ([(20.0, 0.9, None), (20.3, 0.94, 0.5)], [0], "+0.3 dB: not worth what it costs"),
        ([(20.0, 0.9, None), (20.02, 0.94, None)], [0, 1], "+0.0 dB"),  # it agrees more often, by more than noise
        ([(20.0, 0.9, None), (20.02, 0.92, None)], [0], "+0.0 dB: too little to measure"),
        ([(20.0, 0.9, None), (20.6, 0.9, 0.5)], [0, 1], "+0.6 dB"),
        # Each agrees less often by no more than noise, all together by more than twice that.
        (
            [(20.0, 0.9, None), (20.6, 0.87, None), (21.2, 0.84, None), (21.8, 0.81, None)],
            [0, 1, 2],
            "+0.6 dB, but agrees on 3.0 points less",
        ),
    ],
)
def test_a_step_is_taken_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, steps: list[Step], kept: list[int], why: str
) -> None:
    """On 100 images, of which one standard error at 90 % is 3 points; what a step answers is told."""
    told = iter(steps)

    def judged(what: str, *_: Any) -> Attempt:
        sqnr_db, agreement, _least = next(told)
        return Attempt(what, "simulator", sqnr_db, agreement, None, None, None, kept=False, why="")

    monkeypatch.setattr(search, "judged", judged)
    nothing: Any = None
    simulator = SimpleNamespace(load=lambda _: None, scores=nothing)
    prepared: Any = SimpleNamespace(start="nothing", simulator=simulator)
    walk = search._Walk(prepared, nothing, nothing, Images(np.zeros(100), *[nothing] * 4), lambda *_: None)
    states: list[Any] = [f"state {i}" for i in range(len(steps))]
    took = [walk.attempt("a step", state, least) for state, (*_, least) in zip(states, steps, strict=True)]
    assert [i for i, wins in enumerate(took) if wins] == kept
    assert [attempt.kept for attempt in walk.attempts] == took
    assert walk.state == states[kept[-1]]
    assert walk.sqnr_db == steps[kept[-1]][0]
    assert walk.attempts[-1].why == why


class Tagged(str):
    """A state that is called by what it was made of."""

    @property
    def weights(self) -> str:
        return f"weights of {self}"


NEAREST, GPTQ, COMPENSATED = (method.name for method in correct.METHODS)


@pytest.mark.parametrize(
    ("effort", "helps", "tried"),
    [
        (
            "best",
            {NEAREST, search.CHEAPEST, GPTQ, COMPENSATED, "equalization", f"{COMPENSATED}, from 60 images"},
            [
                "float",
                f"float | {NEAREST} of 24",
                f"float~ | {NEAREST} of 24",
                f"float~ | {GPTQ} of 24",
                f"float~ | {COMPENSATED} of 24",
                f"equalized~ | {COMPENSATED} of 24",
                f"equalized~ | {COMPENSATED} of 60",
                f"weights of equalized~ from equalized~ | {COMPENSATED} of 60",
            ],
        ),
        (
            "best",
            {GPTQ},
            [
                "float",
                f"float | {NEAREST} of 24",
                "float~",
                f"float | {GPTQ} of 24",
                f"float | {COMPENSATED} of 24",
                f"equalized~ | {GPTQ} of 24",
                f"float | {GPTQ} of 60",
                f"float | {COMPENSATED} of 60",
                f"weights of float from float | {GPTQ} of 24",
            ],
        ),
        (
            "fast",
            {NEAREST, search.CHEAPEST},
            [
                "float",
                f"float | {NEAREST} of 24",
                f"float~ | {NEAREST} of 24",
                f"float~ | {GPTQ} of 24",
                f"float~ | {NEAREST} of 60",
                f"float~ | {COMPENSATED} of 60",
            ],
        ),
        ("fast", set(), ["float", f"float | {NEAREST} of 24", "float~", f"float | {GPTQ} of 24"]),
    ],
    ids=["all helps", "GPTQ alone helps", "fast", "nothing helps"],
)
def test_each_step_begins_from_what_helped_before(
    monkeypatch: pytest.MonkeyPatch, effort: Any, helps: set[str], tried: list[str]
) -> None:
    """Stand-ins say what a state is made of; corrections and distillation see the training images alone."""
    training, apart = np.zeros((60, 1, 1, 3), np.uint8), np.ones((30, 1, 1, 3), np.uint8)
    loaded, nothing = list[str](), SimpleNamespace()
    simulator = SimpleNamespace(load=loaded.append, scores=None, stored_values=lambda: 10**9)
    prepared = SimpleNamespace(start=Tagged("float"), simulator=simulator)
    best = [30.0]

    def judged(what: str, *_: Any) -> Attempt:
        wins = what in helps or what == "calibration alone"
        best[0] += wins
        return Attempt(what, "simulator", best[0] - (not wins), 0.9, None, None, None, kept=False, why="")

    def corrected(_: Any, base: str, images: np.ndarray, method: Any, __: Any, most: int) -> Tagged:
        assert images is training
        return Tagged(f"{base} | {method.name} of {most}")

    def cheapest(_: Any, wide: str, images: np.ndarray, __: Any) -> Any:
        assert len(images) == 90
        return SimpleNamespace(state=Tagged(f"{wide}~"), noise={}, before={}, channels={})

    def distilled(_: Any, state: str, weights: str, images: np.ndarray, **__: Any) -> Tagged:
        assert images is training
        return Tagged(f"{weights} from {state}")

    monkeypatch.setattr(prepare, "prepare", lambda *_, **__: prepared)
    monkeypatch.setattr(prepare, "copied", lambda *_, **__: None)
    monkeypatch.setattr(prepare, "equalized", lambda *_: Tagged("equalized"))
    monkeypatch.setattr(correct, "correct", corrected)
    monkeypatch.setattr(correct, "most_images", lambda _: 1000)
    monkeypatch.setattr(clipping, "cheapest", cheapest)
    monkeypatch.setattr(distill, "distill", distilled)
    monkeypatch.setattr(search, "judged", judged)
    network: Any = SimpleNamespace(core=nothing, scale=1.0, offset=0.0)
    held: Any = SimpleNamespace(images=apart)
    found = search.search(network, training, held, Demand(effort, (NONE,)), lambda *_: None)
    assert found is not None
    assert loaded == tried
    assert [one.what for one in found.attempts if one.kept and one.what != "calibration alone"] == [
        one.what for one in found.attempts if one.what in helps
    ]
    assert found.state == next(
        state for state, one in reversed(list(zip(loaded, found.attempts, strict=True))) if one.kept
    )


@pytest.mark.parametrize(
    ("images", "memory_holds", "used"),
    [(133, 37, 34), (133, 1000, 133), (60, 50, 30), (40, 37, None), (20, 1000, None)],
    ids=["every fourth", "all", "every second", "every second, as before", "all, as before"],
)
def test_a_step_says_how_many_images_it_uses_and_is_left_out_where_they_are_no_more(
    monkeypatch: pytest.MonkeyPatch, images: int, memory_holds: int, used: int | None
) -> None:
    nothing: Any = None
    training, tried = np.zeros((images, 1, 1, 3), np.uint8), list[tuple[str, int]]()
    walk = search._Walk(SimpleNamespace(start="", simulator=""), nothing, training, nothing, lambda *_: None)  # type: ignore[arg-type]
    walk.method = correct.METHODS[-1]
    monkeypatch.setattr(search._Walk, "sqnr_db", 30.0)
    monkeypatch.setattr(correct, "most_images", lambda _: memory_holds)
    monkeypatch.setattr(correct, "correct", lambda *given: len(given[2][:: math.ceil(len(given[2]) / given[5])]))
    monkeypatch.setattr(walk, "attempt", lambda what, state: tried.append((what, state)))
    walk.more_images()
    assert tried == ([] if used is None else [(f"{correct.METHODS[-1].name}, from {used} images", used)])


@pytest.mark.usefixtures("crowded")
def test_best_is_fast_and_then_distillation_and_the_same_twice(
    coarse: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STEPS", (6, 6))
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[-1:])
    demand = Demand(effort="best", keep_float=(NONE,))
    told: list[str] = []
    first, again = (searched(coarse, few, tmp_path / name, demand, told.append) for name in ("first", "again"))
    assert not [line for line in told if "busy" in line]  # nothing was timed
    assert [attempt.what for attempt in simulated(first)] == [
        "calibration alone",
        correct.METHODS[0].name,
        search.CHEAPEST,
        "equalization",
        "distillation, 6 steps",
    ]
    assert simulated(first) == simulated(again)
    assert first.path.read_bytes() == again.path.read_bytes()


@pytest.mark.usefixtures("undemanding", "crowded")
def test_islands_are_worth_their_latency_and_stay_in_the_delegate(
    coarse: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affordable, "FEW", 2)
    told: list[str] = []
    file = searched(coarse, few, tmp_path, Demand(), told.append)
    assert [
        line for line in told if line.startswith("this machine is busy (its load was 9.0 on 2 processors): latency d")
    ]
    attempts = simulated(file)
    place = next(i for i, attempt in enumerate(attempts) if attempt.what.startswith("islands of float"))
    island, before = attempts[place], [attempt for attempt in attempts[:place] if attempt.kept][-1]
    assert island.kept
    assert island.sqnr_db > before.sqnr_db + search.WORTHWHILE_DB
    cost = re.match(r"islands of float, (\d\.\d\d)x the latency: .+", island.what)
    assert cost is not None
    assert float(cost[1]) <= 3.0
    assert file.manifest.quantization is not None
    assert any("CONV" in kept for kept in file.manifest.quantization.kept_float)
    with ModelProcess(file.path) as process:
        assert process.info.ops is not None
        assert process.info.delegated_ops == process.info.ops, "an island left the delegate"


@pytest.mark.usefixtures("island_seeker", "untimed")
def test_islands_that_runtimes_would_answer_apart_are_left_out(
    coarse: Network, few: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With floats a thousandth apart every island moves levels; with none apart, none is in the way."""
    monkeypatch.setattr(affordable, "FEW", 1)
    training, on = split(coarse, few)
    tried = []
    monkeypatch.setattr(islands, "PARTED", 1e-6)
    for error in (1e-3, 0.0):
        monkeypatch.setattr(islands, "FLOAT_ERROR", error)
        found = search.search(coarse, training, on, Demand(), lambda *_: None)
        assert found is not None
        tried.append(any(attempt.what.startswith("islands") for attempt in found.attempts))
    assert tried == [False, True]


@pytest.mark.usefixtures("island_seeker", "untimed")
def test_where_all_islands_together_harm_fewer_are_tried(
    coarse: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affordable, "FEW", 3)
    monkeypatch.setattr(islands, "PARTED", 1.0)
    judge = search.judged

    def harmed(what: str, *others: Any) -> Attempt:
        answer = judge(what, *others)
        return dataclasses.replace(answer, sqnr_db=0.0) if "islands" in what else answer

    monkeypatch.setattr(search, "judged", harmed)
    tried = [attempt for attempt in simulated(searched(coarse, few, tmp_path, Demand())) if "islands" in attempt.what]
    layers = [attempt.what.split(": ")[1].split(", ") for attempt in tried]
    assert len(layers) > 1
    assert not any(attempt.kept for attempt in tried)
    assert set(layers[1]) < set(layers[0]), layers
    assert all(map(all, layers)), "an island without a name"


@pytest.mark.usefixtures("undemanding", "untimed")
def test_islands_that_part_more_answers_than_they_win_are_not_worth_it(
    coarse: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With floats a hundredth apart; nothing else is in the way."""
    monkeypatch.setattr(affordable, "FEW", 1)
    monkeypatch.setattr(islands, "FLOAT_ERROR", 1e-2)
    tried = [attempt for attempt in simulated(searched(coarse, few, tmp_path, Demand())) if "islands" in attempt.what]
    assert [attempt.kept for attempt in tried] == [False]
    assert "not worth what it costs" in tried[0].why


@pytest.mark.parametrize(
    ("ratio", "gain_db", "keep_float", "filters"),
    [(1.02, 9, "auto", 16), (1.2, 9, "auto", WIDTH), (1.02, -9, "auto", WIDTH), (1.2, 9, NONE, 16)],
)
def test_layers_get_wider_where_that_gains_and_costs_little(
    chain: Network,
    few: Calibration,
    monkeypatch: pytest.MonkeyPatch,
    ratio: float,
    gain_db: float,
    keep_float: str,
    filters: int,
) -> None:
    """Stand-ins say what a wider file costs and what copies gain; without float nothing is timed."""
    training, on = split(chain, few)
    files = list[bytes]()

    def timed(flatbuffers: list[bytes], *_: Any) -> list[float]:
        files.extend(flatbuffers)
        return [1.0, ratio]

    let_copies_gain(gain_db, monkeypatch)
    monkeypatch.setattr(search, "fastest_ms", timed)
    monkeypatch.setattr(search, "ENOUGH_DB", -90.0)  # no islands
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[:1])
    found = search.search(chain, training, on, Demand(keep_float=(keep_float,)), lambda *_: None)
    assert found is not None
    (tried,) = [attempt for attempt in found.attempts if "copies" in attempt.what]
    assert tried.kept == (gain_db > 0)
    assert ("1.02x the latency" in tried.what) == (ratio == 1.02)
    assert found.prepared.simulator.core.get_layer("first").filters == filters
    assert found.state.weights["first"][0].shape[-1] == filters
    sizes = [len(file) for file in files]
    assert sizes == sorted(set(sizes))
    assert len(sizes) == (0 if keep_float == NONE else 2)


@pytest.mark.usefixtures("island_seeker")
def test_islands_are_looked_for_where_it_costs_most_that_copies_left(
    chain: Network, few: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, on = split(chain, few)
    seen = list[Mapping[int, float]]()

    def look(_: Any, noise: Mapping[int, float], __: int) -> list[islands.Island]:
        seen.append(noise)
        return []

    let_copies_gain(9, monkeypatch)
    monkeypatch.setattr(search, "fastest_ms", lambda *_: [1.0, 1.0])
    monkeypatch.setattr(islands, "smallest", look)
    found = search.search(chain, training, on, Demand(), lambda *_: None)
    assert found is not None
    (copies,) = [attempt for attempt in found.attempts if "copies" in attempt.what]
    assert copies.kept
    every = np.concatenate([training, on.images])
    (noise,) = seen
    assert noise == pytest.approx(noise_alone(found.prepared.simulator, found.base, every))


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures that are nearly black: what a lens cap shows, and no camera should be calibrated by."""
    folder = tmp_path_factory.mktemp("dark")
    rng = np.random.default_rng(3)
    for i in range(30):
        Image.fromarray(rng.integers(0, 4, (64, 64, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_missed_gate_is_exit_3_and_says_what_would_reach_it(
    edgenet: Edgenet, dark: Path, pictures: Path, tmp_path: Path
) -> None:
    validation = ("--validation", pictures, "--to", "tflite", "-o", tmp_path, "--effort", "plain")
    missed = edgenet("quantize", "symbols", "--calibration", dark, *validation, "--json")
    assert missed.code == 3
    assert missed.document[0]["top1_drop_points"] > 10
    assert re.search(r"top-1 drops by \d+\.\d points, more than 0\.5; try --effort fast, or edgenet co", missed.err)
    assert "warning:" in missed.err, "nobody said that the calibration pictures are all alike"
    assert (tmp_path / "symbols_int8.tflite").exists(), "the file is made all the same: the gate is what was missed"


def test_advice_is_what_was_simulated(coarse: Network, few: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names layers as --keep-float takes them, with the loss and the latency of exactly these in float."""
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[:1])
    images = np.concatenate(list(batches(few.files, Preprocessing(coarse.height, coarse.width), 16)))
    answers = np.concatenate(list(coarse.scores([images])))
    apart = held_out(images)
    right = answers.argmax(axis=1)  # what it says
    on = Images(images[apart], answers[apart], lambda: [images], right, right)
    found = search.search(coarse, images[~apart], on, Demand(keep_float=(NONE,)), lambda *_: None)
    assert found is not None

    said = advise(found, images, images[~apart], on, Demand(max_drop=100.0), lambda *_: None)
    parts = re.fullmatch(
        r"((?:--keep-float \S+ )+)would reach it \((-?[\d.]+) points in .+, ([\d.]+)x the latency\)", said
    )
    assert parts is not None, said
    names = parts[1].split()[1::2]
    kept = islands.of_layers(found.prepared.simulator, names)
    assert kept
    base = dataclasses.replace(found.base, kept_float=kept)
    found.prepared.simulator.load(search.corrected(found, base, images[~apart]))
    again = judged("again", "simulator", on, found.prepared.simulator.scores)
    assert float(parts[2]) == pytest.approx(drop_points(on.float_top1, again.top1), abs=0.06)

    never = advise(found, images, images[~apart], on, Demand(max_drop=-100.0), lambda *_: None)
    assert never == f"try --effort best, or {FLOAT16}; no 10 tensors in float reach it"
    assert advise(None, images, images, on, Demand(effort="best"), lambda *_: None) == f"try {FLOAT16}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("mobilenet_v1_0.25_128", "mobilenet_v1_0.25_224.h5"),
        ("mobilenet_v2_1.0_128", "mobilenet_v2_1.0_224.weights.h5"),
        ("mobilenet_v3_small_1.0_128", "mobilenet_v3_small_1.0_224.weights.h5"),
        ("mobilenet_v3_large_0.75_64", ""),  # there are none of it among the data: what random ones answer says little
    ],
)
def test_int16x8_is_made_of_every_family(
    edgenet: Edgenet, data: Path, tmp_path: Path, network: str, weights: str
) -> None:
    calibration = data / "imagenet" / "calibration"
    trained = data / "models" / weights if weights else "none"
    photographs = ("--calibration", calibration, "--limit", 16)
    options = ("--weights", trained, "--precision", "int16x8", "--to", "tflite", "--json")
    made = edgenet("quantize", network, *options, *photographs, "-o", tmp_path)
    assert made.code == 0, made.err
    (file,) = made.document
    assert file["manifest"]["precision"] == "int16x8"
    validation = ("--images", data / "imagenet" / "validation", "--limit", 12, "--json")
    (row,) = edgenet("verify", file["path"], *validation).document
    assert not weights or row["sqnr_db"] > 12  # 8-bit weights are what it costs
