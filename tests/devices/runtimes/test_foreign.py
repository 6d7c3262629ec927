"""Files that others made: every one loads, runs on a photograph and is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from devices.latency import measure
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule


def test_every_foreign_tflite_names_the_parrot_and_is_measured(data: Path) -> None:
    paths = sorted((data / "foreign").glob("*.tflite"))
    assert len(paths) >= 5
    for path in paths:
        with ModelProcess(path) as process:
            info = process.info
            _, height, width, _ = info.inputs[0].shape
            with Image.open(data / "photos" / "parrot.jpg") as photo:
                picture = np.asarray(photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
            scores = process.run(picture[None])
        assert scores.shape == (1, 1001)
        assert info.labels is not None
        assert len(info.labels) == 1001
        assert "macaw" in info.labels[int(scores.argmax())]
        assert 0.5 < scores.sum() < 1.1
        assert info.delegate == "XNNPACK"
        assert info.ops is not None
        assert info.delegated_ops is not None
        assert info.delegated_ops >= info.ops - 3
    schedule = Schedule(warmup_s=0.01, warmup_runs=2, duration_s=0.02, min_runs=5, repetitions=2)
    for result in measure(paths, schedule=schedule):
        assert len(result.samples_ns) >= 10
        assert 0.05 < result.median_ms < 1000
