"""Of several quantized files the better one is kept, and the manifest says what was tried."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from edgenet import trial
from edgenet.artifact import Attempt

from .conftest import Edgenet


def test_the_manifest_says_what_was_tried(made: Path) -> None:
    for name in ("symbols_int8.tflite", "symbols_int8.onnx"):
        attempts = json.loads((made / f"{name}.json").read_text())["quantization"]["attempts"]
        assert [attempt["correction"] for attempt in attempts] == ["none", "bias correction"]
        assert sum(attempt["kept"] for attempt in attempts) == 1
        best = max(attempts, key=lambda attempt: attempt["sqnr_db"])
        assert best["sqnr_db"] > 20
        assert all(0.9 <= attempt["top1_agreement"] <= 1 for attempt in attempts)


def test_plain_effort_tries_one_way(edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    options = ("--effort", "plain", "--to", "tflite", "-o", tmp_path, "--json")
    made = edgenet("quantize", "symbols", "--calibration", pictures, *options)
    assert made.document[0]["manifest"]["quantization"]["attempts"] == []


def test_a_correction_is_kept_only_where_it_helps() -> None:
    """The rule alone, on figures: better SQNR, and no worse agreement than one standard error."""
    held_out = trial.HeldOut(np.zeros((100, 1, 1, 3), np.uint8), np.zeros((100, 2), np.float32))

    def kept(plain: tuple[float, float], other: tuple[float, float]) -> str:
        attempts = (Attempt("none", *plain, kept=False), Attempt("bias correction", *other, kept=False))
        return attempts[trial.better(attempts, len(held_out.images))].correction

    noise = math.sqrt(0.9 * 0.1 / 100)
    assert kept((13.0, 0.9), (20.0, 0.9)) == "bias correction"
    assert kept((13.0, 0.9), (20.0, 0.9 - 0.9 * noise)) == "bias correction"
    assert kept((13.0, 0.9), (20.0, 0.9 - 1.1 * noise)) == "none"
    assert kept((20.0, 0.9), (19.9, 0.99)) == "none"
    assert kept((13.0, 1.0), (25.0, 0.99)) == "bias correction"  # one image of a hundred is no evidence


def test_what_is_kept_is_what_is_written(made: Path, edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    for name in ("symbols_int8.tflite", "symbols_int8.onnx"):
        attempts = json.loads((made / f"{name}.json").read_text())["quantization"]["attempts"]
        kept = next(attempt["correction"] for attempt in attempts if attempt["kept"])
        kind = name.rsplit(".", 1)[1]
        options = ("--effort", "plain", "--to", kind, "-o", tmp_path, "--json")
        plain = edgenet("quantize", "symbols", "--calibration", pictures, *options).document[0]["path"]
        same = Path(plain).read_bytes() == (made / name).read_bytes()
        assert same == (kept == "none")
