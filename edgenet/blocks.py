"""Means of blocks of pixels, byte for byte those of Pillow's Image.reduce.

Pillow must copy a picture twice before it may begin: cut out of its rows, then from 3 bytes a pixel to 4. Here it is
read once, where it lies. The arithmetic is in whole numbers: the same bytes on every processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Sums: TypeAlias = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

_STRIP = 1 << 18  # sums that are worked on at a time: they stay in the processor's cache
_LEVELS = 255  # of a channel, above 0

MOST = 1 << 15
"""Pixels of a block, at most: beyond, Pillow's own rounding is off."""


def block_means(image: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Average blocks of rows x columns pixels: uint8 [h, w, c] to uint8 [ceil(h / rows), ceil(w / columns), c].

    rows, columns: 1 or more, of at most MOST pixels together. Blocks begin at the upper left; what is left at the right
    and lower edges are smaller blocks, each the mean of its own pixels.
    """
    height, width, channels = image.shape
    means = np.empty((-(-height // rows), -(-width // columns), channels), np.uint8)
    step = min(len(means), max(1, _STRIP // image[0].size))
    kind = np.uint16 if rows * columns * _LEVELS < 1 << 16 else np.uint32
    # For all strips: new memory costs more than the sums.
    room = np.empty((3 if columns >= 8 else 2, step, means.shape[1] * columns, channels), kind)
    shares = np.empty((step, *means.shape[1:]), np.uint32)
    for first in range(0, len(means), step):
        part = means[first : first + step]
        strip = image[first * rows : (first + step) * rows]
        lines, *spare = room[:, : len(part)]
        np.copyto(lines[:, :width], strip[::rows])
        lines[:, width:] = 0  # what the last column of blocks lacks, adds nothing
        for row in range(1, rows):  # numpy adds bytes to larger numbers more slowly than if they are made such before
            more = strip[row::rows]  # one line less, where the last row of blocks lacks it
            into, converted = lines[: len(more), :width], spare[0][: len(more), :width]
            np.copyto(converted, more)
            np.add(into, converted, out=into)
        sums = _neighbours(lines, columns, *spare)[:, ::columns]
        share = shares[: len(part)]
        for channel in range(channels):  # one at a time: three neighbours are too short a run for numpy
            share[..., channel] = sums[..., channel]
        for down, high in _spans(len(strip), rows):
            for across, wide in _spans(width, columns):
                _divide(share[down, across], high * wide)
        part[...] = share
    return means


def _spans(length: int, block: int) -> Iterator[tuple[slice, int]]:
    """Yield which blocks of a length are alike, and how long they are: the whole ones, and the one that is left."""
    whole, left = divmod(length, block)
    if whole:
        yield slice(whole), block
    if left:
        yield slice(whole, whole + 1), left


def _divide(sums: npt.NDArray[np.uint32], pixels: int) -> None:
    """Make sums of so many pixels their means; rounded as Pillow does it.

    It is a product instead of a division: its factor is a single-precision number, cut to an integer.
    """
    sums += np.uint32(pixels // 2)
    sums *= np.uint32(np.float32(2**32) / np.float32(256 * pixels))
    sums >>= np.uint32(24)


def _neighbours(one: _Sums, count: int, *rooms: _Sums) -> _Sums:
    """Add up every `count` neighbours of a row: [h, w, c] to [h, w - count + 1, c], by doubling.

    Memory that was not touched lately costs more than the sums: the last ones take the place of `one`.
    rooms: as large as `one`; two, where `count` is 8 or more.
    """
    half, odd = divmod(count, 2)
    if half < 2:
        return _doubled(one, count, *rooms)
    halves = _doubled(one, half, *rooms)
    if not odd:
        return np.add(halves[:, :-half], halves[:, half:], out=one[:, : halves.shape[1] - half])
    sums = one[:, count - 1 :]
    for part in (halves, halves[:, half:]):
        np.add(sums, part[:, : sums.shape[1]], out=sums)
    return sums


def _doubled(one: _Sums, count: int, *rooms: _Sums) -> _Sums:
    """Do the same in the first of the rooms; `one` stays as it is."""
    if count == 1:
        return one
    half, odd = divmod(count, 2)
    halves = _doubled(one, half, *reversed(rooms))
    sums = np.add(halves[:, :-half], halves[:, half:], out=rooms[0][:, : halves.shape[1] - half])
    return np.add(sums[:, :-1], one[:, count - 1 :], out=sums[:, :-1]) if odd else sums
