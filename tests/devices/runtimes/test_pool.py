"""All cores: order, look-ahead, overlap and errors of a pool of model processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.errors import ModelCrashed, ModelUnreadable
from devices.runtimes.pool import ModelPool
from tests.devices.tiny_models import SIZE, expected, pictures, tiny_onnx, tiny_tflite, write

from .test_model_process import gone


@pytest.mark.parametrize(("name", "data"), [("m.tflite", tiny_tflite), ("m.onnx", tiny_onnx)])
def test_batches_come_back_in_order(tmp_path: Path, name: str, data: object) -> None:
    images = pictures(200)
    batches = [images[start : start + size] for start, size in ((0, 1), (1, 99), (100, 3), (103, 0), (103, 97))]
    with ModelPool(write(tmp_path, name, data()), workers=3) as pool:  # type: ignore[operator]
        scores = list(pool.map(batches))
        assert [len(part) for part in scores] == [1, 99, 3, 0, 97]
        assert np.abs(np.concatenate(scores) - expected(images)).max() < 1e-6
        assert pool.info.inputs[0].dtype == "uint8"
        assert list(pool.map([])) == []
        assert next(pool.map(iter(batches))).shape == (1, 3)  # a map that is given up half-way


def test_look_ahead_is_bounded_and_reading_overlaps_inference(tmp_path: Path) -> None:
    drawn = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal drawn
        while True:
            drawn += 1
            yield pictures(50)

    with ModelPool(write(tmp_path, "m.tflite", tiny_tflite()), workers=2) as pool:
        scores = pool.map(endless())
        for taken in range(1, 30):
            next(scores)
            assert drawn <= taken + 2 * 2
        scores.close()  # type: ignore[attr-defined]


def test_a_worker_that_dies_is_an_error_and_the_rest_ends(tmp_path: Path) -> None:
    with ModelPool(write(tmp_path, "m.tflite", tiny_tflite()), workers=2) as pool:
        scores = pool.map(pictures(20) for _ in range(100))
        next(scores)
        for worker in pool._workers:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ModelCrashed, match="SIGKILL"):
            list(scores)


def test_leaving_a_pool_in_the_middle_does_not_wait_for_the_work(tmp_path: Path) -> None:
    with ModelPool(write(tmp_path, "m.tflite", tiny_tflite()), workers=2) as pool:
        many = np.zeros((300_000, SIZE, SIZE, 3), np.uint8)  # many seconds of work
        scores = pool.map([many[:1], many, many, many])
        next(scores)
        start = time.monotonic()
    assert time.monotonic() - start < 3
    assert all(gone(worker.pid) for worker in pool._workers)


def test_a_corrupt_file_is_refused_at_the_door(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelUnreadable, match=r"m\.tflite"),
        ModelPool(write(tmp_path, "m.tflite", tiny_tflite()[:300]), workers=2),
    ):
        pass
    with pytest.raises(ModelUnreadable, match="does not exist"):
        ModelPool(tmp_path / "no.tflite", workers=2)
