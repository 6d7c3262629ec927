"""TFLite metadata: the model still computes the same, and the metadata says what it should.

That MediaPipe believes it is tested on whole artifacts, in tests/edgenet/test_mediapipe.py.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import flatbuffers.table
import numpy as np
import pytest

from converters.errors import ConverterError
from converters.tflite_metadata import with_metadata

pytestmark = pytest.mark.filterwarnings("ignore")  # the converter's own, about its own API
LABELS = ("red", "green", "blue")
FORMAT = {"name": "rgb", "description": "which colour", "labels": LABELS}


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    """Two files that name the strongest colour of an image: float32 and int8 inside, uint8 in, float32 out."""
    import keras
    import tensorflow as tf

    image = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    head = keras.layers.Dense(3, activation="softmax")
    network = keras.Model(image, head(keras.layers.GlobalAveragePooling2D()(x)))
    head.set_weights([np.eye(3, dtype="float32") * 4, np.zeros(3, "float32")])

    raw = keras.Input((32, 32, 3), batch_size=1, dtype="uint8")
    eats_bytes = keras.Model(raw, network(keras.ops.cast(raw, "float32")))
    plain = tf.lite.TFLiteConverter.from_keras_model(eats_bytes).convert()
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None].astype("float32")] for image in images())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return {"float32": plain, "int8": converter.convert()}


def images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return six images [32, 32, 3], each with one strong colour: red, green, blue, red, green, blue."""
    noise = np.random.default_rng(0).integers(0, 100, (6, 32, 32, 3))
    for index, image in enumerate(noise):
        image[..., index % 3] += 150
    return noise.astype(np.uint8)


def run(model: bytes) -> list[np.ndarray[Any, Any]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    answers = []
    for image in images():
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    return answers


def unpacked(model: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(model, 0)


def metadata_buffer(model: bytes) -> bytes:
    parsed = unpacked(model)
    (entry,) = [item for item in parsed.metadata if item.name == b"TFLITE_METADATA"]
    return bytes(parsed.buffers[entry.buffer].data)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_model_computes_the_same_and_keeps_everything_else(models: dict[str, bytes], precision: str) -> None:
    before = models[precision]
    after = with_metadata(before, **FORMAT, mean=0, std=1)
    for old, new in zip(run(before), run(after), strict=True):
        np.testing.assert_array_equal(old, new)
    old, new = unpacked(before), unpacked(after)
    assert new.version == old.version == 3
    assert new.description == old.description
    assert [item.name for item in new.metadata] == [*(item.name for item in old.metadata), b"TFLITE_METADATA"]
    for was, now in zip(old.metadata, new.metadata, strict=False):  # min_runtime_version and its like
        assert bytes(new.buffers[now.buffer].data) == bytes(old.buffers[was.buffer].data)
    assert len(new.signatureDefs or []) == len(old.signatureDefs or [])
    assert len(new.subgraphs) == len(old.subgraphs)
    assert after[4:8] == b"TFL3"
    # The old body lies in the new file as it is, at a multiple of 64: no weight lost its alignment.
    assert after.find(before) % 64 == 0
    assert after.find(before) > 0


def test_the_labels_are_a_zip_that_is_the_same_on_any_day(models: dict[str, bytes]) -> None:
    after = with_metadata(models["int8"], **FORMAT, mean=0, std=1)
    with zipfile.ZipFile(io.BytesIO(after)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "red\ngreen\nblue\n"
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    assert after == with_metadata(models["int8"], **FORMAT, mean=0, std=1)


def test_metadata_that_is_there_is_replaced(models: dict[str, bytes]) -> None:
    once = with_metadata(models["float32"], **FORMAT, mean=0, std=1)
    twice = with_metadata(once, name="other", description="", labels=["a", "é", "c"], mean=127.5, std=127.5)
    assert b"other" in metadata_buffer(twice)
    with zipfile.ZipFile(io.BytesIO(twice)) as archive:
        assert archive.read("labels.txt").decode() == "a\né\nc\n"
    np.testing.assert_array_equal(run(twice)[0], run(once)[0])


def test_the_metadata_says_what_the_schema_means_by_it(models: dict[str, bytes]) -> None:
    """Read back with nothing but the flatbuffers table reader and the slots of metadata_schema.fbs."""
    buffer = bytearray(metadata_buffer(with_metadata(models["float32"], **FORMAT, mean=127.5, std=64.0)))
    assert buffer[4:8] == b"M001"

    def field(table: flatbuffers.table.Table, slot: int) -> int:
        offset = table.Offset(4 + 2 * slot)
        assert offset, f"slot {slot} is missing"
        return int(table.Pos + offset)

    def table(parent: flatbuffers.table.Table, slot: int, index: int | None = None) -> flatbuffers.table.Table:
        at = field(parent, slot)
        if index is None:
            return flatbuffers.table.Table(buffer, parent.Indirect(at))
        return flatbuffers.table.Table(buffer, parent.Indirect(parent.Vector(at - parent.Pos) + 4 * index))

    def text(parent: flatbuffers.table.Table, slot: int) -> str:
        return bytes(parent.String(field(parent, slot))).decode()

    def number(parent: flatbuffers.table.Table, slot: int) -> float:
        at = parent.Vector(field(parent, slot) - parent.Pos)
        return float(struct.unpack_from("<f", buffer, at)[0])

    root = flatbuffers.table.Table(buffer, struct.unpack_from("<I", buffer)[0])
    assert (text(root, 0), text(root, 1), text(root, 7)) == ("rgb", "which colour", "1.0.0")
    subgraph = table(root, 3, 0)
    image, scores = table(subgraph, 2, 0), table(subgraph, 3, 0)
    content = table(image, 3)
    assert buffer[field(content, 0)] == 2  # ImageProperties
    assert buffer[field(table(content, 1), 0)] == 1  # RGB
    unit = table(image, 4, 0)
    assert buffer[field(unit, 0)] == 1  # NormalizationOptions
    assert (number(table(unit, 1), 0), number(table(unit, 1), 1)) == (127.5, 64.0)
    reach = table(image, 5)
    assert (number(reach, 0), number(reach, 1)) == pytest.approx(((255 - 127.5) / 64, -127.5 / 64))
    assert (text(image, 0), text(scores, 0)) == ("image", "probability")
    assert (number(table(scores, 5), 0), number(table(scores, 5), 1)) == (1, 0)
    labels = table(scores, 6, 0)
    assert text(labels, 0) == "labels.txt"
    assert buffer[field(labels, 2)] == 2  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("bad", ["two\nlines", "two\rlines", "two\u2028lines", ""])
def test_a_label_that_would_shift_the_others_is_refused(models: dict[str, bytes], bad: str) -> None:
    with pytest.raises(ConverterError, match=r"label 1 .*one label a line"):
        with_metadata(models["float32"], name="", description="", labels=["a", bad, "c"], mean=0, std=1)


def test_what_is_no_model_is_refused(models: dict[str, bytes]) -> None:
    for bad in (b"", b"PK\x03\x04" * 10, models["int8"][:200], b"\xff\xff\xff\x7fTFL3" + bytes(100)):
        with pytest.raises(ConverterError, match=r"not a \.tflite file|damaged"):
            with_metadata(bad, **FORMAT, mean=0, std=1)
    with pytest.raises(ConverterError, match="no labels"):
        with_metadata(models["int8"], name="", description="", labels=[], mean=0, std=1)
