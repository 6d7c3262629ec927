from __future__ import annotations

import hashlib
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenet.errors import EdgenetError
from edgenet.image import ImageError, Pixels, Preprocessing, fit


def generated(height: int, width: int) -> Pixels:
    """Return a picture from integer arithmetic alone: gradients, edges and a fine pattern, the same everywhere."""
    y, x = np.mgrid[:height, :width]
    planes = (x * 255 // max(1, width - 1), y * 7 + x * 3, ((x // 9 + y // 5) % 2) * 200 + (x * y) % 56)
    return np.stack([plane % 256 for plane in planes], axis=2).astype(np.uint8)


# Preprocessing


def test_hash_of_the_parameters_is_stable_and_tells_them_apart() -> None:
    prep = Preprocessing(224, 224)
    assert (
        prep.sha256()
        == hashlib.sha256(b'{"crop":"center","height":224,"interpolation":"area-bilinear","width":224}').hexdigest()
    )
    others = {Preprocessing(224, 224, "squash").sha256(), Preprocessing(224, 192).sha256(), prep.sha256()}
    assert len(others) == 3
    assert Preprocessing(cast("int", np.int64(224)), 224).sha256() == prep.sha256()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [((0, 224), "224x0"), ((224, 224, "middle"), "'middle'"), ((224, 224, "center", "cubic"), "'cubic'")],
)
def test_senseless_parameters_are_refused(arguments: tuple[object, ...], complaint: str) -> None:
    with pytest.raises(EdgenetError, match=complaint):
        Preprocessing(*arguments)  # type: ignore[arg-type]


# fit


@pytest.mark.parametrize(
    ("size", "prep", "digest"),
    [
        ((480, 640), Preprocessing(224, 224), "5972f4104bf3b2bc"),
        ((1080, 1920), Preprocessing(224, 224), "c457109308c869a8"),
        ((333, 250), Preprocessing(96, 128), "37eac4b4da625b6d"),
        ((333, 250), Preprocessing(96, 128, "squash"), "6a5e1e53d9c004ba"),
        ((50, 40), Preprocessing(96, 96), "18c780d37df796ae"),
    ],
)
def test_golden_pixels(size: tuple[int, int], prep: Preprocessing, digest: str) -> None:
    """Every figure ever measured depends on these bytes: a change here changes all of them, and the manifests' hash."""
    assert hashlib.sha256(fit(generated(*size), prep).tobytes()).hexdigest()[:16] == digest


sides = st.integers(1, 300)
# From 2: Pillow's mean of a block is one level low for blocks of more than 32,896 pixels (8K to 31 and smaller).
targets = st.builds(Preprocessing, st.integers(2, 64), st.integers(2, 64), st.sampled_from(["center", "squash"]))


@settings(deadline=None)
@given(sides, sides, targets)
def test_any_size_gives_the_target(height: int, width: int, prep: Preprocessing) -> None:
    picture = generated(height, width)
    result = fit(picture, prep)
    assert result.shape == (prep.height, prep.width, 3)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    assert not np.shares_memory(result, picture)
    assert (result.min(axis=(0, 1)) >= picture.min(axis=(0, 1))).all()
    assert (result.max(axis=(0, 1)) <= picture.max(axis=(0, 1))).all()


@settings(deadline=None)
@given(sides, sides, targets, st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_stays_that_colour(
    height: int, width: int, prep: Preprocessing, colour: tuple[int, int, int]
) -> None:
    result = fit(np.full((height, width, 3), colour, np.uint8), prep)
    assert (result == np.array(colour)).all()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_a_whole_factor_is_the_mean_of_each_block(factor: int, height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height * factor, width * factor, 3), np.uint8)
    blocks = picture.reshape(height, factor, width, factor, 3).astype(np.int64).sum(axis=(1, 3))
    mean = (blocks + factor * factor // 2) // (factor * factor)
    result = fit(picture, Preprocessing(height, width))
    assert np.abs(result - mean).max() <= 1  # Pillow divides by a fixed-point reciprocal
    flipped = fit(picture[:, ::-1], Preprocessing(height, width))
    assert (flipped == result[:, ::-1]).all()


@settings(deadline=None)
@given(st.integers(20, 60), st.integers(0, 40), st.booleans(), st.integers(1, 32))
def test_centre_crop_sees_the_centre_only(side: int, margin: int, upright: bool, size: int) -> None:
    centre = generated(side, side)
    bars = ((margin, margin), (0, 0), (0, 0)) if upright else ((0, 0), (margin, margin), (0, 0))
    prep = Preprocessing(size, size)
    assert (fit(np.pad(centre, bars, constant_values=255), prep) == fit(centre, prep)).all()


def test_the_crop_has_the_aspect_ratio_of_the_target() -> None:
    picture = np.zeros((90, 200, 3), np.uint8)
    picture[:, 40:160] = 255  # 4:3 of 90 rows is 120 columns
    assert (fit(picture, Preprocessing(30, 40)) == 255).all()
    assert (fit(picture, Preprocessing(30, 42)) < 255).any()
    assert (fit(picture, Preprocessing(30, 40, "squash")) < 255).any()


@pytest.mark.parametrize("upright", [False, True])
def test_of_an_odd_margin_the_smaller_half_lies_left_or_above(upright: bool) -> None:
    picture = np.zeros((8, 13, 3), np.uint8)
    picture[:, 2:10] = generated(8, 8)
    turned, square = (np.swapaxes(one, 0, 1) if upright else one for one in (picture, generated(8, 8)))
    assert (fit(turned, Preprocessing(8, 8)) == square).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_only_rgb_bytes_are_pictures(array: Pixels) -> None:
    with pytest.raises(ImageError, match=r"no picture; give uint8 RGB \[height, width, 3\]"):
        fit(array, Preprocessing(2, 2))
