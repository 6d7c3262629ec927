"""What is proven: a model file, opened, and what asks it; with or without a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from devices.machine import at_once
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.pool import ModelPool
from devices.runtimes.runtime import ModelInfo
from edgenet import artifact
from edgenet.artifact import Artifact
from edgenet.nets.normalization import affine

Scorer = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

BATCH = 8
"""Images that one process of a pool gets at a time: small, so that all cores end together."""


class Runs(Protocol):
    """A model file that runs batches: a pool of processes, or one."""

    @property
    def info(self) -> ModelInfo:
        """What the runtime says of the file."""

    def map(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Give the scores of each batch, in order."""


def open_artifact(path: Path | str, input_range: str = "", crop: Literal["center", "squash"] = "center") -> Artifact:
    """Read a model file's manifest, or describe a foreign file by what its runtime says.

    Args:
        path: the file.
        input_range: of a foreign file that takes floats: a key of INPUT_RANGES.
        crop: of a foreign file.

    Raises:
        UsageError: a foreign file takes floats, and nobody has said of what range.
        EdgenetError: the manifest does not fit the file, or the file is no image classifier.
        DeviceError: the file cannot be opened.
    """
    path = Path(path)
    known = artifact.load(path)
    if known is not None:
        return known
    with ModelProcess(path) as process:
        return artifact.describe(path, process.info, affine(input_range) if input_range else None, crop)


@contextlib.contextmanager
def scorer(subject: Artifact, workers: int | None = None) -> Iterator[Scorer]:
    """Open a model file on all cores; yield what turns uint8 batches into float32 scores."""
    with ModelPool(subject.path, workers or at_once()) as pool:
        yield prepared(pool, subject)


def prepared(runs: Runs, subject: Artifact) -> Scorer:
    """Give a file its input in its own layout and dtype; the files made here take the pixels as they are."""
    scores = _in_its_dtype(runs, subject)
    if subject.manifest.input.layout == "NHWC":
        return scores
    return lambda images: scores(batch.transpose(0, 3, 1, 2) for batch in images)


def _in_its_dtype(runs: Runs, subject: Artifact) -> Scorer:
    eats, tensor = subject.manifest.input, runs.info.inputs[0]
    real = np.arange(256, dtype=np.float32) * np.float32(eats.scale) + np.float32(eats.offset)  # of each level
    if eats.dtype == "float32":
        return lambda images: runs.map(real[batch] for batch in images)
    if eats.dtype == "int8" and tensor.zero_point != -128:
        levels = np.clip(np.round(real / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
        return lambda images: runs.map(levels[batch] for batch in images)
    return runs.map  # raw bytes; any other dtype is refused there
