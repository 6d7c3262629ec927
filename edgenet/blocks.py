"""Means of blocks of pixels, byte for byte those of Pillow's Image.reduce.

Pillow must copy a picture twice before it may begin: cut out of its rows, then from 3 bytes a pixel to 4. Here it is
read once, where it lies. The arithmetic is in whole numbers: the same bytes on every processor.
"""

from __future__ import annotations

from functools import lru_cache
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
    width, channels = image.shape[1:]
    half, factor = _divisors(*image.shape[:2], rows, columns)
    down, across = half.shape
    means = np.empty((down, across, channels), np.uint8)
    step = min(down, max(1, _STRIP // image[0].size))
    kind = np.uint16 if rows * columns * _LEVELS < 1 << 16 else np.uint32
    room = np.empty((3, step, across * columns, channels), kind)  # for all strips: new memory costs more than the sums
    room[0, :, width:] = 0  # what the last column of blocks lacks, adds nothing
    shares = np.empty((channels, step, across), np.uint32)
    for first in range(0, down, step):
        part = means[first : first + step]
        strip = image[first * rows : (first + step) * rows]
        lines, *spare = room[:, : len(part)]
        np.copyto(lines[:, :width], strip[::rows])
        for row in range(1, rows):  # numpy adds bytes to larger numbers more slowly than if they are made such before
            more = strip[row::rows]  # one line less, where the last row of blocks lacks it
            into, converted = lines[: len(more), :width], spare[0][: len(more), :width]
            np.copyto(converted, more)
            np.add(into, converted, out=into)
        sums = _neighbours(lines, columns, *spare)[:, ::columns]
        share = shares[:, : len(part)]
        for channel in range(channels):  # one at a time: three neighbours are too short a run for numpy
            share[channel] = sums[..., channel]
        share += half[first : first + step]
        share *= factor[first : first + step]
        share >>= np.uint32(24)
        part[...] = share.transpose(1, 2, 0)
    return means


@lru_cache(maxsize=4)  # a camera's pictures are all alike
def _divisors(
    height: int, width: int, rows: int, columns: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """What is added to each block's sum, and what multiplies it then, for 2^24 times its mean; as Pillow rounds.

    It is a product instead of a division: its factor is a single-precision number, cut to an integer. Both are
    [ceil(h / rows), ceil(w / columns)], and nobody may write to them.
    """
    high, wide = (
        np.minimum(block, length - np.arange(0, length, block)) for length, block in ((height, rows), (width, columns))
    )
    pixels = np.outer(high, wide)
    factor = np.float32(2**32) / (256 * pixels).astype(np.float32)
    return (pixels // 2).astype(np.uint32), factor.astype(np.uint32)


def _neighbours(one: _Sums, count: int, room: _Sums, spare: _Sums) -> _Sums:
    """Add up every `count` neighbours of a row: [h, w, c] to [h, w - count + 1, c], by doubling, in room or spare."""
    sums, have = one, 1
    for bit in f"{count:b}"[1:]:
        sums, room, spare = np.add(sums[:, :-have], sums[:, have:], out=room[:, : sums.shape[1] - have]), spare, room
        have *= 2
        if bit == "1":
            sums, room, spare = np.add(sums[:, :-1], one[:, have:], out=room[:, : sums.shape[1] - 1]), spare, room
            have += 1
    return sums
