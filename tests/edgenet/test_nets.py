"""Our networks and keras.applications are one function: same weights in, same probabilities out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.errors import EdgenetError
from edgenet.spec import ModelSpec

CASES = [
    ("mobilenet_v1_1.0_128", {}),
    ("mobilenet_v1_0.25_33", {}),
    ("mobilenet_v1_0.37_97", {}),
    ("mobilenet_v2_0.35_96", {}),
    ("mobilenet_v2_1.0_65", {}),
    ("mobilenet_v2_1.4_32", {}),
    ("mobilenet_v3_small_1.0_96", {}),
    ("mobilenet_v3_small_0.5_127", {}),
    ("mobilenet_v3_small_1.5_33", {}),
    ("mobilenet_v3_large_0.75_64", {}),
    ("mobilenet_v3_large_1.0_99", {}),
    ("mobilenet_v3_small_minimalistic_0.75_45", {"minimalistic": True}),
    ("mobilenet_v3_large_minimalistic_1.25_64", {"minimalistic": True}),
]


def reference(spec: ModelSpec, options: dict[str, Any]) -> Any:
    """Keras' own network, without the Rescaling that its V3 puts in front."""
    import keras

    makers = {
        "mobilenet_v1": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
        "mobilenet_v3_small": keras.applications.MobileNetV3Small,
        "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    }
    if "v3" in spec.family:
        options = {**options, "include_preprocessing": False}
    shape = (spec.size, spec.size, 3)
    return makers[spec.family](input_shape=shape, alpha=spec.alpha, weights=None, classes=spec.classes, **options)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_same_function_as_keras_applications(name: str, options: dict[str, Any]) -> None:
    from edgenet.nets.build import build

    spec = ModelSpec.parse(name, classes=23)
    ours, theirs = build(spec), reference(spec, options)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    assert [w.path.split("/")[-1] for w in ours.weights] == [w.path.split("/")[-1] for w in theirs.weights]

    rng = np.random.default_rng(0)
    weights = [_plausible(w.path, w.shape, rng) for w in ours.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    images = rng.uniform(-1, 1, (2, spec.size, spec.size, 3)).astype(np.float32)
    answers, expected = np.asarray(ours(images)), np.asarray(theirs(images))
    assert np.ptp(expected) > 1e-3, "the network must discriminate, or equality says nothing"
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-6)


def test_weight_files_of_keras_applications_load(tmp_path: Any) -> None:
    from edgenet.nets.build import build

    spec = ModelSpec.parse("mobilenet_v3_small_1.0_64", classes=7)
    theirs = reference(spec, {})
    ours = build(spec)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_batches_of_all_sizes_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trace takes a second or more."""
    from edgenet.nets.network import open_network

    network = open_network("mobilenet_v1_0.25_32", weights="none", classes=3)
    call, traced = type(network.core).call, []
    monkeypatch.setattr(type(network.core), "call", lambda *args, **how: traced.append(1) or call(*args, **how))
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    (two, again, one), (all_,) = (list(network.scores(np.split(images, cuts))) for cuts in ([2, 4], []))
    np.testing.assert_allclose(np.concatenate([two, again, one]), all_, rtol=0, atol=1e-6)
    assert len(traced) == 2


def test_large_images_are_answered_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 of 2400x2400 ended the process inside of TensorFlow."""
    from edgenet.nets import network as module

    network = module.open_network("mobilenet_v1_0.25_32", weights="none", classes=3)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    (together,) = network.scores([images])
    run, sizes = module.np.asarray, []
    monkeypatch.setattr(module, "_PIXELS", 2 * 32 * 32)
    monkeypatch.setattr(module.np, "asarray", lambda rows: sizes.append(len(rows)) or run(rows))
    apart = list(network.scores([images, images[:0]]))
    assert sizes == [2, 2, 1]
    np.testing.assert_allclose(apart[0], together, rtol=0, atol=1e-6)
    assert apart[1].shape == (0, 3)


def test_what_does_not_run_is_one_line_and_too_little_memory_is_that() -> None:
    import keras
    import tensorflow as tf

    from edgenet.nets.network import open_network

    @keras.saving.register_keras_serializable("test")
    class Raising(keras.layers.Layer):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

        def call(self, x: Any) -> Any:
            raise self.error

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    network = open_network("mobilenet_v1_0.25_32", weights="none", classes=3)
    image = keras.Input((32, 32, 3))
    exhausted = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    for error, kind, words in (
        (ValueError("no such axis"), EdgenetError, r"does not run: .*no such axis"),
        (exhausted, MemoryError, "^$"),
    ):
        core = keras.Model(image, keras.layers.GlobalAveragePooling2D()(Raising(error)(image)))
        broken = dataclasses.replace(network, core=core)
        with pytest.raises(kind, match=words) as refused:
            list(broken.scores([np.zeros((1, 32, 32, 3), np.uint8)]))
        assert "\n" not in str(refused.value)


WEIGHTS = {
    "mobilenet_v1_0.25_224": ("mobilenet_v1_0.25_224.h5", 0.5),
    "mobilenet_v1_1.0_224": ("mobilenet_v1_1.0_224.weights.h5", 0.65),
    "mobilenet_v2_1.0_224": ("mobilenet_v2_1.0_224.weights.h5", 0.65),
    "mobilenet_v3_small_1.0_224": ("mobilenet_v3_small_1.0_224.weights.h5", 0.6),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_real_weights_load_and_name_real_photographs(data: Path, name: str) -> None:
    from edgenet.dataset import labelled
    from edgenet.image import Preprocessing
    from edgenet.labels import read_labels
    from edgenet.nets.network import open_network
    from edgenet.proof.evaluation import evaluate_network

    file, least = WEIGHTS[name]
    network = open_network(name, weights=str(data / "models" / file))
    photographs = labelled(data / "imagenet" / "validation", read_labels(data / "imagenet" / "classes.csv"), limit=60)
    result = evaluate_network(network, photographs, Preprocessing(224, 224), lambda *_: None)
    assert result.accuracy.top1 >= least


def test_v1_variants_have_the_layer_tables_parameters() -> None:
    from edgenet.layers import parameters
    from edgenet.nets.build import build

    for name in ("mobilenet_v1_standard_0.25_64", "mobilenet_v1_shallow_0.5_64"):
        spec = ModelSpec.parse(name, classes=11)
        assert build(spec).count_params() == parameters(spec)


def test_a_network_is_built_again_from_what_it_was_built_from_or_not_at_all(tmp_path: Path) -> None:
    from edgenet.nets.network import open_network, reopen

    drawn = open_network("mobilenet_v1_0.25_32", weights="none", classes=3)
    again = reopen(drawn.source)
    assert again.source == drawn.source
    for ours, theirs in zip(drawn.core.get_weights(), again.core.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    file = tmp_path / "trained.weights.h5"
    drawn.core.save_weights(file)
    source = open_network("mobilenet_v1_0.25_32", weights=str(file)).source
    assert (source.classes, source.weights) == (3, str(file))
    assert reopen(source).source == source
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(EdgenetError, match=r"trained\.weights\.h5 has changed since this file was made from it"):
        reopen(source)
    file.unlink()
    with pytest.raises(EdgenetError, match=r"trained\.weights\.h5 is gone, which this file was made from"):
        reopen(source)
    symbols = dataclasses.replace(open_network("symbols").source, weights_sha256="0" * 64)
    with pytest.raises(EdgenetError, match="the symbols weights of symbols are others than this file was made from"):
        reopen(symbols)


def _plausible(path: str, shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Weights that keep activations near unit variance, so that the outputs differ between classes."""
    if path.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if path.endswith(("beta", "moving_mean", "bias")):
        return rng.normal(0, 0.2, shape).astype(np.float32)
    fan_in = int(np.prod(shape[:2])) if "dw" in path or "depthwise" in path else int(np.prod(shape[:-1]))
    return rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
