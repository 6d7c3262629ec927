"""A model file and its manifest appear together, whoever else writes the same names."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devices.errors import DeviceError
from edgenet import artifact, publish
from edgenet.errors import EdgenetError
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.order import Calibration, Order

from .symbols_files import FLOAT32, INT8

RACE = """
import multiprocessing, sys
from dataclasses import replace
from pathlib import Path
from devices.runtimes.model_file import sha256
from edgenet import artifact, publish
from edgenet.camera.classifier import default_model

out, known = Path(sys.argv[1]), artifact.load(default_model()).manifest
publish._proven = lambda partial, path, manifest: replace(manifest, sha256=sha256(partial))
fork = multiprocessing.get_context("fork")

def write(content, together):
    together.wait()
    publish.publish(content, known, out)

for _ in range(40):
    together = fork.Barrier(2)
    both = [fork.Process(target=write, args=(letter * 300_000, together)) for letter in (b"A", b"B")]
    for one in both: one.start()
    for one in both: one.join()
    made = artifact.load(out / f"{known.name}_{known.precision}.{known.format}")
    assert made is not None
"""


def test_two_at_once_leave_one_file_with_its_own_manifest(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("precision", "images"), [("float32", None), ("float16", None), ("dynamic", 0), ("int16x8", 2), ("int8", 2)]
)
def test_a_draft_says_what_was_ordered(tmp_path: Path, precision: Any, images: int | None) -> None:
    network: Any = SimpleNamespace(name="mine", height=6, width=8, scale=0.5, offset=-1.0, classes=3, source=None)
    order = Order(("tflite",), tmp_path, crop="squash", command="edgenet quantize mine")
    calibration = Calibration((tmp_path / "a.png", tmp_path / "b.png"), "c" * 64)
    labels = Labels(("a", "b", "c"), ("n00000001", "n00000002", "n00000003"))
    made = publish.draft(network, "tflite", precision, labels, order, calibration)
    assert made.input.preprocessing == Preprocessing(6, 8, "squash")
    assert made.input.preprocessing_sha256 == Preprocessing(6, 8, "squash").sha256()
    assert (made.input.scale, made.input.offset, made.input.dtype) == (0.5, -1.0, "uint8")
    assert (made.output.classes, made.output.labels, made.output.wnids) == (3, labels.names, labels.wnids)
    assert (made.name, made.precision, made.command) == ("mine", precision, "edgenet quantize mine")
    assert (made.quantization and made.quantization.calibration_images) == images
    if made.quantization:
        assert made.quantization.calibration_sha256 == ("c" * 64 if images else "")
    assert publish.fitting_labels(labels, network) is labels
    with pytest.raises(EdgenetError, match="the labels name 2 classes and mine answers 3"):
        publish.fitting_labels(Labels(("a", "b"), None), network)


@pytest.mark.parametrize("change", ["height", "classes", "bytes"])
def test_a_file_that_is_not_what_was_asked_for_does_not_appear(tmp_path: Path, change: str) -> None:
    known = artifact.load(INT8)
    assert known is not None
    manifest, content = dataclasses.replace(known.manifest, sha256=""), INT8.read_bytes()
    if change == "height":
        manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, height=95))
    elif change == "classes":
        manifest = dataclasses.replace(manifest, output=dataclasses.replace(manifest.output, classes=21))
    else:
        content = content[: len(content) // 2]
    with pytest.raises((EdgenetError, DeviceError)) as caught:
        publish.publish(content, manifest, tmp_path)
    assert ("not what was asked for" in str(caught.value)) == (change != "bytes")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    made = publish.publish(FLOAT32.read_bytes(), known.manifest, tmp_path)
    assert artifact.load(made.path) == made
    assert (made.manifest.sha256, made.manifest.file_bytes) != (known.manifest.sha256, known.manifest.file_bytes)
