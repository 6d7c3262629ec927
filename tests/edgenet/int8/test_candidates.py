"""What corrections may see, what a corrected file is called, and when it is not what was simulated."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from edgenet import quantization
from edgenet.artifact import Attempt
from edgenet.dataset import batches, labelled
from edgenet.image import Preprocessing
from edgenet.int8.candidates import FOLDED, PROVEN_DB, Corrected, Work, _steps, held_out, hold_against_simulator
from edgenet.int8.trial import Images, judged
from edgenet.order import Calibration, Demand
from edgenet.quantization import HELD_BYTES
from edgenet.symbols.generate import write_folder
from edgenet.symbols.glyphs import LABELS


def tried(
    what: str, sqnr_db: float, kept: bool = True, subject: Literal["simulator", "tflite", "onnx"] = "simulator"
) -> Attempt:
    return Attempt(what, subject, sqnr_db, 0.9, None, None, None, kept=kept, why="")


def test_every_third_image_is_kept_apart_and_no_correction_sees_it() -> None:
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    apart = held_out(images)
    assert images[apart].ravel().tolist() == [0, 3, 6, 9, 12, 15, 18]
    nobody: Any = None
    seen = Work(nobody, "int8", images, lambda *_: None).training
    assert sorted([*seen.ravel(), *images[apart].ravel()]) == list(range(20))


def test_labelled_images_are_judged_by_their_labels_and_the_others_by_the_float_network() -> None:
    images, labelled = np.full((2, 1, 1, 3), 1, np.uint8), np.full((4, 1, 1, 3), 2, np.uint8)
    answers = np.array([[0.8, 0.2], [0.3, 0.7]], np.float32)
    right = np.array([[0.9, 0.1]] * 4, np.float32)
    read: list[weakref.ref[np.ndarray]] = []

    def batches() -> Iterator[np.ndarray]:
        for start in range(len(labelled)):
            batch = labelled[start : start + 1].copy()
            read.append(weakref.ref(batch))
            yield batch
            assert sum(one() is not None for one in read) <= 2, "memory may not hold them all"

    on = Images(images, answers, batches, np.array([0, 0, 0, 1]), right[:, ::-1].argmax(axis=1))

    def scores(pixels: np.ndarray) -> np.ndarray:
        return right[: len(pixels)] if pixels[0, 0, 0, 0] == 2 else answers[[0, 0]]

    one = judged("it", "tflite", on, scores)
    assert (one.top1_agreement, one.top1, on.float_top1) == (0.5, 0.75, 0.25)
    bare = dataclasses.replace(on, targets=np.zeros(0, np.int64), named=np.zeros(0, np.int64))
    assert (judged("it", "tflite", bare, scores).top1, bare.float_top1) == (None, None)
    assert judged("it", "tflite", bare, lambda _: answers).sqnr_db == 200.0, "JSON knows no infinity"


@pytest.mark.parametrize(
    ("attempts", "name"),
    [
        ([("calibration alone", True)], FOLDED),
        ([("calibration alone", True), ("bias correction", False)], FOLDED),
        (
            [
                ("calibration alone", True),
                ("bias correction", True),
                ("ranges that cost least, tensor by tensor", True),
                ("4 copies of channels in idle ones, 1.02x the latency", True),
                ("GPTQ rounding, bias correction", True),
                ("GPTQ rounding, compensation, bias correction", False),
            ],
            "GPTQ rounding, bias correction + ranges that cost least + 4 copies of channels in idle ones",
        ),
    ],
)
def test_a_corrected_file_is_called_by_what_was_kept(attempts: list[tuple[str, bool]], name: str) -> None:
    """Of several corrections by the last: each begins anew."""
    assert _steps([tried(what, 20.0, kept) for what, kept in attempts]) == name


@pytest.mark.parametrize(("off", "said"), [(0.9, True), (1.1, True), (-1.1, True), (-0.9, True), (0.5, False)])
def test_a_file_that_is_not_what_was_simulated_is_told(off: float, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held against the last step that was kept."""
    searched = [tried("a", 10.0), tried("b", 20.0), tried("c", 50.0, kept=False)]
    nothing: Any = None
    corrected = Corrected(nothing, "b", nothing, nothing)
    monkeypatch.setattr(Corrected, "attempts", property(lambda _: tuple(searched)))
    db = 20.0 + off * (2 * PROVEN_DB if said else PROVEN_DB)
    files = [tried("calibration alone", 5.0, subject="onnx"), tried("b", db, subject="tflite")]
    lines: list[str] = []
    hold_against_simulator(corrected, files, lines.append)
    assert len(lines) == said
    assert all(f"the tflite file reaches {db:.1f} dB where the simulator said 20.0" in line for line in lines)


@pytest.mark.parametrize(("held", "reads"), [(HELD_BYTES, 1), (0, 4)])
def test_more_labelled_images_than_memory_holds_are_read_anew(
    held: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, 1, seed=6)
    pictures, prep = labelled(tmp_path, LABELS), Preprocessing(24, 24)
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), np.uint8)
    network: Any = SimpleNamespace(classes=2, scores=lambda few: (np.eye(2)[batch[:, 0, 0, 0] % 2] for batch in few))
    counted: list[int] = []
    monkeypatch.setattr(quantization, "HELD_BYTES", held)
    monkeypatch.setattr(quantization, "batches", lambda files, *how: counted.append(len(files)) or batches(files, *how))
    told: list[str] = []
    tell, demand = (lambda what, *_: told.append(what)), Demand(validation=pictures)
    on = quantization._judges(network, images, Calibration(pictures.files, ""), demand, prep, tell, lambda _: None)
    whole = np.concatenate(list(batches(pictures.files, prep, 20)))
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(on.validation())), whole)
    np.testing.assert_array_equal(on.named, whole[:, 0, 0, 0] % 2)
    assert counted == [20] * reads
    assert told[-1] == "measure top-1 on the validation images"
