"""Training from scratch: short, on a CPU, on pictures that lie in memory.

Small pictures first, then full ones: a MobileNet's weights do not depend on the input size, and an epoch at 64 pixels
costs less than half of one at 96.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgenet.nets.build import build
from edgenet.nets.normalization import INPUT_RANGES
from edgenet.spec import ModelSpec

if TYPE_CHECKING:
    import keras

# The papers' 0.99-0.999 averages over thousands of steps; a run of a few hundred would end with statistics of its past.
_BATCH_NORM_MOMENTUM = 0.95


_SCALE, _OFFSET = INPUT_RANGES["-1..1"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Some epochs at one input size; the rate rises for a twentieth of them, then falls to 0 as a cosine."""

    size: int  # pixels
    epochs: int
    peak_rate: float  # AdamW


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to, for a progress display."""

    number: int  # from 1, over all stages
    total: int
    loss: float
    accuracy: float  # top-1 on the training pictures, 0..1


def require_keras() -> None:
    """Find out before pictures are made that what trains on them is missing: ModuleNotFoundError."""
    import keras  # noqa: F401


def fit(
    spec: ModelSpec,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    stages: tuple[Stage, ...],
    seed: int,
    batch: int = 64,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> keras.Model:
    """Train `spec` from random weights on uint8 RGB images [n, size, size, 3] with labels int64 [n] in 0..classes-1.

    Answers the model at spec.size: float32 -1..1 in, probabilities out. The same seed gives the same course on one
    machine, up to the order in which threads add.
    """
    import keras

    keras.utils.set_random_seed(seed)
    total = sum(stage.epochs for stage in stages)
    done = 0
    model: Any = None
    for stage in stages:
        staged = build(replace(spec, size=stage.size))
        if model is not None:
            staged.set_weights(model.get_weights())
        model = staged
        _fit_stage(
            model, stage, _batches(images, labels, spec.classes, batch, stage.size, seed + done), done, total, on_epoch
        )
        done += stage.epochs
    final = build(spec)
    final.set_weights(model.get_weights())
    return final


def _fit_stage(
    model: Any, stage: Stage, batches: Any, done: int, total: int, on_epoch: Callable[[Epoch], None] | None
) -> None:
    import keras

    steps = stage.epochs * len(batches)
    warmup = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        stage.peak_rate / 20, max(1, steps - warmup), warmup_target=stage.peak_rate, warmup_steps=warmup
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _BATCH_NORM_MOMENTUM
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        jit_compile=False,  # XLA's convolutions are six times slower on a CPU
    )
    model.optimizer.build(model.trainable_variables)  # TensorFlow traces a step twice that makes its own variables

    def tell(epoch: int, logs: dict[str, float]) -> None:
        if on_epoch is not None:
            on_epoch(Epoch(done + epoch + 1, total, float(logs["loss"]), float(logs["accuracy"])))

    report = keras.callbacks.LambdaCallback(on_epoch_end=tell)
    model.fit(batches, epochs=stage.epochs, verbose=0, callbacks=[report], shuffle=False)


def _batches(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int, batch: int, size: int, seed: int
) -> Any:
    """Shuffled batches as Keras takes them, float32 -1..1 and one-hot; the last, smaller one is left out."""
    import keras
    import tensorflow as tf

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng(seed)
            self.order = self.rng.permutation(len(images))

        def __len__(self) -> int:
            return max(1, len(images) // batch)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            rows = self.order[index * batch : (index + 1) * batch]
            # Nothing here hangs on colour, and a permutation of the channels is a new picture for nothing.
            pixels = images[rows][..., self.rng.permutation(3)]
            if size != images.shape[1]:
                with tf.device("CPU"):
                    pixels = tf.image.resize(pixels, (size, size), method="area").numpy()
            x = np.asarray(pixels, np.float32) * np.float32(_SCALE) + np.float32(_OFFSET)
            return x, np.eye(classes, dtype=np.float32)[labels[rows]]

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(images))

    return Batches()


def probabilities(model: keras.Model, images: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
    """The model's answers float32 [n, classes] for uint8 RGB images [n, size, size, 3]."""
    parts = []
    for start in range(0, len(images), batch):
        x = np.asarray(images[start : start + batch], np.float32)
        x = x * np.float32(_SCALE) + np.float32(_OFFSET)
        parts.append(np.asarray(model(x, training=False), np.float32))
    return np.concatenate(parts)
