"""Folders of images: which files, what hash, and batches of model inputs decoded ahead of their use.

What the class folders of a labelled data set mean is `edgenet.labels`' business.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from devices.machine import at_once
from edgenet.errors import EdgenetError
from edgenet.image import SUFFIXES, Pixels, Preprocessing, load
from edgenet.labels import Labels, class_indices, read_labels

UNREAD = (".avif", ".heic", ".heif", ".jp2", ".jxl")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images and the class each belongs to."""

    files: tuple[Path, ...]
    targets: npt.NDArray[np.int64]  # [images], index into classes
    classes: tuple[str, ...]  # what the model answers, in its order


def image_files(root: Path | str, limit: int | None = None, seed: int = 0) -> tuple[Path, ...]:
    """Return the image files below a folder, sorted by their path, at most `limit` of them.

    Known by suffix, whatever its case; hidden files and folders are left out (macOS puts "._x.jpg" beside x.jpg). A
    limit takes one file at random (by seed) from each of `limit` equal stretches of the sorted list: the same files on
    every machine, spread evenly over the folders. Raises EdgenetError if there is no image.
    """
    root = Path(root)
    files = [root / name for name in _walk(root)]
    if not files:
        raise EdgenetError(f"{root}: no image in this folder; known suffixes: {' '.join(SUFFIXES)}")
    return tuple(files[i] for i in _spread(len(files), limit, seed))


def left_out(root: Path | str) -> tuple[Path, ...]:
    """Return the pictures below a folder that are of kinds nobody here reads: phones' HEIC, AVIF, JPEG XL."""
    return tuple(Path(root) / name for name in _walk(Path(root), UNREAD))


def labelled(
    root: Path | str,
    labels: Sequence[str] | Labels,
    classes_csv: Path | str | None = None,
    limit: int | None = None,
) -> LabelledImages:
    """Return the images of a folder of class folders with the index of each one's class.

    labels: what the model answers, in order (1000, or 1001 with "background", or any other list). The class folders are
    named by wnid (n and 8 digits), by label text or by index; `edgenet.labels.class_indices` says how they are matched.
    classes_csv: a table of index, wnid, name; without it, a classes.csv in the folder or its parent is used if there is
    one. limit: as in image_files. Raises EdgenetError if a folder matches no label, or more than one.
    """
    root = Path(root)
    wanted = labels if isinstance(labels, Labels) else Labels(tuple(labels), None)
    names = _walk(root)
    loose = [name for name in names if "/" not in name]
    if loose:
        raise EdgenetError(f"{root}: {loose[0]} lies outside any class folder; sort the images into one folder a class")
    if not names:
        raise EdgenetError(f"{root}: no image in any class folder; known suffixes: {' '.join(SUFFIXES)}")
    folders = sorted({name.split("/", 1)[0] for name in names})
    index_of = class_indices(folders, wanted, _table(root, classes_csv), root)
    chosen = [names[i] for i in _spread(len(names), limit, seed=0)]
    targets = np.array([index_of[name.split("/", 1)[0]] for name in chosen], np.int64)
    return LabelledImages(tuple(root / name for name in chosen), targets, wanted.names)


def fingerprint(files: Sequence[Path]) -> str:
    """Return one sha256 of the contents of files: of their sorted sha256 digests, so names and order do not count."""
    digests = []
    for file in files:
        try:
            digests.append(hashlib.sha256(file.read_bytes()).digest())
        except OSError as exc:
            raise EdgenetError(f"{file}: cannot be read ({exc.strerror}); check the file") from exc
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def batches(
    files: Sequence[Path], prep: Preprocessing, batch_size: int, workers: int | None = None
) -> Generator[Pixels, None, None]:
    """Decode and fit images in a pool of threads; yield uint8 [n, height, width, 3] in order, the last maybe smaller.

    While the caller works on one batch the next is decoded (Pillow frees the GIL); at most two batches and two images a
    worker are ahead, so memory stays bounded. workers: threads, all cores by default. Raises ImageError for the first
    image, in order, that cannot be used; leaving early cancels what has not begun.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise EdgenetError(f"batches of {batch_size} images by {workers} threads cannot be; give 1 or more of each")
    threads = workers or at_once()
    ahead = 2 * batch_size + 2 * threads
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        queue: deque[Future[Pixels]] = deque()
        upcoming = iter(files)
        while True:
            queue.extend(pool.submit(load, file, prep) for file in islice(upcoming, ahead - len(queue)))
            if not queue:
                return
            yield np.stack([queue.popleft().result() for _ in range(min(batch_size, len(queue)))])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _walk(root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Return the image files below root as posix paths relative to it, sorted by code point on every system."""
    if not root.is_dir():
        raise EdgenetError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; give a folder of images")
    found: list[str] = []

    def refuse(exc: OSError) -> None:
        raise EdgenetError(f"{exc.filename}: cannot be listed ({exc.strerror}); check its permissions") from exc

    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        inner[:] = [name for name in inner if name[0] != "." and not _leads_back(here / name, root)]
        for name in files:
            if name[0] != "." and name.lower().endswith(suffixes):
                found.append((here / name).relative_to(root).as_posix())
    return sorted(found)


def _leads_back(folder: Path, root: Path) -> bool:
    """Tell whether a folder is a link to one that we came through: following it would never end."""
    if not folder.is_symlink():
        return False
    through = [parent for parent in folder.parents if parent == root or root in parent.parents]
    return folder.resolve() in (parent.resolve() for parent in through)


def _spread(count: int, limit: int | None, seed: int) -> list[int]:
    """Return up to `limit` increasing indices below count: one from each of `limit` equal stretches, by seed."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise EdgenetError(f"a limit of {limit} images leaves none; give 1 or more")
    draw = random.Random(seed).random  # of all of random, this alone is promised never to change
    starts = [i * count // limit for i in range(limit + 1)]
    return [lo + int(draw() * (hi - lo)) for lo, hi in pairwise(starts)]


def _table(root: Path, classes_csv: Path | str | None) -> Labels | None:
    """Return the wnid table: the one given, or the one beside the data, or none."""
    if classes_csv is not None:
        table = read_labels(classes_csv)
        if table.wnids is None:
            raise EdgenetError(f"{classes_csv}: has no wnids; give a .csv with the columns index, wnid, name")
        return table
    for folder in (root, root.resolve().parent):
        if (folder / "classes.csv").is_file():
            try:
                table = read_labels(folder / "classes.csv")
            except EdgenetError:
                if any(re.fullmatch(r"n[0-9]{8}", one.name) for one in root.iterdir()):  # it is needed
                    raise
                return None  # somebody else's
            return table if table.wnids else None
    return None
