"""What the runtimes say of a file, and the numbers that come out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import DeviceError, ModelUnreadable
from devices.runtimes.model_process import ModelProcess, as_input
from devices.runtimes.runtime import TensorInfo, dequantise, example_input
from tests.devices.tiny_models import LABELS, SIZE, expected, pictures, tiny_onnx, tiny_tflite, with_labels, write


def test_float_tflite_answers_what_its_arithmetic_says(tmp_path: Path) -> None:
    images = pictures(7)
    path = write(tmp_path, "m.tflite", tiny_tflite())
    with ModelProcess(path) as process:
        info = process.info
        assert np.abs(process.run(images) - expected(images)).max() < 1e-6
    assert info.inputs == (TensorInfo("image", (1, SIZE, SIZE, 3), "uint8", 0.0, 0),)
    assert info.outputs[0].shape == (1, 3)
    assert info.runtime.startswith(("LiteRT 2", "tflite-runtime"))
    assert (info.delegate, info.delegate_note, info.ops) == ("XNNPACK", "", 3)
    assert info.delegated_ops == 1  # the mean: XNNPACK has neither a uint8 cast nor a softmax with a beta
    assert info.labels is None
    assert info.file_bytes == path.stat().st_size
    assert info.load_ms > 0
    assert info.first_ms > 0


def test_int8_input_takes_raw_bytes_and_uint8_output_is_dequantised(tmp_path: Path) -> None:
    images = pictures(5, seed=1)
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite(int8=True))) as process:
        scores = process.run(images)
        same = process.run((images.astype(np.int16) - 128).astype(np.int8))
        assert process.info.inputs[0].dtype == "int8"
        assert (process.info.ops, process.info.delegated_ops) == (4, 3)
        assert process.info.outputs[0].scale == pytest.approx(1 / 256)
    assert scores.dtype == np.float32
    assert np.abs(scores - expected(images)).max() <= 0.5 / 256 + 1e-6
    assert np.array_equal(scores, same)


def test_onnx_answers_the_same(tmp_path: Path) -> None:
    images = pictures(3)
    for batch in (1, "n"):
        with ModelProcess(write(tmp_path, "m.onnx", tiny_onnx(batch)), threads=2) as process:
            assert np.abs(process.run(images) - expected(images)).max() < 1e-6
            assert process.info.inputs[0].shape == (1, SIZE, SIZE, 3)
            assert process.info.delegate == "CPUExecutionProvider"
            assert process.info.labels == LABELS


def test_an_open_size_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "m.onnx", tiny_onnx("n", "side"))
    with (
        pytest.raises(ModelUnreadable, match=r"m\.onnx: its input 'image' is \[1, \?, \?, 3\]: export it with"),
        ModelProcess(path),
    ):
        pass


@pytest.mark.parametrize("int8", [False, True])
def test_a_file_that_the_delegate_refuses_runs_without_and_says_so(tmp_path: Path, int8: bool) -> None:
    images = pictures(4)
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite(int8, "refused"))) as process:
        assert process.info.delegate == "none"
        assert process.info.delegated_ops == 0
        assert "runs without and slower: failed to create XNNPACK" in process.info.delegate_note
        assert np.abs(process.run(images) - expected(images)).max() <= 0.5 / 256 + 1e-6


def test_a_file_of_which_the_delegate_takes_nothing_says_none(tmp_path: Path) -> None:
    images = pictures(4)
    with ModelProcess(write(tmp_path, "m.tflite", tiny_tflite(bare=True))) as process:
        assert (process.info.delegate, process.info.delegate_note) == ("none", "")
        assert (process.info.ops, process.info.delegated_ops) == (3, 0)
        assert np.abs(process.run(images) - images.mean(axis=(1, 2))).max() <= 1


def test_labels_of_the_appended_zip(tmp_path: Path) -> None:
    data = with_labels(tiny_tflite(), b"red\ngreen\nblue\n")
    with ModelProcess(write(tmp_path, "m.tflite", data)) as process:
        assert process.info.labels == LABELS
        assert process.info.labels_note == ""
        assert np.abs(process.run(pictures(2)) - expected(pictures(2))).max() < 1e-6


def test_a_zip_bomb_of_labels_is_ignored_and_said(tmp_path: Path) -> None:
    data = with_labels(tiny_tflite(), bytes(200 << 20))
    assert len(data) < 1 << 20
    with ModelProcess(write(tmp_path, "m.tflite", data)) as process:
        assert process.info.labels is None
        assert "more than 4 MB" in process.info.labels_note


@pytest.mark.parametrize("labels", ["[1, 2]", "{}", "[[[", "red,green"])
def test_onnx_labels_that_are_none(tmp_path: Path, labels: str) -> None:
    with ModelProcess(write(tmp_path, "m.onnx", tiny_onnx(labels=labels))) as process:
        assert process.info.labels is None
        assert "ignored" in process.info.labels_note


def test_as_input_refuses_what_would_change_the_meaning() -> None:
    path = Path("m.tflite")
    images = np.zeros((2, 4, 4, 3), np.uint8)
    tensor = TensorInfo("x", (1, 4, 4, 3), "int8", 1 / 127.5, -1)
    with pytest.raises(DeviceError, match=r"m\.tflite takes int8, not uint8: prepare"):
        as_input(images, tensor, path)
    with pytest.raises(DeviceError, match="takes float32, not uint8"):
        as_input(images, TensorInfo("x", (1, 4, 4, 3), "float32", 0, 0), path)
    with pytest.raises(DeviceError, match=r"takes inputs of \[1, 4, 4, 3\] one by one, not \[2, 4, 5, 3\]"):
        as_input(np.zeros((2, 4, 5, 3), np.int8), tensor, path)
    with pytest.raises(DeviceError, match="one by one"):
        as_input(np.zeros((8, 4, 4, 3), np.int8), TensorInfo("x", (8, 4, 4, 3), "int8", 0, 0), path)
    with pytest.raises(DeviceError, match="one by one"):
        as_input(np.zeros((4, 4, 3), np.int8), tensor, path)


@given(st.integers(0, 255), st.floats(1e-6, 10), st.integers(-128, 255))
def test_dequantise_is_the_affine_map(value: int, scale: float, zero: int) -> None:
    raw = np.full((1, 1, 1, 2), value, np.uint8)
    got = dequantise(raw, TensorInfo("y", raw.shape, "uint8", scale, zero))
    assert got.shape == (1, 2)
    assert got.dtype == np.float32
    assert got[0, 0] == pytest.approx((value - zero) * scale, rel=1e-5)


def test_dequantise_leaves_floats_and_plain_integers_alone() -> None:
    for dtype in (np.float32, np.float16, np.int64):
        raw = np.arange(3, dtype=dtype)
        assert dequantise(raw, TensorInfo("y", (3,), "x", 0.0, 7)).tolist() == [[0, 1, 2]]
    floats = np.array([0.5], np.float32)
    assert dequantise(floats, TensorInfo("y", (1,), "float32", 0.1, 3)).tolist() == [[0.5]]
    assert floats[0] == 0.5


def test_example_input_fills_the_range() -> None:
    noise = example_input(TensorInfo("x", (1, 32, 32, 3), "uint8", 0, 0))
    assert len(np.unique(noise)) == 256
    floats = example_input(TensorInfo("x", (1, 32, 32, 3), "float32", 0, 0))
    assert floats.dtype == np.float32
    assert 0 <= floats.min() < 0.01 < 0.99 < floats.max() < 1
