"""The search for the best int8 form: its order, its determinism, what it costs in float, and the gate behind it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.int8 import clipping, correct
from devices.model_process import ModelProcess
from edgenet import search
from edgenet.artifact import Artifact, Attempt
from edgenet.nets.network import Network, open_network
from edgenet.order import NONE, Calibration, Demand, Order, calibration_images
from edgenet.quantization import quantize

from .conftest import Edgenet


@pytest.fixture(scope="module")
def symbols() -> Network:
    return open_network("symbols")


@pytest.fixture(scope="module")
def few(pictures: Path) -> Calibration:
    return calibration_images(pictures, 30)


def searched(network: Network, calibration: Calibration, out: Path, demand: Demand) -> Artifact:
    (file,) = quantize(network, "int8", calibration, Order(("tflite",), out), lambda *_: None, demand=demand).files
    return file


def simulated(file: Artifact) -> list[Attempt]:
    assert file.manifest.quantization is not None
    return [attempt for attempt in file.manifest.quantization.attempts if attempt.subject == "simulator"]


@pytest.mark.slow
def test_best_is_fast_and_then_distillation_and_the_same_twice(
    symbols: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STEPS", (6, 6))
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[-1:])
    demand = Demand(effort="best", keep_float=(NONE,))
    first, again = (searched(symbols, few, tmp_path / name, demand) for name in ("first", "again"))
    assert [attempt.what for attempt in simulated(first)] == [
        "calibration alone",
        correct.METHODS[0].name,
        *(way.name for way in clipping.WAYS),
        "equalization",
        "ranges tuned by gradient, 2 steps",
        "distillation, 6 steps",
    ]
    assert simulated(first) == simulated(again)
    assert first.path.read_bytes() == again.path.read_bytes()


@pytest.mark.slow
def test_islands_are_worth_their_latency_and_stay_in_the_delegate(
    symbols: Network, few: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "ENOUGH_DB", 90.0)
    monkeypatch.setattr(search, "CHEAP", 3.0)
    monkeypatch.setattr(search, "WORTHWHILE_DB", 0.01)
    monkeypatch.setattr(correct, "METHODS", correct.METHODS[:1])
    file = searched(symbols, few, tmp_path, Demand())
    island = next(attempt for attempt in simulated(file) if attempt.what.startswith("islands of float"))
    before = max(attempt.sqnr_db for attempt in simulated(file) if attempt != island)
    assert island.kept
    assert island.sqnr_db > before + search.WORTHWHILE_DB
    cost = re.match(r"islands of float, (\d\.\d\d)x the latency: .+", island.what)
    assert cost is not None
    assert float(cost[1]) <= 3.0
    assert file.manifest.quantization is not None
    assert any("CONV" in kept for kept in file.manifest.quantization.kept_float)
    with ModelProcess(file.path) as process:
        assert process.info.ops is not None
        assert process.info.delegated_ops == process.info.ops, "an island left the delegate"


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


@pytest.mark.slow
def test_what_would_reach_a_missed_gate_does(edgenet: Edgenet, data: Path, tmp_path: Path) -> None:
    """The sentence names layers; given to --keep-float, they do what it says."""
    photographs = data / "imagenet"
    weights = ("--weights", data / "models" / "mobilenet_v3_small_1.0_224.weights.h5")
    options = (*weights, "--labels", photographs / "classes.csv", "--calibration", photographs / "calibration")
    judged = ("--validation", photographs / "validation", "--to", "tflite", "--limit", 24, "--json")
    call = ("quantize", "mobilenet_v3_small_1.0_64", *options, *judged, "-o", tmp_path, "--max-drop", 0)
    missed = edgenet(*call, "--keep-float", "none")
    if missed.code == 0:
        pytest.fail("it loses nothing: no gate is missed, and this test says nothing")
    assert missed.code == 3, missed.err
    said = re.search(r"((--keep-float \S+ ?)+)would reach it \((-?\d+\.\d) points in the simulator", missed.err)
    assert said is not None, missed.err.splitlines()[-1]
    again = edgenet(*call, *said[1].split())
    assert again.document[0]["top1_drop_points"] <= max(float(said[3]), 0) + 1, again.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("mobilenet_v1_0.25_128", "mobilenet_v1_0.25_224.h5"),
        ("mobilenet_v2_1.0_128", "mobilenet_v2_1.0_224.weights.h5"),
        ("mobilenet_v3_small_1.0_128", "mobilenet_v3_small_1.0_224.weights.h5"),
    ],
)
def test_int16x8_is_made_of_every_family(
    edgenet: Edgenet, data: Path, tmp_path: Path, network: str, weights: str
) -> None:
    photographs = ("--calibration", data / "imagenet" / "calibration", "--limit", 16)
    options = ("--weights", data / "models" / weights, "--precision", "int16x8", "--to", "tflite", "--json")
    made = edgenet("quantize", network, *options, *photographs, "-o", tmp_path)
    assert made.code == 0, made.err
    path = made.document[0]["path"]
    (row,) = edgenet("verify", path, "--images", data / "imagenet" / "validation", "--limit", 12, "--json").document
    assert row["sqnr_db"] > 12  # 8-bit weights are what it costs
