"""Top-1 and top-5 accuracy of anything that answers scores, on labelled images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgenet.dataset import LabelledImages, batches
from edgenet.errors import EdgenetError
from edgenet.image import Pixels, Preprocessing

Scores: TypeAlias = npt.NDArray[np.floating[Any]]

_Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a model is right. Shares are 0..1; intervals are Wilson's, 95 %."""

    top1: float
    top5: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    images: int
    seconds: float  # wall time of decoding and inference together, which overlap
    images_per_s: float
    ranks: npt.NDArray[np.int64] = field(
        repr=False, compare=False
    )  # [images] of the true class; 0 is the model's first


def evaluate(
    scores: Callable[[Iterable[Pixels]], Iterator[Scores]],
    dataset: LabelledImages,
    prep: Preprocessing,
    *,
    name: str,
    batch_size: int = 32,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Measure the accuracy of a model on a data set.

    scores: takes batches uint8 [n, height, width, 3] and yields float scores [m, classes] for the same images in the
    same order (m need not be n); pulling batches lazily lets decoding overlap inference. An image is top-k correct if
    its class is among the k highest scores; of equal scores the lower index is the higher. name: the model file, for
    messages. progress: called with the count of images done so far. Raises EdgenetError if the scores hold NaN or
    +infinity, or are not one row an image and one column a class; ImageError for an image that cannot be read.
    """
    ranks: list[npt.NDArray[np.int64]] = []
    done, total = 0, len(dataset.files)
    began = time.perf_counter()
    for chunk in scores(batches(dataset.files, prep, batch_size, workers)):
        _check(chunk, len(dataset.classes), name)
        if done + len(chunk) > total:
            raise EdgenetError(
                f"{name}: answered {done + len(chunk)} times for {total} images; its batch size is wrong"
            )
        ranks.append(rank(chunk, dataset.targets[done : done + len(chunk)]))
        done += len(chunk)
        if progress is not None:
            progress(done)
    seconds = time.perf_counter() - began
    if done != total or not total:
        raise EdgenetError(f"{name}: answered {done} times for {total} images; every image needs one answer")
    every = np.concatenate(ranks)
    first, five = int((every < 1).sum()), int((every < 5).sum())
    return Accuracy(
        top1=first / total,
        top5=five / total,
        top1_interval=wilson(first, total),
        top5_interval=wilson(five, total),
        images=total,
        seconds=seconds,
        images_per_s=total / seconds,
        ranks=every,
    )


def rank(scores: Scores, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many classes stand before the target, int64 [n]: higher scores, and equal ones of lower index.

    scores: [n, classes] without NaN. targets: int64 [n].
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < targets[:, None]
    before: npt.NDArray[np.int64] = ((scores > own) | ((scores == own) & lower)).sum(axis=1, dtype=np.int64)
    return before


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927; Newcombe 1998, method 3), within 0..1."""
    share, spread = successes / trials, _Z95**2 / trials
    centre = share + spread / 2
    half = _Z95 * math.sqrt((share * (1 - share) + spread / 4) / trials)
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    # Exact at the ends, where rounding would leave 1e-17 or 1 - 1e-16.
    return (0.0 if successes == 0 else low, 1.0 if successes == trials else high)


def _check(chunk: Scores, classes: int, name: str) -> None:
    if chunk.ndim != 2:
        raise EdgenetError(f"{name}: answers an array {list(chunk.shape)}, not [images, classes]; is it a classifier?")
    if chunk.shape[1] != classes:
        raise EdgenetError(
            f"{name}: answers {chunk.shape[1]} classes and the labels name {classes}; give this model's own labels"
        )
    if np.isnan(chunk).any() or np.isposinf(chunk).any():
        raise EdgenetError(f"{name}: answers NaN or infinity, so it has no top class; convert the model again")
