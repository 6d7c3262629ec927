from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenet.blocks import MOST, block_means
from edgenet.image import Pixels, Preprocessing, fit

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 90)


def noise(seed: int, height: int, width: int) -> Pixels:
    """Return pixels of any level, of which some pictures hold few: means then lie at a half, and at either end."""
    random = np.random.default_rng(seed)
    levels = random.choice(256, random.integers(1, 4)) if seed % 2 else np.arange(256)
    return random.choice(levels, (height, width, 3)).astype(np.uint8)


@settings(deadline=None)
@given(seeds, sides, sides, st.integers(1, 95), st.integers(1, 95))
@example(0, 90, 90, 16, 16)  # the largest block whose sum 16 bits hold, and the smallest where they do not
@example(0, 90, 90, 2, 129)
def test_means_are_pillows(seed: int, height: int, width: int, rows: int, columns: int) -> None:
    image = noise(seed, height, width)
    assert (block_means(image, rows, columns) == np.asarray(Image.fromarray(image).reduce((columns, rows)))).all()


@pytest.mark.parametrize("block", [(2, 3), (7, 7), (16, 17), (128, 256)])
def test_means_of_a_picture_of_many_strips_are_pillows(block: tuple[int, int]) -> None:
    image = noise(2, 1033, 1500)
    assert (block_means(image, *block) == np.asarray(Image.fromarray(image).reduce(block[::-1]))).all()


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_the_largest_block_is_pillows(level: int) -> None:
    image = np.full((MOST // 128, 128, 3), level, np.uint8)
    assert (block_means(image, *image.shape[:2]) == np.asarray(Image.fromarray(image).reduce(image.shape[1::-1]))).all()


@settings(deadline=None)
@given(
    seeds,
    st.integers(1, 300),
    st.integers(1, 300),
    st.builds(Preprocessing, st.integers(1, 64), st.integers(1, 64), st.just("squash")),
)
@example(0, 300, 250, Preprocessing(1, 1, "squash"))  # a block beyond MOST
def test_a_fitted_picture_is_pillows_own(seed: int, height: int, width: int, prep: Preprocessing) -> None:
    image = noise(seed, height, width)
    size = (prep.width, prep.height)
    pillows = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    assert (fit(image, prep) == np.asarray(pillows)).all()


def test_a_view_of_a_picture_gives_what_its_copy_gives() -> None:
    """Neither the rows of a crop nor channels and columns in another order lie side by side."""
    image = noise(4, 200, 320)
    for view in (image[7:187, 40:301], image[..., ::-1], image[:, ::-1], np.rot90(image), image[::2, ::3]):
        assert (fit(view, Preprocessing(24, 31)) == fit(np.array(view), Preprocessing(24, 31))).all()
