"""Calibration images that are unfit are named, fit ones pass in silence, and those of the evaluation are refused."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenet import hygiene
from edgenet.dataset import batches, image_files
from edgenet.errors import EdgenetError
from edgenet.hygiene import Answers, check_images, overlap, pixels_sha256, refuse_overlap, told_apart
from edgenet.image import Pixels, Preprocessing
from edgenet.nets.network import Network, open_network
from edgenet.order import FEW_IMAGES, Calibration
from edgenet.symbols.generate import batch

PREP = Preprocessing(48, 48)


def named(count: int) -> list[Path]:
    return [Path(f"{i:03}.png") for i in range(count)]


@pytest.fixture(scope="module")
def good() -> Pixels:
    """100 pictures, all different: uint8 [100, 48, 48, 3]."""
    return batch(100, seed=5, size=48)[0]


@pytest.fixture(scope="module")
def symbols() -> Network:
    return open_network("symbols")


def scores(network: Network, images: Pixels) -> npt.NDArray[np.float32]:
    answers: npt.NDArray[np.float32] = np.concatenate(
        list(network.scores(images[i : i + 20] for i in range(0, len(images), 20)))
    )
    return answers


def sure(images: int, classes: int, sureness: float = 6.0, seed: int = 0) -> Answers:
    """Answers of a network that is sure of each image, the classes taking turns."""
    logits = np.random.default_rng(seed).normal(0, 1, (images, classes))
    logits[np.arange(images), np.arange(images) % classes] += sureness
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def noise(count: int, size: int = 48) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def with_last(images: Pixels, *last: Pixels) -> Pixels:
    """Put others in the place of the last images."""
    return np.concatenate([images[: len(images) - len(last)], np.stack(last)])


def one_line(warnings: tuple[str, ...]) -> str:
    assert len(warnings) == 1, warnings
    assert "\n" not in warnings[0]
    return warnings[0]


# pixels


def test_good_images_pass_in_silence(good: Pixels) -> None:
    assert check_images(named(100), good) == ()
    assert check_images(named(100), good, sure(100, 10)) == ()


def test_too_few_is_what_the_order_says(good: Pixels) -> None:
    for count in (FEW_IMAGES - 1, FEW_IMAGES):
        warned = check_images(named(count), good[:count])
        assert bool(warned) == Calibration(tuple(named(count)), "").too_few
    assert one_line(check_images(named(7), good[:7])).startswith("7 calibration images; ranges are good from about 100")


def test_blank_images_are_named(good: Pixels) -> None:
    grain = np.clip(np.random.default_rng(0).normal(3, 2, (48, 48, 3)), 0, 255).astype(np.uint8)  # a covered lens
    white, scaled = np.full_like(grain, 255), (good[0] / 255).astype(np.uint8)  # somebody wrote 0..1 as bytes
    line = one_line(check_images(named(100), with_last(good, grain, white, scaled), sure(100, 10)))
    assert line == "3 of 100 images are blank or nearly so: 097.png, 098.png, 099.png; remove them"
    small_thing = np.full_like(grain, 200)
    small_thing[20:28, 20:28] = 20
    dim = (good[0] // 4).astype(np.uint8)
    assert check_images(named(99), with_last(good[1:], small_thing, dim), sure(99, 10))[1:] == ()


def test_a_message_names_the_first_few_files(good: Pixels) -> None:
    line = one_line(check_images(named(100), with_last(good, *np.zeros((9, 48, 48, 3), np.uint8))))
    assert line == "9 of 100 images are blank or nearly so: 091.png, 092.png, 093.png and 6 more; remove them"


def test_noise_is_no_picture(good: Pixels) -> None:
    line = one_line(check_images(named(100), with_last(good, *noise(1))))
    assert line == "1 of 100 images is noise, no pictures: 099.png; give pictures instead"
    grainy = np.clip(good + np.random.default_rng(0).normal(0, 12, good.shape), 0, 255).astype(np.uint8)
    assert check_images(named(100), grainy) == ()


def test_copies_are_named_with_what_they_copy(good: Pixels) -> None:
    line = one_line(check_images(named(100), with_last(good, good[3], good[3])))
    assert line == "2 of 100 images are copies of others: 098.png (of 003.png), 099.png (of 003.png); remove the copies"


def test_frames_of_a_video_count_as_one_scene(good: Pixels) -> None:
    rng = np.random.default_rng(0)
    frames = [np.clip(good[0] + 6.0 + rng.normal(0, 3, good[0].shape), 0, 255).astype(np.uint8) for _ in range(30)]
    line = one_line(check_images(named(100), with_last(good, *frames)))
    assert line.startswith("30 of 100 images are nearly copies of others: 070.png (of 000.png), 071.png (of 000.png), ")
    assert line.endswith("different now: 70")
    assert check_images(named(100), with_last(good, *frames[:5])) == ()  # a few do no harm
    after_a_blank = with_last(np.concatenate([np.zeros_like(good[:1]), good[6:0:-1], good[:1], good[7:99]]), *frames)
    assert "070.png (of 007.png)" in check_images(named(100), after_a_blank)[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 9), (17, 33), (20, 300)])
@pytest.mark.parametrize("count", [0, 1, 25])
def test_any_size_and_number_can_be_checked(shape: tuple[int, int], count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)
    assert "calibration images; ranges" in check_images(named(count), images, sure(count, 5))[0]


# answers


def test_one_answer_to_nearly_all_is_told() -> None:
    images = batch(100, seed=6, size=32)[0]
    answers = sure(100, 10)
    answers[:90] = answers[7]
    assert "gives 91 of 100 images one answer, class 7" in one_line(check_images(named(100), images, answers))
    ten = sure(1000, 10).reshape(100, 10, 10)  # [turn, class, answers]
    mostly = np.concatenate([ten[:70, 7], ten[70:73].reshape(30, 10)])
    assert check_images(named(100), images, mostly) == ()


def test_few_classes_may_all_be_one() -> None:
    images = batch(100, seed=6, size=32)[0]
    assert check_images(named(100), images, np.tile(np.array([0.98, 0.02], np.float32), (100, 1))) == ()
    assert one_line(check_images(named(100), images, np.tile(np.array([0.97, 0.01, 0.01, 0.01], np.float32), (100, 1))))


def test_answers_that_do_not_depend_on_the_image_are_told(good: Pixels) -> None:
    answers = sure(100, 20, sureness=1.0)
    assert "hardly tells these images apart" in one_line(check_images(named(100), good, answers))
    assert check_images(named(19), good[:19], answers[:19])[1:] == ()  # too few to say


def test_the_image_that_says_little_is_named(good: Pixels) -> None:
    answers = sure(100, 20, sureness=8.0)
    answers[42] = np.exp(0.2 * np.log(answers[42]))
    answers[42] /= answers[42].sum()
    line = one_line(check_images(named(100), good, answers))
    assert line == "1 of 100 images is unlike the others to the network: 042.png; check that they belong"
    blank = good.copy()
    blank[42] = 0
    assert "blank" in one_line(check_images(named(100), blank, answers))  # one line for it is enough


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 7.0])
def test_what_is_no_probability_is_refused(good: Pixels, bad: float) -> None:
    answers = sure(100, 10)
    answers[5, 3] = bad
    with pytest.raises(EdgenetError, match=r"answers 005\.png with no probabilities; check its weights"):
        check_images(named(100), good, answers)


def test_what_does_not_fit_together_is_refused(good: Pixels) -> None:
    floats: Any = good.astype(np.float32)
    for files, images, answers in (
        (named(99), good, None),
        (named(100), floats, None),
        (named(100), good, sure(99, 10)),
        (named(100), good, sure(100, 10)[0]),
    ):
        with pytest.raises(EdgenetError, match="do not fit together"):
            check_images(files, images, answers)


def test_told_apart_by_hand() -> None:
    assert told_apart(np.eye(30)) == pytest.approx(1)
    assert told_apart(np.repeat(np.eye(3), 10, axis=0)) == pytest.approx(1)  # all there is to tell, of three classes
    assert told_apart(np.full((30, 10), 0.1)) == 0
    assert told_apart(np.tile([0.7, 0.2, 0.1], (30, 1))) == pytest.approx(0, abs=1e-9)
    assert told_apart(np.zeros((4, 3))) == 0
    # All there is to tell of two images: which half of the classes it is.
    assert told_apart(np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])) == pytest.approx(1)
    # Two equally frequent answers, right three times in four: ln 2 less the entropy of (3/4, 1/4), over ln 2.
    assert told_apart(np.array([[0.75, 0.25], [0.25, 0.75]] * 8)) == pytest.approx(0.18872, abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(2, 30), st.floats(0, 20), st.integers(0, 1000))
def test_told_apart_is_a_share_of_what_order_and_scale_change_nothing(
    images: int, classes: int, sureness: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    answers = sure(images, classes, sureness, seed).astype(np.float64)
    apart = told_apart(answers)
    assert 0 <= apart <= 1
    shuffled = answers[rng.permutation(images)][:, rng.permutation(classes)]
    assert told_apart(shuffled * 0.3) == pytest.approx(apart, abs=1e-6)


# overlap and fingerprint


def test_a_copy_is_found_whatever_its_name_and_packing(tmp_path: Path, good: Pixels) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    (theirs / "inner").mkdir(parents=True)
    for i in range(5):
        Image.fromarray(good[i]).save(ours / f"{i}.png")
    Image.fromarray(good[3]).save(theirs / "inner" / "renamed.bmp")
    Image.fromarray(good[1]).save(theirs / "other.png", compress_level=0)
    Image.fromarray(good[2]).save(theirs / "lossy.jpg")
    Image.fromarray(good[9]).save(theirs / "9.png")
    files = image_files(ours)
    images = np.concatenate(list(batches(files, PREP, 2)))
    evaluation = list(chain.from_iterable(batches(image_files(theirs), PREP, 2)))
    assert overlap(images, evaluation) == (1, 3)
    assert overlap(images, good[5:]) == ()
    refuse_overlap(files, images, good[5:], theirs)
    with pytest.raises(EdgenetError) as refused:
        refuse_overlap(files, images, evaluation, theirs)
    assert str(refused.value) == (
        f"2 of 5 calibration images are in {theirs} too: {files[1]}, {files[3]}; calibrate with other images"
    )


def test_images_of_other_sizes_cannot_be_compared(good: Pixels) -> None:
    with pytest.raises(EdgenetError, match=r"images \[40, 48, 3\] were preprocessed for another network"):
        overlap(good, good[:, :40])
    assert overlap(good[:0], good) == overlap(good, good[:0]) == ()


@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 6), st.integers(0, 2), st.integers(1, 255))
def test_every_pixel_counts(image: int, row: int, column: int, channel: int, change: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    other = images.copy()
    other[image, row, column, channel] = (int(images[image, row, column, channel]) + change) % 256
    assert overlap(images, other) == tuple(i for i in range(5) if i != image)
    assert pixels_sha256(images, PREP) != pixels_sha256(other, PREP)


def test_the_fingerprint_is_of_what_entered_the_network(tmp_path: Path, good: Pixels) -> None:
    for kind in ("png", "bmp"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            Image.fromarray(good[i]).save(tmp_path / kind / f"{i}.{kind}")
    png, bmp = (
        pixels_sha256(chain.from_iterable(batches(image_files(tmp_path / kind), PREP, 2)), PREP)
        for kind in ("png", "bmp")
    )
    assert png == bmp == pixels_sha256(good[:3], PREP)
    others = (
        pixels_sha256(good[:3], Preprocessing(48, 48, "squash")),
        pixels_sha256(good[2::-1], PREP),
        pixels_sha256(good[:2], PREP),
        pixels_sha256(good[:3].reshape(3, 24, 96, 3), PREP),
    )
    assert len({png, *others}) == 5


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'tensorflow', 'keras', 'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, edgenet.hygiene; sys.exit(bool({heavy}))"], check=True)


# real networks


@pytest.fixture(scope="module")
def photographs(data: Path) -> tuple[tuple[Path, ...], Pixels]:
    """Files of the calibration folder, and their pixels at 224."""
    files = image_files(data / "imagenet" / "calibration")
    return files, np.concatenate(list(batches(files, Preprocessing(224, 224), 20)))


def test_the_embedded_network_knows_its_pictures_and_no_others(symbols: Network) -> None:
    own = batch(120, seed=11)[0]
    ramp = np.repeat(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (96, 1))[..., None], 3, axis=2)
    ramps = np.stack([ramp, ramp[:, ::-1]])
    every = scores(symbols, np.concatenate([own, noise(60, 96), ramps]))  # in one go, here, too
    known, of_noise, of_ramps = np.split(every, [120, 180])
    assert check_images(named(120), own, known) == ()
    assert told_apart(known) > 0.85
    assert told_apart(of_noise) < 0.1
    mixed = with_last(own, *ramps)
    line = one_line(check_images(named(120), mixed, np.concatenate([known[:118], of_ramps])))
    assert line == "2 of 120 images are unlike the others to the network: 118.png, 119.png; check that they belong"


def test_a_network_without_training_is_told() -> None:
    images = batch(40, seed=11, size=48)[0]
    network = open_network("mobilenet_v2_0.35_48", weights="none")
    assert "40 of 40 images one answer" in check_images(named(40), images, scores(network, images))[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mobilenet_v1_0.25_224", "mobilenet_v1_0.25_224.h5"),
        ("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224.weights.h5"),
        ("mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224.weights.h5"),
        ("mobilenet_v3_small_1.0_224", "mobilenet_v3_small_1.0_224.weights.h5"),
    ],
)
def test_photographs_pass_and_other_pictures_do_not(
    name: str, weights: str, data: Path, photographs: tuple[tuple[Path, ...], Pixels], pictures: Path
) -> None:
    network = open_network(name, weights=str(data / "models" / weights))
    files, pixels = photographs
    drawn = image_files(pictures, 50)
    images = np.concatenate(list(batches(drawn, Preprocessing(224, 224), 20)))
    every = scores(network, np.concatenate([pixels, images, noise(40, 224)]))  # in one go: each traces the network
    known, of_drawn, of_noise = np.split(every, [len(files), len(files) + len(drawn)])
    assert check_images(files, pixels, known) == ()
    rng = np.random.default_rng(0)
    for count in (100, 100, 100, 50, 20):
        for _ in range(20):  # the pixels are judged one by one, or in pairs: a subset adds nothing to find
            some = rng.choice(len(files), count, replace=False)
            assert hygiene._of_answers([files[i] for i in some], known[some]) == []
    assert "hardly tells these images apart" in check_images(drawn, images, of_drawn)[-1]
    assert told_apart(of_noise) < 0.1
