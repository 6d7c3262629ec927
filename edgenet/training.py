"""Trains the embedded default and records how."""

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from devices.machine import at_once, cores
from edgenet.appearing import appearing
from edgenet.errors import EdgenetError, UsageError
from edgenet.nets import train as nets
from edgenet.symbols.embedded import RECORD_NAME, SPEC, WEIGHTS_NAME, Confusion, TrainingRecord
from edgenet.symbols.generate import SIZE, batch
from edgenet.symbols.glyphs import LABELS

if TYPE_CHECKING:
    import keras

_CHUNK = 500  # pictures a thread makes at a time
_SMALL = 64  # pixels of the first stage
_TOOLS = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "pillow", "h5py")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training run is."""

    phase: Literal["generate", "train", "test"]
    done: int  # pictures, or epochs in the phase "train"
    total: int
    accuracy: float | None = None  # top-1 on the training pictures in the last epoch


def train(
    out: Path,
    seed: int = 1,
    images: int = 24_000,
    epochs: int = 14,
    test_seed: int = 2,
    test_images: int = 4_000,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingRecord:
    """Train the symbols' classifier from scratch; writes symbols.weights.h5 and symbols.json into the folder `out`.

    Raises:
        UsageError: the test seed is the training seed, or there is nothing to train on.
        EdgenetError: `out` cannot be written.
    """
    if seed == test_seed:
        raise UsageError(f"seed {seed} is the test seed too: choose another --seed, else the test proves nothing")
    if images < len(LABELS) or test_images < 1 or epochs < 1:
        raise UsageError(f"too little to train on: give at least {len(LABELS)} images and 1 epoch")
    nets.require_keras()
    _check_writable(out)
    tell = progress or (lambda _: None)
    start, cpu_start = time.monotonic(), time.process_time()
    pictures, truth = generate(images, seed, lambda done: tell(Progress("generate", done, images)))
    small = epochs * 4 // 7
    stages = (nets.Stage(_SMALL, small, 3e-3), nets.Stage(SIZE, epochs - small, 2e-3))
    model = nets.fit(
        SPEC,
        pictures,
        truth,
        tuple(stage for stage in stages if stage.epochs),
        seed,
        on_epoch=lambda epoch: tell(Progress("train", epoch.number, epoch.total, epoch.accuracy)),
    )
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start
    del pictures
    test, test_truth = generate(test_images, test_seed, lambda done: tell(Progress("test", done, test_images)))
    answers = nets.probabilities(model, test).argmax(axis=1)
    result = TrainingRecord(
        command=f"edgenet train symbols --seed {seed} --images {images} --epochs {epochs}",
        model=SPEC.name,
        labels=LABELS,
        seed=seed,
        images=images,
        epochs=epochs,
        seconds=round(seconds, 1),
        cpu_seconds=round(cpu_seconds, 1),
        cores=cores(),
        test_seed=test_seed,
        test_images=test_images,
        top1=float((answers == test_truth).mean()),
        worst=_worst(answers, test_truth),
        weights_bytes=0,
        weights_sha256="",
        tools=_versions(),
    )
    return _publish(model, result, out)


def generate(count: int, seed: int, progress: Callable[[int], None]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `count` pictures of the stream `seed`, as `batch` makes them, by one thread a core."""
    starts = range(0, count, _CHUNK)
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(count, np.int64)

    def fill(start: int) -> int:
        size = min(_CHUNK, count - start)
        pictures[start : start + size], labels[start : start + size] = batch(size, seed, start=start)
        return size

    done = 0
    with ThreadPoolExecutor(at_once()) as pool:
        for size in pool.map(fill, starts):
            done += size
            progress(done)
    return pictures, labels


def _worst(answers: NDArray[np.int64], truth: NDArray[np.int64]) -> Confusion | None:
    counts = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(counts, (truth, answers), 1)
    np.fill_diagonal(counts, 0)
    row, column = np.unravel_index(int(counts.argmax()), counts.shape)
    if not counts[row, column]:
        return None
    return Confusion(LABELS[row], LABELS[column], int(counts[row, column]))


def _versions() -> dict[str, str]:
    """Versions of what shaped the weights; of tensorflow and tensorflow-cpu only the one that is installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _compact(loose: Path, compact: Path) -> None:
    """The same groups and float32 arrays in HDF5's newer layout: 1.9 MB, where Keras' own writing takes 2.2."""
    import h5py

    with h5py.File(loose, "r") as source, h5py.File(compact, "w", libver=("v108", "v108")) as target:

        def put(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                target[name] = item[...]
            else:
                target.require_group(name).attrs.update(source[name].attrs)

        source.visititems(put)
        target.attrs.update(source.attrs)


def _check_writable(out: Path) -> None:
    """Find out before the minutes of training, not after them, that the folder takes no files."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as exc:
        raise EdgenetError(f"cannot write to {out}: {exc.strerror or exc}; give another -o") from exc


def _publish(model: "keras.Model", result: TrainingRecord, out: Path) -> TrainingRecord:
    """Put both files into place whole; the record last, so that it never describes weights that are not there."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".train-") as name, appearing(out / WEIGHTS_NAME) as weights:
        loose = Path(name) / "loose.weights.h5"
        model.save_weights(loose)
        _compact(loose, weights)
        data = weights.read_bytes()
    result = replace(result, weights_bytes=len(data), weights_sha256=hashlib.sha256(data).hexdigest())
    with appearing(out / RECORD_NAME) as record:
        record.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return result
