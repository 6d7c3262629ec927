"""Manifests: what is written is read again, what is not one is refused in a line; and what a foreign file is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.runtimes.model_process import ModelProcess
from devices.runtimes.runtime import ModelInfo, TensorInfo
from edgenet import artifact
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing
from tests.devices.tiny_models import tiny_tflite, write

from .symbols_files import INT8

Change = Callable[[dict[str, Any]], object]


def copied(folder: Path, change: Change) -> Path:
    """A model file whose manifest was changed."""
    file = folder / INT8.name
    file.write_bytes(INT8.read_bytes())
    document = json.loads(artifact.manifest_path(INT8).read_text())
    change(document)
    artifact.manifest_path(file).write_text(json.dumps(document))
    return file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    known = artifact.load(INT8)
    assert known is not None
    file = copied(tmp_path, lambda _: None)
    artifact.manifest_path(file).write_text(artifact.to_json(known.manifest))
    again = artifact.load(file)
    assert again == artifact.Artifact(file, known.manifest)
    assert artifact.load(tmp_path / "none.tflite") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("classes", None) or d["output"].pop("classes"), "Output needs exactly classes"),
        (lambda d: d["output"].update(colour="red"), "Output needs exactly"),
        (lambda d: d.update(format="coreml"), "'coreml' is none of"),
        (lambda d: d.update(precision=8), "8 is none of"),
        (lambda d: d["output"].update(classes="20"), "'20' is no int"),
        (lambda d: d["output"].update(classes=20.5), "20.5 is no int"),
        (lambda d: d["input"].update(scale="1"), "'1' is no float"),
        (lambda d: d["output"]["labels"].append(7), "7 is no str"),
        (lambda d: d["input"].update(height=97), "was changed by hand"),
        (lambda d: d["input"].update(crop="squash"), "was changed by hand"),
        (lambda d: d.update(sha256="0" * 64), "not the file that"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused_in_a_line(tmp_path: Path, change: Change, says: str) -> None:
    with pytest.raises(EdgenetError, match=says) as caught:
        artifact.load(copied(tmp_path, change))
    assert "\n" not in str(caught.value)
    assert "convert" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_manifest_is_refused_in_a_line(tmp_path: Path, text: bytes) -> None:
    file = copied(tmp_path, lambda _: None)
    artifact.manifest_path(file).write_bytes(text)
    with pytest.raises(EdgenetError, match="convert the model again") as caught:
        artifact.load(file)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_cannot_be_read_is_no_reason_to_convert_again(tmp_path: Path) -> None:
    file = copied(tmp_path, lambda _: None)
    artifact.manifest_path(file).unlink()
    artifact.manifest_path(file).mkdir()
    with pytest.raises(EdgenetError, match=r"cannot be read \(Is a directory\); check it and its permissions$"):
        artifact.load(file)


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    with ModelProcess(write(tmp_path_factory.mktemp("tiny"), "tiny.tflite", tiny_tflite())) as process:
        return process.info


def described(info: ModelInfo, folder: Path, image: TensorInfo, answer: TensorInfo, labels: Any = None) -> Any:
    file = write(folder, "Theirs.TFLITE", b"of which nothing is read")
    told = dataclasses.replace(info, inputs=(image,), outputs=(answer,), labels=labels)
    return artifact.describe(file, told, (1 / 255, 0.0) if image.dtype == "float32" else None, "squash").manifest


def image(dtype: str = "uint8", shape: tuple[int, ...] = (1, 6, 8, 3), zero_point: int = 0) -> TensorInfo:
    return TensorInfo("image", shape, dtype, 0.0 if dtype == "float32" else 1.0, zero_point)


def scores(dtype: str = "float32", shape: tuple[int, ...] = (1, 3)) -> TensorInfo:
    return TensorInfo("scores", shape, dtype, 0.0 if dtype == "float32" else 1 / 256, 0)


def test_a_foreign_file_is_what_its_runtime_says(info: ModelInfo, tmp_path: Path) -> None:
    last = described(info, tmp_path, image(), scores("uint8"), ("a", "b", "c"))
    assert (last.name, last.format, last.precision, last.source) == ("Theirs", "tflite", "int8", None)
    assert last.input.preprocessing == Preprocessing(6, 8, "squash")
    assert (last.input.dtype, last.input.layout, last.input.scale, last.input.offset) == ("uint8", "NHWC", 1.0, 0.0)
    assert (last.output.classes, last.output.labels) == (3, ("a", "b", "c"))
    assert last.output.sum_tolerance == pytest.approx(0.02 + 3 / 512)
    first = described(info, tmp_path, image("float32", (1, 3, 6, 8)), scores(), ("0", "1", "2"))
    assert first.input.preprocessing == Preprocessing(6, 8, "squash")
    assert (first.input.layout, first.input.scale) == ("NCHW", 1 / 255)
    assert (first.precision, first.output.labels) == ("unknown", ()), "numbers are no names"
    assert described(info, tmp_path, image(shape=(1, 3, 8, 3)), scores()).input.layout == "NHWC"
    assert described(info, tmp_path, image("int8", zero_point=-128), scores()).input.dtype == "int8"


@pytest.mark.parametrize(
    ("eats", "answers", "says"),
    [
        (image(shape=(1, 6, 8, 1)), scores(), r"its input is \[1, 6, 8, 1\], not one RGB image"),
        (image(shape=(2, 6, 8, 3)), scores(), "not one RGB image"),
        (image(shape=(1, 6, 3)), scores(), "not one RGB image"),
        (image(), scores(shape=(1, 1)), r"its output is \[1, 1\], not one score a class"),
        (image(), scores(shape=(3,)), "not one score a class"),
        (image("int8", zero_point=0), scores(), "takes int8 and does not say of what range"),
        (image("int16"), scores(), "takes int16 and does not say of what range"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_refused(
    info: ModelInfo, tmp_path: Path, eats: TensorInfo, answers: TensorInfo, says: str
) -> None:
    with pytest.raises(EdgenetError, match=says) as caught:
        described(info, tmp_path, eats, answers)
    assert isinstance(caught.value, UsageError) == ("--input-range" in str(caught.value))
