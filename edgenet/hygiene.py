"""Calibration hygiene: are these images fit to calibrate with, and are they others than those it is measured on?

Everything is judged on what entered the network: pixels after preprocessing, and the float network's answers to them.
The thresholds were measured: 500 photographs and four ImageNet networks, generated symbols and theirs, three videos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgenet.errors import EdgenetError
from edgenet.image import Pixels, Preprocessing
from edgenet.order import FEW_IMAGES

Answers: TypeAlias = npt.NDArray[np.floating[Any]]
_Doubles: TypeAlias = npt.NDArray[np.float64]

# Standard deviation of the channel that has most of it, of 255 levels: photographs 18 or more, video 9, a dark lens 2.
BLANK_LEVELS = 4.0
# Of horizontal and vertical neighbours: photographs have 0.64 or more, printed lines 0.36, noise 0.
NOISE_CORRELATION = 0.1
# Of two thumbnails: most frames of one video reach 0.99 with some other, no two of 500 photographs more than 0.91.
NEAR_CORRELATION = 0.98
# Fewer near-copies than this share do no harm.
NEAR_SHARE = 0.1
# Share of images with one first class: 0.02 of 500 photographs, up to 1 of a video or of noise.
ONE_ANSWER = 0.9
# With fewer classes, nearly all of one may be what the network will meet: most parts have no fault.
MANY_CLASSES = 4
# Of told_apart: photographs 0.55 or more, pictures of another kind 0.20 to 0.43, noise below 0.1.
TOLD_APART = 0.45
# Robust standard deviations below the median of log spread of logits: photographs stay within 7.4 (50 images or more).
OUTLIER = 8.0
_ENOUGH = 20  # images, from which a set can be judged by its answers
_ENOUGH_FOR_ODD = 50
_LEAST_SPREAD = 0.04  # of log spread: images that are all alike are no measure of one that is a bit different
_THUMBNAIL = 16  # pixels
_NOISE_EDGE = 8  # pixels: below, too few neighbours
_NAMED = 3  # files that a message names
_TINY = float(np.finfo(np.float32).tiny)


def check_images(files: Sequence[Path], images: Pixels, answers: Answers | None = None) -> tuple[str, ...]:
    """Look for what makes calibration images unfit; return warnings, one line each: what is wrong and what to do.

    Of the pixels: too few images, blank ones, noise, copies, near-copies (frames of one video). Of the answers: one to
    nearly all images, answers that hardly depend on the image, single images that say little to the network. Colour
    channels in the wrong order are not found: the networks see through that; nor are pictures of another kind by a
    network that is sure of whatever it sees, as those of two or three classes often are.

    Args:
        files: the images' names, for the messages.
        images: uint8 [n, height, width, 3], preprocessed, in the order of files.
        answers: [n, classes], the float network's probabilities; None: judge by the pixels alone.

    Raises:
        EdgenetError: the three do not fit together, or an answer is NaN, infinite, or outside 0..1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(files):
        raise EdgenetError(f"{len(files)} files and pixels {images.dtype} {list(images.shape)} do not fit together")
    found = []
    if len(files) < FEW_IMAGES:
        found.append(f"{len(files)} calibration images; ranges are good from about {FEW_IMAGES} on: add more of them")
    blank = [i for i, image in enumerate(images) if image.std(axis=(0, 1)).max() < BLANK_LEVELS]
    if blank:
        found.append(f"{_share(blank, files)} blank or nearly so: {_names(files, blank)}; remove them")
    rest = sorted(set(range(len(files))) - set(blank))
    noise = [i for i in rest if _neighbour_correlation(images[i]) < NOISE_CORRELATION]
    if noise:
        found.append(f"{_share(noise, files)} noise, no pictures: {_names(files, noise)}; give pictures instead")
    rest = sorted(set(rest) - set(noise))  # what has its line already is judged no further
    found += _copies(files, images, rest)
    if answers is not None:
        _refuse_no_answers(files, answers)
        found += _of_answers([files[i] for i in rest], answers[rest])
    return tuple(found)


def told_apart(answers: Answers) -> float:
    """Measure how much the answers say about which image it was, 0..1, of what they could say.

    The mutual information of image and class (entropy of the mean answer less the mean entropy of the answers), over
    the most it could be: the entropy of the mean answer, which bounds it where images are of few classes, or log n,
    which does where they are few. answers: [n, classes], 0..1; rows need not sum to 1. One image says nothing: 0.
    """
    doubles = np.maximum(answers.astype(np.float64), _TINY)
    rows = doubles / doubles.sum(axis=1, keepdims=True)
    overall = float(_entropy(rows.mean(axis=0, keepdims=True))[0])
    most = min(overall, float(np.log(len(rows))))
    # Equal answers leave the difference of two equal numbers, of either sign, over next to nothing.
    information = overall - float(_entropy(rows).mean())
    return min(1.0, information / most) if information > 1e-9 else 0.0


def overlap(calibration: Iterable[Pixels], evaluation: Iterable[Pixels]) -> tuple[int, ...]:
    """Find the calibration images that are evaluation images too: their indices.

    Equal pixels count, whatever the file is called and however it is packed; a copy that lost something (JPEG again, a
    smaller one) is not found. Both: images uint8 [height, width, 3] of one preprocessing; an array of them will do, or
    itertools.chain.from_iterable(batches(...)). Raises EdgenetError if they are of different sizes.
    """
    ours, seen = [(_digest(image), image.shape) for image in calibration], set[bytes]()
    for image in evaluation:
        if ours and image.shape != ours[0][1]:
            raise EdgenetError(f"images {list(image.shape)} were preprocessed for another network; give equal sizes")
        seen.add(_digest(image))
    return tuple(i for i, (digest, _) in enumerate(ours) if digest in seen)


def refuse_overlap(files: Sequence[Path], images: Pixels, evaluation: Iterable[Pixels], folder: Path) -> None:
    """Refuse, with an EdgenetError, calibration images (files, images) that are evaluation images too (see overlap).

    folder: where the evaluation images come from, for the message.
    """
    both = overlap(images, evaluation)
    if both:
        share = _share(both, files, "calibration images")
        raise EdgenetError(f"{share} in {folder} too: {_names(files, both)}; calibrate with other images")


def pixels_sha256(images: Iterable[Pixels], prep: Preprocessing) -> str:
    """Return one sha256 of what entered the network: the preprocessing's own hash, then each image's pixels.

    The names and the packing of files do not count. The order does: which images correct biases depends on it.
    """
    whole = hashlib.sha256(prep.sha256().encode())
    for image in images:
        whole.update(_digest(image))
    return whole.hexdigest()


def _copies(files: Sequence[Path], images: Pixels, among: Sequence[int]) -> list[str]:
    """Warn of images that are the same as an earlier one, and of many that are nearly so."""
    found, first, same = [], dict[bytes, int](), dict[int, int]()
    for i in among:
        original = first.setdefault(_digest(images[i]), i)
        if original != i:
            same[i] = original
    if same:
        found.append(f"{_share(same, files)} copies of others: {_names(files, same, same)}; remove the copies")
    near = _near_copies(images, list(first.values()))
    if near and len(near) >= NEAR_SHARE * len(first):
        found.append(
            f"{_share(near, files)} nearly copies of others: {_names(files, near, near)}; they count for little: "
            f"add pictures of other scenes (of a video, take fewer frames); different now: {len(first) - len(near)}"
        )
    return found


def _near_copies(images: Pixels, among: Sequence[int]) -> dict[int, int]:
    """Map each image that looks like an earlier one to that one; what it is compared with is no near-copy itself."""
    near: dict[int, int] = {}
    kept: list[int] = []
    thumbnails = np.array([_thumbnail(images[i]) for i in among])
    for row, i in enumerate(among):
        likeness = thumbnails[kept] @ thumbnails[row] if kept else np.zeros(1)
        best = int(likeness.argmax())
        if likeness[best] > NEAR_CORRELATION:
            near[i] = among[kept[best]]
        else:
            kept.append(row)
    return near


def _refuse_no_answers(files: Sequence[Path], answers: Answers) -> None:
    if answers.ndim != 2 or len(answers) != len(files):
        raise EdgenetError(f"{len(files)} files and answers {list(answers.shape)} do not fit together")
    wrong = np.flatnonzero(~((answers >= -1e-3) & (answers <= 1 + 1e-3)).all(axis=1))  # NaN is neither
    if len(wrong):
        raise EdgenetError(f"the float network answers {files[wrong[0]]} with no probabilities; check its weights")


def _of_answers(files: Sequence[Path], answers: Answers) -> list[str]:
    """Warn of the set as a whole, or else of single images: a set that says nothing is no measure of them."""
    if len(files) < _ENOUGH:
        return []
    counts = np.bincount(answers.argmax(axis=1))
    most = int(counts.max())
    if most >= ONE_ANSWER * len(files):
        line = (
            f"the network gives {most} of {len(files)} images one answer, class {counts.argmax()}: add images of its "
            "other classes; if these are, it does not know this kind of picture"
        )
        return [line] if answers.shape[1] >= MANY_CLASSES else []
    apart = told_apart(answers)
    if apart < TOLD_APART:
        return [
            f"the network hardly tells these images apart ({apart:.2f}; images that it knows: above {TOLD_APART}): "
            "check its weights, and that they are the kind of picture that it was trained on"
        ]
    odd = _outliers(answers) if len(files) >= _ENOUGH_FOR_ODD else []
    if not odd:
        return []
    return [f"{_share(odd, files)} unlike the others to the network: {_names(files, odd)}; check that they belong"]


def _outliers(answers: Answers) -> list[int]:
    """Find images whose logits (log-probabilities, which softmax only shifts) spread far less than the others'."""
    spread = np.log(np.maximum(np.log(np.maximum(answers.astype(np.float64), _TINY)).std(axis=1), 1e-6))
    below = np.median(spread) - spread
    deviation = max(1.4826 * float(np.median(np.abs(below))), _LEAST_SPREAD)
    return [int(i) for i in np.flatnonzero(below > OUTLIER * deviation)]


def _entropy(rows: _Doubles) -> _Doubles:
    """Return the entropy of each row in nats; all above 0."""
    return np.asarray(-(rows * np.log(rows)).sum(axis=1), np.float64)


def _neighbour_correlation(image: Pixels) -> float:
    """Correlate the brightness of neighbouring pixels; 1 where there is nothing to correlate."""
    grey = image.mean(axis=2)
    variance = float(grey.var())
    if min(grey.shape) < _NOISE_EDGE or variance == 0:
        return 1.0
    steps = (np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean()) / 2
    return 1 - float(steps) / (2 * variance)


def _thumbnail(image: Pixels) -> _Doubles:
    """Return block means as a vector of mean 0 and length 1, so that products are correlations; 0s of a plain image."""
    high, wide = (max(1, edge // _THUMBNAIL) for edge in image.shape[:2])
    rows, columns = image.shape[0] // high, image.shape[1] // wide
    # A remainder of up to a block at the right and the lower edge is left out, of every image alike.
    blocks = image[: rows * high, : columns * wide].reshape(rows, high, columns, wide, 3).mean(axis=(1, 3)).ravel()
    centred = blocks - blocks.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), np.float64)


def _digest(image: Pixels) -> bytes:
    return hashlib.sha256(f"{image.dtype} {image.shape}".encode() + image.tobytes()).digest()


def _share(some: Collection[int], files: Sequence[Path], what: str = "images") -> str:
    return f"{len(some)} of {len(files)} {what} {'is' if len(some) == 1 else 'are'}"


def _names(files: Sequence[Path], some: Collection[int], of: Mapping[int, int] | None = None) -> str:
    """Name the first few, each with what it is a copy of."""
    named = [f"{files[i]} (of {files[of[i]]})" if of else str(files[i]) for i in islice(some, _NAMED)]
    return ", ".join(named) + (f" and {len(some) - _NAMED} more" if len(some) > _NAMED else "")
