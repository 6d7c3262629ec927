"""Of several quantized files the better one is kept, and the manifest says what was tried."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.int8.correct import METHODS
from edgenet.artifact import Attempt
from edgenet.demo import CALIBRATION_PER_CLASS
from edgenet.int8 import trial
from edgenet.int8.search import CHEAPEST
from edgenet.symbols.generate import write_folder
from edgenet.symbols.glyphs import LABELS
from tests.edgenet.conftest import Edgenet

PLAIN = "calibration alone"


def attempts_of(made: Path, name: str) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = json.loads((made / f"{name}.json").read_text())["quantization"]["attempts"]
    return attempts


def test_the_manifest_says_what_was_tried(made: Path) -> None:
    for name in ("symbols_int8.tflite", "symbols_int8.onnx"):
        attempts = attempts_of(made, name)
        simulated = {attempt["what"]: attempt["kept"] for attempt in attempts if attempt["subject"] == "simulator"}
        nearest, gptq, compensated = (method.name for method in METHODS)
        order = ["calibration alone", nearest, CHEAPEST, gptq]
        order += [compensated] if simulated[gptq] else []
        assert list(simulated)[: len(order)] == order
        files = [attempt for attempt in attempts if attempt["subject"] != "simulator"]
        assert [attempt["subject"] for attempt in files] == [name.rsplit(".", 1)[1]] * 2
        assert sum(attempt["kept"] for attempt in files) == 1
        assert max(attempt["sqnr_db"] for attempt in files) > 25
        assert all(attempt["latency_ms"] > 0 and attempt["file_bytes"] > 100_000 for attempt in files)


def test_the_simulator_says_what_the_file_will_answer(made: Path) -> None:
    attempts = attempts_of(made, "symbols_int8.tflite")
    simulated = [attempt for attempt in attempts if attempt["subject"] == "simulator" and attempt["kept"]][-1]
    written = next(attempt for attempt in attempts if attempt["subject"] == "tflite" and attempt["what"] != PLAIN)
    assert written["sqnr_db"] == pytest.approx(simulated["sqnr_db"], abs=0.2)


def test_a_slow_file_is_told_of_while_it_is_tried_and_not_timed_for_minutes(made: Path) -> None:
    """An int16x8 file of a large network takes seconds an image, and two files are timed."""
    assert trial.QUICK.repetitions * 2 * trial.QUICK.cap_s <= 15  # of warm-up and of runs
    content = (made / "symbols_int8.tflite").read_bytes()
    images, none = np.zeros((20, 96, 96, 3), np.uint8), np.zeros(0, np.int64)
    on = trial.Images(images, np.full((20, len(LABELS)), 1 / len(LABELS)), list, none, none)
    told: list[tuple[int, int]] = []
    trial.choose((trial.Candidate("it", content, (), ""),), "tflite", on, lambda *done: told.append(done))
    assert told == [(8, 20), (16, 20), (20, 20)]


def tried(sqnr_db: float, agreement: float) -> Attempt:
    return Attempt("", "simulator", sqnr_db, agreement, None, None, None, kept=False, why="")


def test_a_loss_that_is_just_allowed_is_allowed() -> None:
    """150 of 200 and 149: 100 * (0.75 - 0.745) is more than 0.5 in floating point."""
    assert trial.drop_points(150 / 200, 149 / 200) == 0.5
    assert trial.drop_points(0.7, None) is None


def test_a_step_is_kept_only_where_it_helps() -> None:
    """The rule alone, on figures of 100 images: one standard error of 90 % is 3 points."""

    def kept(first: tuple[float, float], other: tuple[float, float]) -> bool:
        return trial.better((tried(*first), tried(*other)), 100) == 1

    noise = math.sqrt(0.9 * 0.1 / 100)
    assert kept((13.0, 0.9), (20.0, 0.9))
    assert kept((13.0, 0.9), (13.9, 0.867))  # of which the noise is 0.034, of 0.9 0.03
    assert not kept((13.0, 0.9), (13.9, 0.864))
    assert kept((13.0, 0.9), (14.1, 0.83))  # so much nearer elsewhere that two images' luck is no reason
    assert not kept((13.0, 0.9), (20.0, 0.82))
    assert kept((13.0, 0.99), (14.1, 0.95))  # all but one may be luck, too: the noise of 0.99 is one image
    assert not kept((20.0, 0.9), (19.9, 0.9 + 1.9 * noise))
    assert kept((20.0, 0.9), (19.9, 0.9 + 2.1 * noise))  # nearer where it counts, and hardly further elsewhere
    assert kept((20.0, 0.9), (19.55, 0.99))
    assert not kept((20.0, 0.9), (19.4, 0.99))
    assert kept((13.0, 1.0), (25.0, 0.99))  # one image of a hundred is no evidence


def test_plain_effort_tries_one_way_and_what_is_kept_is_what_is_written(
    made: Path, edgenet: Edgenet, tmp_path: Path
) -> None:
    options = ("--limit", CALIBRATION_PER_CLASS * len(LABELS), "--effort", "plain", "-o", tmp_path, "--json")
    plain = edgenet("quantize", "symbols", "--calibration", made / "symbols-calibration", *options)
    for file, name in zip(plain.document, ("symbols_int8.tflite", "symbols_int8.onnx"), strict=True):
        assert file["manifest"]["quantization"]["attempts"] == []
        kind = name.rsplit(".", 1)[1]
        kept = next(one["what"] for one in attempts_of(made, name) if one["kept"] and one["subject"] == kind)
        same = Path(file["path"]).read_bytes() == (made / name).read_bytes()
        assert same == (kept == PLAIN)


def test_a_layer_stays_float_where_the_user_says_so(
    edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path
) -> None:
    quantize = ("quantize", models / "rescaled.keras", "--calibration", pictures, "-o", tmp_path, "--json")
    made = edgenet(*quantize, "--keep-float", "conv2d_1")
    for file in made.document:
        assert any("conv" in kept.lower() for kept in file["manifest"]["quantization"]["kept_float"])
    refused = edgenet(*quantize, "--keep-float", "Conv9", "--to", "tflite")
    assert refused.code == 2
    assert "Conv9: no such layer; known are conv2d" in refused.err
    assert "simulate" not in refused.err  # before the search, which takes minutes


def test_a_drop_is_measured_and_judged(edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "validation", 4, seed=99)
    validation = ("--validation", tmp_path / "validation", "--validation-limit", 30)
    options = (*validation, "--to", "tflite", "--effort", "plain", "--json")
    made = edgenet("quantize", "symbols", "--calibration", pictures, "-o", tmp_path, "--max-drop", "100", *options)
    (file,) = made.document
    assert file["float_top1"] > 0.9
    assert "measure top-1 on the validation images" in made.err
    same = ("--data", tmp_path / "validation", "--limit", 30)
    measured = edgenet("evaluate", file["path"], *same, "--json").document[0]
    top1 = measured["accuracy"]["top1"] if "accuracy" in measured else measured["top1"]
    assert file["top1_drop_points"] == pytest.approx(100 * (file["float_top1"] - top1))
    overlapping = edgenet("quantize", "symbols", "--calibration", tmp_path / "validation", "-o", tmp_path, *options)
    assert overlapping.code == 1
    assert "validation" in overlapping.err
