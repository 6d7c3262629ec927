"""Networks that nobody quantized before, for benchmarks/int8.py --symbols: trained here on the symbols' pictures.

    python benchmarks/int8_symbols.py FAMILY OUT [--start WEIGHTS]

Published weights may have been through 8 bits once, and lose little when they go there again; these have not. OUT is
the .weights.h5 to write. --start: weights of the same family, whose last layer is left out; without it training begins
at random weights. Some minutes each on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from edgenet.nets import train
from edgenet.nets.normalization import INPUT_RANGES
from edgenet.spec import ModelSpec
from edgenet.symbols.generate import SIZE, write_folder
from edgenet.symbols.glyphs import LABELS
from edgenet.training import generate

TRAINING_SEED, VALIDATION_SEED = 11, 12
CALIBRATION_PER_CLASS = 10
VALIDATION_PER_CLASS = 500
"""Of 20 classes: .3 points can be told from none on 10,000 pictures (+-.11), on 2,000 they cannot (+-.26)."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class Course:
    """How one network is trained.

    Attributes:
        images: distinct training pictures.
        stages: of a random start; from other weights only their epochs count, all at full size.
    """

    images: int
    stages: tuple[train.Stage, ...]

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)


COURSES = {
    "mobilenet_v3_small": Course(6_000, (train.Stage(SIZE, 5, 1e-3),)),
    "mobilenet_v3_large": Course(12_000, (train.Stage(64, 5, 3e-3), train.Stage(SIZE, 2, 1e-3))),
}


def spec(family: str) -> ModelSpec:
    """Describe the network that is trained."""
    return ModelSpec(family, size=SIZE, classes=len(LABELS))  # type: ignore[arg-type]


def weights_name(family: str) -> str:
    """Name the weights' file; another course has another name, so that a cache never answers with old weights."""
    course = COURSES[family]
    return f"{spec(family).name}_{course.images}x{course.epochs}.weights.h5"


def folders(cache: Path) -> tuple[Path, Path]:
    """Return the folders of calibration pictures (the first of training) and of validation pictures, made once."""
    made = []
    for seed, per_class in ((TRAINING_SEED, CALIBRATION_PER_CLASS), (VALIDATION_SEED, VALIDATION_PER_CLASS)):
        folder = cache / f"pictures_{seed}_{per_class}"
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".pictures-") as partial:
                write_folder(Path(partial) / "whole", per_class, seed)
                (Path(partial) / "whole").rename(folder)
        made.append(folder)
    return made[0], made[1]


def fine_tune(family: str, start: Path, pictures: np.ndarray, truth: np.ndarray) -> Any:
    """Train a network that begins at other weights of its family, with a last layer of its own."""
    import keras
    import tensorflow as tf

    from edgenet.nets.build import build
    from edgenet.nets.network import open_network

    course = COURSES[family]
    keras.utils.set_random_seed(TRAINING_SEED)
    model = build(spec(family))
    known = open_network(f"{family}_1.0_224", weights=str(start)).core
    layers = [layer for layer in model.layers if layer.weights]
    sources = [layer for layer in known.layers if layer.weights]
    for layer, source in zip(layers[:-1], sources[:-1], strict=True):
        layer.set_weights(source.get_weights())
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.95  # V3's own 0.999 would still hold ImageNet's statistics at the end
    scale, offset = INPUT_RANGES["-1..1"]
    batches = (
        tf.data.Dataset.from_tensor_slices((pictures, truth))
        .shuffle(len(pictures), seed=TRAINING_SEED)
        .batch(BATCH, drop_remainder=True)
        .map(lambda images, classes: (tf.cast(images, tf.float32) * scale + offset, classes))
        .prefetch(2)
    )
    rate = keras.optimizers.schedules.CosineDecay(course.stages[0].peak_rate, course.epochs * len(batches))
    model.compile(
        keras.optimizers.AdamW(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA's convolutions are six times slower on a CPU
    )
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: report(train.Epoch(epoch + 1, course.epochs, logs["loss"], logs["accuracy"]))
    )
    model.fit(batches, epochs=course.epochs, verbose=0, callbacks=[tell], shuffle=False)
    return model


def report(epoch: train.Epoch) -> None:
    """Say on stderr how far training is."""
    print(f"epoch {epoch.number} of {epoch.total}: top-1 {epoch.accuracy:.1%} in training", file=sys.stderr)


def main() -> int:
    """Train one network and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=COURSES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path)
    options = parser.parse_args()
    course = COURSES[options.family]
    began = time.perf_counter()
    pictures, truth = generate(course.images, TRAINING_SEED, lambda _: None)
    print(f"{course.images} pictures generated in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.start:
        model = fine_tune(options.family, options.start, pictures, truth)
    else:
        model = train.fit(
            spec(options.family), pictures, truth, course.stages, TRAINING_SEED, batch=BATCH, on_epoch=report
        )
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=".train-") as folder:
        whole = Path(folder) / "whole.weights.h5"
        model.save_weights(whole)
        whole.replace(options.out)
    print(f"{options.out.name} trained in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
