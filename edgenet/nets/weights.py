"""Weights of a published or trained network, set into the same network built here."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import socket
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.errors import EdgenetError
from edgenet.labels import Labels
from edgenet.nets.h5 import read_legacy
from edgenet.nets.load import brief, file_kind, one_line
from edgenet.nets.safety import check_archive, check_tree
from edgenet.spec import PUBLISHED_ALPHAS, PUBLISHED_SIZES, ModelSpec, published

if TYPE_CHECKING:
    import keras
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"  # as keras.applications checks it
_SILENCE_S = 15.0  # a server that says nothing for so long is not there
_OTHER_NETWORK = "is it another alpha, family or block?"


@dataclass(frozen=True, slots=True)
class _Saved:
    """The weights of one layer of a file, in the file's order. `kind` is Keras' snake-case class name, where told."""

    name: str
    kind: str
    arrays: tuple[Array, ...]


def load_weights(model: keras.Model, path: Path) -> None:
    """Set the weights in `path` into `model`, a flat network of the same layers in the same order.

    `path`: an .h5 file of any Keras (weights alone or a whole model), a .weights.h5 or a .keras file. A 1x1 convolution
    and a Dense of the same numbers are taken for each other. Nothing is set when anything does not fit.

    Raises:
        EdgenetError: missing, damaged, another network (names the layer, both shapes), or weights that are not finite.
    """
    import numpy as np

    saved = _read(path)
    layers = [layer for layer in model.layers if layer.weights]
    pairs = _pair(path, layers, saved)
    _check_classes(path, pairs)
    values: list[tuple[Any, Array]] = []
    for layer, source in pairs:
        expected = [tuple(variable.shape) for variable in layer.weights]
        found = [tuple(array.shape) for array in source.arrays]
        if [_squeezed(shape) for shape in found] != [_squeezed(shape) for shape in expected]:
            raise EdgenetError(
                f"{path} does not fit: its layer {source.name!r} holds {_shapes(found)}, "
                f"{layer.name!r} of {model.name} needs {_shapes(expected)}; {_OTHER_NETWORK}"
            )
        for array in source.arrays:
            if not np.isfinite(array).all():
                raise EdgenetError(f"{path} is unusable: weights of its layer {source.name!r} are not finite")
        values.extend(zip(layer.weights, source.arrays, strict=True))
    for variable, array in values:
        variable.assign(array.reshape(tuple(variable.shape)))


def classes_in(path: Path) -> int | None:
    """Return how many classes the last layer in a file of weights tells apart; None where the file has no classifier.

    Raises:
        EdgenetError: missing or damaged.
    """
    saved = [layer for layer in _read(path) if layer.arrays]
    if any(layer.kind for layer in saved):
        # No order between classes of layers: the classifier is the last Dense, in V1 and V3 the last convolution.
        for kind in ("dense", "conv2d"):
            if of_kind := [layer for layer in saved if layer.kind == kind]:
                saved = of_kind
                break
    if not saved:
        return None
    kernel, *others = saved[-1].arrays
    is_classifier = kernel.ndim in (2, 4) and len(others) <= 1 and (kernel.ndim == 2 or len(others) == 1)
    return int(kernel.shape[-1]) if is_classifier else None


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return " + ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)


def _check_classes(path: Path, pairs: list[tuple[keras.layers.Layer, _Saved]]) -> None:
    """Tell a wrong class count as what it is, when nothing but the last layer differs."""
    wrong = [
        (layer, source)
        for layer, source in pairs
        if [_squeezed(tuple(variable.shape)) for variable in layer.weights]
        != [_squeezed(array.shape) for array in source.arrays]
    ]
    if len(wrong) == 1 and wrong[0][0] is pairs[-1][0]:
        layer, source = wrong[0]
        found, expected = source.arrays[0].shape[-1], int(layer.weights[0].shape[-1])
        if found != expected:
            raise EdgenetError(
                f"{path} tells {found} classes apart, the network {expected} "
                f"(layer {layer.name!r}): say --classes {found}"
            )


def _pair(path: Path, layers: list[keras.layers.Layer], saved: list[_Saved]) -> list[tuple[keras.layers.Layer, _Saved]]:
    """Match layers with weights to the file's: by name, by class and count (Keras 3), or by order."""
    saved = [layer for layer in saved if layer.arrays]
    if len(saved) != len(layers):
        raise EdgenetError(
            f"{path} does not fit: it holds {len(saved)} layers with weights, "
            f"the network has {len(layers)}; {_OTHER_NETWORK}"
        )
    if not any(layer.kind for layer in saved):
        named = {layer.name: layer for layer in saved}
        if all(layer.name in named for layer in layers):
            return [(layer, named[layer.name]) for layer in layers]
        return list(zip(layers, saved, strict=True))
    queues: dict[str, list[_Saved]] = {}
    for source in saved:
        queues.setdefault(source.kind, []).append(source)
    pairs = []
    for layer in layers:
        queue = queues.get(_snake(type(layer).__name__))
        if not queue:
            raise EdgenetError(
                f"{path} does not fit: it holds no weights for {layer.name!r}, a {type(layer).__name__}; "
                f"{_OTHER_NETWORK}"
            )
        pairs.append((layer, queue.pop(0)))
    return pairs


def _snake(name: str) -> str:
    """Spell a class name as Keras 3 does in its files: DepthwiseConv2D -> depthwise_conv2d."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _read(path: Path) -> list[_Saved]:
    """Return the layers of a file of weights."""
    import h5py

    kind = file_kind(path)
    if kind == "folder":
        raise EdgenetError(f"{path} is a SavedModel: convert the folder itself, it holds its network")
    with one_line(path), _hdf5(path, kind) as real, h5py.File(real) as file:
        check_tree(path, file, real.stat().st_size)
        group = file.get("model_weights", file)
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            # Keras 1 and 2, and .h5 files of Keras 3: layers in topological order, weights in the layer's order.
            legacy = read_legacy(group)
            return [_Saved(name, "", tuple(array for _, array in arrays)) for name, arrays in legacy]
        for root in ("layers", "_layer_checkpoint_dependencies"):
            if root in group:
                return _read_modern(path, group[root])
    raise EdgenetError(f"{path} holds no Keras weights: save them again with model.save_weights")


@contextlib.contextmanager
def _hdf5(path: Path, kind: str) -> Iterator[Path]:
    """Yield the HDF5 file in question, unpacked from a .keras archive if need be."""
    if kind == "h5":
        yield path
        return
    check_archive(path)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        if "model.weights.h5" not in archive.namelist():
            raise EdgenetError(f"{path} is damaged: it holds no model.weights.h5. Save the model again")
        yield Path(archive.extract("model.weights.h5", folder))


def _read_modern(path: Path, group: Any) -> list[_Saved]:
    """Keras 3 and .keras files of Keras 2: groups named by class and count, in the order they were made."""
    import numpy as np

    found = []
    for name, layer in group.items():
        if "layers" in layer or "_layer_checkpoint_dependencies" in layer:
            raise EdgenetError(
                f"{path} holds nested models: it fits no published network; convert the .keras file itself"
            )
        if "vars" not in layer:
            continue
        arrays = tuple(np.asarray(layer["vars"][key]) for key in sorted(layer["vars"], key=int))
        kind, count = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore[union-attr]
        found.append((kind, int(count or 0), _Saved(name, kind, arrays)))
    return [saved for _, _, saved in sorted(found, key=lambda item: item[:2])]


def imagenet_weights(spec: ModelSpec) -> Path:
    """Return the file of ImageNet weights that Keras publishes for a network; download it on first use.

    Keras' own addresses, hashes and cache (~/.keras/models) are used; only V3's files have a published hash.

    Raises:
        EdgenetError: nothing published for this network, or no internet.

    Source: keras.applications.
    """
    address, file_hash = _published(spec)
    return _download(address, file_hash, "give --weights FILE or --weights none")


def imagenet_labels() -> Labels:
    """Return the names and WordNet ids of ImageNet's 1000 classes, which Keras publishes; download them on first use.

    Raises:
        EdgenetError: no internet.
    """
    source = importlib.import_module("keras.src.applications.imagenet_utils")
    file = _download(str(source.CLASS_INDEX_PATH), _CLASS_INDEX_MD5, "give --labels FILE")
    index = json.loads(file.read_text(encoding="utf-8"))
    rows = [index[str(number)] for number in range(len(index))]
    return Labels(tuple(name for _, name in rows), tuple(wnid for wnid, _ in rows))


def _download(address: str, file_hash: str | None, otherwise: str) -> Path:
    """Fetch a file that Keras publishes into Keras' own cache; from there, where it already is."""
    import keras

    name = address.rsplit("/", 1)[-1]
    silence = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            path = keras.utils.get_file(name, address, cache_subdir="models", file_hash=file_hash)
    except ValueError as exc:  # the hash is another one
        raise EdgenetError(f"{name} came damaged from the network: try again, or {otherwise}") from exc
    except Exception as exc:  # Keras raises no narrower one where the network fails
        reason = brief(exc).rsplit("-- ", 1)[-1]  # Keras puts the whole address in front
        raise EdgenetError(f"cannot download {name} ({reason}); {otherwise}") from exc
    finally:
        socket.setdefaulttimeout(silence)
    return Path(path)


def _published(spec: ModelSpec) -> tuple[str, str | None]:
    """Return (address, md5 or sha256 if published) of a file of ImageNet weights."""
    if spec.name not in {one.name for one in published()}:
        alphas = ", ".join(map(str, PUBLISHED_ALPHAS[spec.family]))
        sizes = ", ".join(map(str, PUBLISHED_SIZES[spec.family]))
        raise EdgenetError(
            f"Keras publishes no ImageNet weights for {spec.name}: there are alphas {alphas} and sizes {sizes}; "
            "give --weights FILE or --weights none"
        )
    # Keras' public face hides the addresses; its sources name them.
    module = {"mobilenet_v1": "mobilenet", "mobilenet_v2": "mobilenet_v2"}.get(spec.family, "mobilenet_v3")
    source = importlib.import_module(f"keras.src.applications.{module}")
    base = str(source.BASE_WEIGHT_PATH)
    if spec.family == "mobilenet_v1":
        text = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[spec.alpha]
        return f"{base}mobilenet_{text}_{spec.size}_tf.h5", None
    if spec.family == "mobilenet_v2":
        return f"{base}mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{spec.alpha}_{spec.size}.h5", None
    middle = "_minimalistic" if spec.variant else ""
    name = f"{spec.family.removeprefix('mobilenet_v3_')}{middle}_224_{spec.alpha}_float"
    return f"{base}weights_mobilenet_v3_{name}.h5", source.WEIGHTS_HASHES[name][0]
