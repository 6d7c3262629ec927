from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgenet.dataset import LabelledImages, labelled
from edgenet.errors import EdgenetError
from edgenet.image import ImageError, Pixels, Preprocessing
from edgenet.proof.accuracy import Accuracy, evaluate, rank, wilson

PREP = Preprocessing(4, 4)
Floats = npt.NDArray[np.float32]


@pytest.fixture
def colours(tmp_path: Path) -> LabelledImages:
    """Ten images of each of seven classes; the red channel is 10 times the class, the green one the image's number."""
    for kind, number in itertools.product(range(7), range(10)):
        file = tmp_path / "set" / f"kind{kind}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (10 * kind, number, 0)).save(file)
    return labelled(tmp_path / "set", tuple(f"kind{kind}" for kind in range(7)))


def run(scores: object, dataset: LabelledImages, **options: int) -> Accuracy:
    return evaluate(scores, dataset, PREP, name="model.tflite", workers=2, **options)  # type: ignore[arg-type]


def ideal(batches: Iterable[Pixels]) -> Iterator[Floats]:
    """Answer the right class, but the next one for the images 0, 1 and 2 of each class."""
    for batch in batches:
        kind, number = batch[:, 0, 0, 0] // 10, batch[:, 0, 0, 1]
        answer = (kind + (number < 3)) % 7
        distance = (np.arange(7) - answer[:, None]) % 7
        yield (1 / (1 + distance)).astype(np.float32)


def test_accuracy_of_a_model_known_to_the_digit(colours: LabelledImages) -> None:
    result = run(ideal, colours, batch_size=8)
    assert result.images == 70
    assert result.top1 == 49 / 70
    assert result.top5 == 49 / 70  # the class before the answer is the farthest from it
    assert result.top1_interval == wilson(49, 70)
    assert result.ranks.tolist() == ([6] * 3 + [0] * 7) * 7
    assert result.images_per_s == pytest.approx(70 / result.seconds)


def test_rows_may_come_in_any_portions(colours: LabelledImages) -> None:
    def one_by_one(batches: Iterable[Pixels]) -> Iterator[Floats]:
        return (row[None] for batch in ideal(batches) for row in batch)

    seen: list[int] = []
    result = evaluate(one_by_one, colours, PREP, name="m", batch_size=16, progress=seen.append)
    assert result.top1 == 49 / 70
    assert seen == list(range(1, 71))


@settings(deadline=None)
@given(hnp.arrays(np.float32, (6, 9), elements=st.sampled_from([0.0, 0.25, 0.5, -1.0])), st.data())
def test_rank_is_the_place_in_a_stable_sort(scores: Floats, draw: st.DataObject) -> None:
    targets = np.array(draw.draw(st.lists(st.integers(0, 8), min_size=6, max_size=6)), np.int64)
    order = [sorted(range(9), key=lambda index, row=row: (-row[index], index)) for row in scores]
    assert rank(scores, targets).tolist() == [
        places.index(target) for places, target in zip(order, targets, strict=True)
    ]


def test_a_model_that_answers_one_figure_for_all_is_right_by_index_only(colours: LabelledImages) -> None:
    result = run(lambda batches: (np.full((len(batch), 7), 0.5, np.float32) for batch in batches), colours)
    assert result.top1 == 1 / 7
    assert result.top5 == 5 / 7


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_is_symmetric_and_holds_the_share(trials: int, share: float) -> None:
    successes = round(share * trials)
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = wilson(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)
    assert high - low < 4 / math.sqrt(trials)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_never_an_answer(colours: LabelledImages, value: float) -> None:
    def broken(batches: Iterable[Pixels]) -> Iterator[Floats]:
        for number, rows in enumerate(ideal(batches)):
            if number == 2:
                rows[1, 3] = value
            yield rows

    with pytest.raises(EdgenetError, match=r"^model\.tflite: answers NaN or infinity.*convert the model again$"):
        run(broken, colours, batch_size=8)


def test_minus_infinity_is_a_score_like_another(colours: LabelledImages) -> None:
    def logs(batches: Iterable[Pixels]) -> Iterator[Floats]:
        for rows in ideal(batches):
            yield np.where(rows < 0.2, -np.inf, np.log(rows)).astype(np.float32)

    assert run(logs, colours).top1 == 49 / 70


def test_answers_must_fit_the_images_and_the_labels(colours: LabelledImages) -> None:
    with pytest.raises(EdgenetError, match=r"answers 8 classes and the labels name 7; give this model's own labels"):
        run(lambda batches: (np.zeros((len(batch), 8), np.float32) for batch in batches), colours)
    with pytest.raises(EdgenetError, match=r"answers an array \[7\], not \[images, classes\]"):
        run(lambda batches: (np.zeros(7, np.float32) for _ in batches), colours)
    with pytest.raises(EdgenetError, match="answered 3 times for 70 images"):
        run(lambda batches: (np.zeros((1, 7), np.float32) for _ in batches), colours)
    with pytest.raises(EdgenetError, match="answered 100 times for 70 images"):
        run(lambda batches: (np.zeros((100, 7), np.float32) for _ in batches), colours)


def test_a_bad_image_ends_the_evaluation(colours: LabelledImages) -> None:
    colours.files[33].write_bytes(b"")
    with pytest.raises(ImageError, match=r"kind3/3\.png: empty"):
        run(ideal, colours, batch_size=8)
