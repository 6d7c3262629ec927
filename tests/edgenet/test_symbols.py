"""The embedded default: its pictures, its cards, its weights and their record."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from edgenet import training
from edgenet.errors import EdgenetError, UsageError
from edgenet.spec import ModelSpec
from edgenet.symbols import embedded
from edgenet.symbols.cards import page, write_cards
from edgenet.symbols.generate import SIZE, batch, render, write_folder
from edgenet.symbols.glyphs import GLYPHS, LABELS, mask

GOLDEN_MEANS = [114.92, 80.75, 127.26, 36.0, 97.43, 113.93, 110.99, 93.03, 55.94, 100.51, 102.8, 131.44]


def _coverage(index: int, edge: int = 64, turn: float = 0) -> np.ndarray:
    image = mask(index, edge).rotate(turn, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64) / 255


def test_labels_are_about_twenty_sorted_and_no_numbers() -> None:
    assert 18 <= len(LABELS) <= 24
    assert list(LABELS) == sorted(set(LABELS))  # a reader that sorts class folders finds the same indices
    assert not any(label.isdigit() for label in LABELS)  # a folder "2" would read as index 2


def test_no_two_symbols_look_alike_even_turned_by_fifteen_degrees() -> None:
    plain = [_coverage(i) for i in range(len(LABELS))]
    turned = [[_coverage(i, turn=t) for t in (-15, 0, 15)] for i in range(len(LABELS))]
    for i in range(len(LABELS)):
        for j in range(len(LABELS)):
            if i != j:
                overlap = max(np.minimum(plain[i], t).sum() / np.maximum(plain[i], t).sum() for t in turned[j])
                assert overlap < 0.85, (LABELS[i], LABELS[j])


def test_symbols_leave_no_ink_outside_their_square() -> None:
    for glyph in GLYPHS:
        points = [(x, y, 0.0) for shape in glyph.shapes for x, y in shape]
        points += [(x, y, glyph.pen / 2) for stroke in glyph.strokes for x, y in stroke]
        assert all(r <= x <= 1 - r and r <= y <= 1 - r for x, y, r in points), glyph.label


def test_same_seed_same_bytes_other_seed_other_picture() -> None:
    for index in range(len(LABELS)):
        first = render(index, 5)
        assert first.dtype == np.uint8
        assert first.shape == (SIZE, SIZE, 3)
        assert (first == render(index, 5)).all()
        assert (first != render(index, 6)).mean() > 0.5
    assert render(0, 5, size=160).shape == (160, 160, 3)


def test_golden_brightness_of_the_stream() -> None:
    """Each picture's mean brightness, as first released: the shipped figures hold for these pictures only."""
    pictures, labels = batch(12, seed=2)
    assert labels.tolist() == list(range(12))
    # Means, not a hash: versions of Pillow, and processors with fused multiply-add, differ in single pixels.
    assert pictures.mean(axis=(1, 2, 3)).tolist() == pytest.approx(GOLDEN_MEANS, abs=0.2)


def test_stretches_of_one_stream_join() -> None:
    whole, labels = batch(30, seed=9)
    tail, tail_labels = batch(10, seed=9, start=20)
    assert (whole[20:] == tail).all()
    assert (labels[20:] == tail_labels).all()
    threaded, threaded_labels = training.generate(30, 9, lambda _: None)
    assert (whole == threaded).all()
    assert (labels == threaded_labels).all()


def test_pictures_vary_in_brightness_and_place() -> None:
    pictures = np.stack([render(LABELS.index("circle"), seed) for seed in range(60)])
    means = pictures.mean(axis=(1, 2, 3))
    assert means.std() > 20
    assert np.ptp(means) > 100


def test_write_folder_holds_the_stream(tmp_path: Path) -> None:
    paths = write_folder(tmp_path / "data", per_class=2, seed=3)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == sorted(LABELS)
    pictures, labels = batch(2 * len(LABELS), seed=3)
    for path, picture, label in zip(paths, pictures, labels, strict=True):
        assert path.parent.name == LABELS[label]
        assert (np.asarray(Image.open(path)) == picture).all()


def test_cards(tmp_path: Path) -> None:
    pdf = write_cards(tmp_path / "new" / "cards.pdf")
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert b"/MediaBox [ 0 0 595." in pdf.read_bytes()  # A4 in points
    png = write_cards(tmp_path / "cards.PNG")
    with Image.open(png) as image:
        assert image.size == page().size == (1654, 2339)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cards.PNG", "new"]  # no draft left
    with pytest.raises(UsageError, match=r"\.pdf"):
        write_cards(tmp_path / "cards.docx")
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgenetError, match="cannot write"):
        write_cards(tmp_path / "file" / "cards.pdf")


def test_cards_carry_every_symbol() -> None:
    ink = (np.asarray(page()) < 60).sum()
    edge = round(34 / 25.4 * 200)
    expected = sum(_coverage(i, edge).sum() for i in range(len(LABELS)))
    assert ink == pytest.approx(expected, rel=0.02)


def test_the_record_describes_the_shipped_file() -> None:
    record = embedded.record()
    path = embedded.weights_path()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.weights_sha256
    assert path.stat().st_size == record.weights_bytes <= 2_000_000
    assert record.labels == LABELS
    assert record.model == embedded.SPEC.name == "mobilenet_v2_0.35_96"
    assert record.seed != record.test_seed
    assert record.top1 >= 0.97


def test_the_shipped_weights_took_less_than_twenty_minutes() -> None:
    """The recorded wall time, as it was: a run on a busy machine has to be repeated on a quiet one."""
    assert embedded.record().seconds < 20 * 60


def test_shipped_weights_know_an_unseen_seed() -> None:
    from edgenet.nets.build import build
    from edgenet.nets.train import probabilities

    model = build(embedded.SPEC)
    model.load_weights(embedded.weights_path())
    pictures, labels = batch(500, seed=20_001)
    scores = probabilities(model, pictures)
    assert scores.shape == (500, len(LABELS))
    assert scores.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert (scores.argmax(axis=1) == labels).mean() >= 0.97


def test_shipped_weights_know_the_printed_cards() -> None:
    from edgenet.nets.build import build
    from edgenet.nets.train import probabilities

    sheet = page()
    width, height = round(48 / 25.4 * 200), round(55 / 25.4 * 200)
    left, top = (sheet.width - 4 * width) // 2, (sheet.height - 5 * height) // 2
    cards = []
    for index in range(len(LABELS)):
        x, y = left + index % 4 * width, top + index // 4 * height
        crop = sheet.crop((x, y + (height - width) // 2 - 20, x + width, y + (height + width) // 2 - 20))
        cards.append(np.asarray(crop.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)))
    model = build(embedded.SPEC)
    model.load_weights(embedded.weights_path())
    answers = [LABELS[i] for i in probabilities(model, np.stack(cards)).argmax(axis=1)]
    assert answers == list(LABELS)


def test_a_small_run_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of another network, traced once; how well the full run learns, the shipped weights show."""
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(keras.Model, "train_step", lambda model, data: traced.append(1) or step(model, data))
    monkeypatch.setattr(
        training, "SPEC", ModelSpec("mobilenet_v1", variant="shallow", alpha=0.25, size=SIZE, classes=len(LABELS))
    )
    seen: list[training.Progress] = []
    record = training.train(
        tmp_path / "out", seed=7, images=128, epochs=1, test_seed=8, test_images=40, progress=seen.append
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["symbols.json", "symbols.weights.h5"]
    weights = tmp_path / "out" / "symbols.weights.h5"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record.weights_sha256
    assert json.loads((tmp_path / "out" / "symbols.json").read_text())["weights_sha256"] == record.weights_sha256
    assert record.command == "edgenet train symbols --seed 7 --images 128 --epochs 1"
    assert [p.done for p in seen if p.phase == "train"] == [1]
    assert len(traced) == 1  # tracing takes seconds


def test_training_refuses_its_test_seed_and_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(EdgenetError, match="test seed"):
        training.train(tmp_path, seed=2, test_seed=2)
    with pytest.raises(EdgenetError, match="too little"):
        training.train(tmp_path, images=3)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgenetError, match="cannot write"):
        training.train(tmp_path / "file" / "out")
