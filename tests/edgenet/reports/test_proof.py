"""Tables in a terminal of 80 columns: nothing of a name or a number is cut off, and no two files look the same."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from edgenet.proof.accuracy import Accuracy
from edgenet.proof.agreement import Agreement, Verdict
from edgenet.proof.evaluation import Evaluation
from edgenet.proof.verification import Verification
from edgenet.reports.proof import evaluation_table, verification_table

LONG = "mobilenet_v3_small_1.0_224_from_the_lab-int8.tflite"
AGREED = Agreement(300, 1.2e-2, 4.6e-4, 0.99871, 31.4, "logits", 0.973, 0.998)
RIGHT = Accuracy(0.8433, 0.9567, (0.7983, 0.8801), (0.9274, 0.9745), 300, 4.0, 75.0, np.zeros(300, np.int64))


def words(table: RenderableType) -> str:
    """Read a table as a person does in 80 columns: each column's cells from top to bottom, joined."""
    text = io.StringIO()
    Console(file=text, width=80, highlight=False, markup=False).print(table)
    rows = [re.split("[│┃]", line)[1:-1] for line in text.getvalue().splitlines() if line[:1] in "│┃"]
    return " ".join("".join(cell.strip() for cell in column) for column in zip(*rows, strict=True))


def verified(path: Path) -> Verification:
    return Verification(path, "", "int8", AGREED, Verdict(True, "int8", ()), 0.05)


def evaluated(path: Path) -> Evaluation:
    return Evaluation(str(path), "", "int8", "LiteRT 2.1.6", "XNNPACK 120/121 ops", "", RIGHT)


def test_nothing_of_a_verification_is_cut_off() -> None:
    shown = words(verification_table([verified(Path(LONG))]))
    for cell in (LONG, "1.2e-02", "4.6e-04", "0.99871", "31.4dB", "97.3%", "99.8%", "passed"):
        assert cell in shown.replace(" ", "")


def test_nothing_of_an_evaluation_is_cut_off() -> None:
    shown = words(evaluation_table([evaluated(Path(LONG))]))
    for cell in (LONG, "84.3%", "79.8%..88.0%", "95.7%", "92.7%..97.5%", "75", "XNNPACK120/121ops"):
        assert cell in shown.replace(" ", "")


@pytest.mark.parametrize(
    "draw", [lambda p: verification_table([*map(verified, p)]), lambda p: evaluation_table([*map(evaluated, p)])]
)
def test_files_of_one_name_are_told_apart(draw: object) -> None:
    shown = words(draw([Path("a/m.tflite"), Path("b/m.tflite"), Path("b/n.tflite")]))
    assert "a/m.tflite" in shown
    assert "b/m.tflite" in shown
    assert "b/n.tflite" not in shown
