from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenet import dataset
from edgenet.dataset import batches, fingerprint, image_files
from edgenet.errors import EdgenetError
from edgenet.image import ImageError, Preprocessing

PREP = Preprocessing(8, 8)


def picture(file: Path, colour: tuple[int, int, int] = (1, 2, 3)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(file)
    return file


# image_files


def test_files_are_sorted_recursive_and_known_by_suffix(tmp_path: Path) -> None:
    for name in ("b/z.JPG", "a.png", "B.Png", "b/c/d.TIFF", "é.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("notes.txt", "._a.png", ".hidden/x.png", "png", "b/classes.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)]
    assert names == ["B.Png", "a.png", "b/c/d.TIFF", "b/z.JPG", "é.webp"]


@pytest.mark.parametrize("back", ["to the root", "to another link's folder"])
def test_linked_folders_are_followed_but_never_in_a_circle(tmp_path: Path, back: str) -> None:
    picture(tmp_path / "far" / "x.png")
    root = tmp_path / "root"
    picture(root / "a" / "y.png")
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    target = root if back == "to the root" else tmp_path / "far"
    (tmp_path / "far" / "again").symlink_to(target, target_is_directory=True)
    names = [file.relative_to(root).as_posix() for file in image_files(root)]
    assert names == ["a/y.png", "link/x.png"]


def test_a_folder_without_images_names_the_suffixes(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(EdgenetError, match=r"no image in this folder; known suffixes: \.bmp \.gif .*\.webp$"):
        image_files(tmp_path)
    with pytest.raises(EdgenetError, match="no such folder"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(EdgenetError, match="not a folder"):
        image_files(tmp_path / "readme.txt")


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 5))
def test_a_limit_takes_one_from_each_stretch(count: int, limit: int, seed: int) -> None:
    chosen = dataset._spread(count, limit, seed)
    assert chosen == dataset._spread(count, limit, seed)
    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < count
    if limit < count:
        assert max(np.diff([-1, *chosen, count])) <= 2 * -(-count // limit)  # no gap wider than two stretches


def test_the_chosen_subset_never_changes(tmp_path: Path) -> None:
    """Figures are compared between machines and versions: a limit must mean the same images for ever."""
    assert dataset._spread(100, 5, 0) == [16, 35, 48, 65, 90]
    assert dataset._spread(100, 5, 1) == [2, 36, 55, 65, 89]
    for index in range(10):
        (tmp_path / f"{index}.png").touch()
    assert [file.stem for file in image_files(tmp_path, limit=3)] == ["2", "5", "7"]
    with pytest.raises(EdgenetError, match="limit of 0"):
        image_files(tmp_path, limit=0)


# fingerprint


def test_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{index}.png", (index, 0, 0)) for index in range(3)]
    first = fingerprint(files)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert fingerprint(files[::-1]) == first
    files[0].rename(tmp_path / "z.png")
    assert fingerprint([tmp_path / "z.png", *files[1:]]) == first
    assert fingerprint(files[1:]) != first
    assert fingerprint([*files[1:], files[1]]) != first
    with pytest.raises(EdgenetError, match="cannot be read"):
        fingerprint(files)


# batches


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 30), size=st.integers(1, 9), workers=st.integers(1, 4))
def test_batches_come_in_order(tmp_path_factory: pytest.TempPathFactory, count: int, size: int, workers: int) -> None:
    root = tmp_path_factory.getbasetemp() / "batches"
    files = [root / f"{index}.png" for index in range(count)]
    for index, file in enumerate(files):
        if not file.exists():
            picture(file, (index, 255 - index, 7))
    made = list(batches(files, PREP, size, workers))
    assert [len(batch) for batch in made] == [size] * (count // size) + [count % size] * (count % size > 0)
    pixels = [tuple(image[4, 4]) for batch in made for image in batch]
    assert pixels == [(index, 255 - index, 7) for index in range(count)]
    assert all(batch.dtype == np.uint8 and batch.shape[1:] == (8, 8, 3) for batch in made)


def test_look_ahead_is_bounded_and_ahead(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    asked = 0

    class Counting(list[Path]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal asked
            for item in super().__iter__():
                asked += 1
                yield item

    stream = batches(Counting([file] * 1000), PREP, 4, workers=2)
    assert asked == 0
    next(stream)
    assert 8 <= asked <= 12
    next(stream)
    assert 12 <= asked <= 16
    before = threading.active_count()
    stream.close()
    assert threading.active_count() == before - 2
    assert asked <= 16


def test_decoding_goes_on_while_the_caller_works(tmp_path: Path) -> None:
    """The next batch is ready when asked for: it comes faster than decoding it would take."""
    file = tmp_path / "large.png"
    Image.effect_noise((1200, 1000), 80).save(file)
    began = time.perf_counter()
    stream = batches([file] * 12, PREP, 4, workers=2)
    next(stream)
    cold = time.perf_counter() - began
    time.sleep(3 * cold)
    began = time.perf_counter()
    next(stream)
    assert time.perf_counter() - began < cold / 3


def test_a_bad_image_is_named_in_its_turn(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{index}.png") for index in range(9)]
    files[6].write_bytes(b"GIF89a")
    stream = batches(files, PREP, 3, workers=3)
    assert len(next(stream)) == 3
    assert len(next(stream)) == 3
    with pytest.raises(ImageError, match=r"6\.png: "):
        next(stream)


def test_senseless_batches_are_refused() -> None:
    for size, workers in ((0, 1), (1, 0)):
        with pytest.raises(EdgenetError, match="give 1 or more"):
            next(batches([], PREP, size, workers))
