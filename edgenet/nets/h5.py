"""The .h5 layout of Keras 1 and 2 (Keras 3 still writes it): read by layer, set by name.

Keras 2 stored the weights of a frozen nested model in another order than Keras 3 expects, and equal shapes hide the
mistake (gamma for moving_mean): so weights of whole models are set by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgenet.errors import EdgenetError
from edgenet.nets.legacy import plain_name

if TYPE_CHECKING:
    import keras
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    NamedArray: TypeAlias = tuple[str, Array]
    SavedLayer: TypeAlias = tuple[str, list[NamedArray]]


def read_legacy(group: Any) -> list[SavedLayer]:
    """Return (layer, [(weight name, values), ...]) in the file's order from the HDF5 group that holds the weights."""
    import numpy as np

    return [
        (name, [(weight, np.asarray(group[name][weight])) for weight in names_in(group[name], "weight_names")])
        for name in names_in(group, "layer_names")
    ]


def names_in(group: Any, attribute: str) -> list[str]:
    """Return a list of names that Keras stored as an attribute of an HDF5 group, in pieces when it is long."""
    if attribute in group.attrs:
        pieces = [group.attrs[attribute]]
    else:
        pieces = []
        while f"{attribute}{len(pieces)}" in group.attrs:
            pieces.append(group.attrs[f"{attribute}{len(pieces)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for piece in pieces for name in piece]


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, those of nested models in their place."""
    import keras

    if isinstance(layer, keras.Model) and layer.layers:
        for child in layer.layers:
            yield from leaves(child)
    else:
        yield layer


def set_by_name(path: Path, model: keras.Model, saved: list[SavedLayer]) -> None:
    """Set every weight of `model` from `saved`: (top layer, [(weight name, values), ...]) in the file's order.

    Raises:
        EdgenetError: a layer without weights in the file, or weights of another shape.
    """
    tops = {layer.name: layer for layer in model.layers}
    done: set[str] = set()
    for name, weights in saved:
        if not weights:
            continue
        top = tops.get(plain_name(name))
        if top is None:
            raise EdgenetError(f"{path} is damaged: it holds weights for a layer {name!r} that its model lacks")
        found = [leaf for leaf in leaves(top) if leaf.weights]
        for leaf, values in _by_leaf(path, name, found, weights):
            _set(path, leaf, values)
            done.add(leaf.path)
    for leaf in leaves(model):
        if leaf.weights and leaf.path not in done:
            raise EdgenetError(f"{path} is damaged: it holds no weights for layer {leaf.name!r}. Save the model again")


def _by_leaf(
    path: Path, top: str, found: list[keras.layers.Layer], weights: list[NamedArray]
) -> Iterator[tuple[keras.layers.Layer, list[NamedArray]]]:
    """Group the weights of one top layer by the leaf they belong to."""
    if len(found) == 1:
        yield found[0], weights
        return
    names = [leaf.name for leaf in found]
    if len(set(names)) != len(names):
        raise EdgenetError(f"{path}: two layers inside {top!r} have the same name; save it as .keras or a SavedModel")
    groups: dict[str, list[NamedArray]] = {name: [] for name in names}
    for name, values in weights:
        # "conv1/kernel:0", "model/conv1/kernel", "Conv/BatchNorm/gamma:0": the longest ending that is a layer's name.
        parts = name.split("/")[:-1]
        tails = ["_".join(parts[start:]) for start in range(len(parts))]
        owner = next((tail for tail in tails if tail in groups), None)
        if owner is None:
            raise EdgenetError(f"{path} is damaged: no layer inside {top!r} owns its weight {name!r}")
        groups[owner].append((name, values))
    for leaf in found:
        yield leaf, groups[leaf.name]


def _set(path: Path, leaf: keras.layers.Layer, values: list[NamedArray]) -> None:
    """Set one layer's weights, by their own names where these are known, otherwise in order."""
    own = {_weight_name(name): array for name, array in values}
    variables = list(leaf.weights)
    if all(variable.name in own for variable in variables):
        arrays = [own[variable.name] for variable in variables]
    else:
        arrays = [array for _, array in values]
    found = [tuple(array.shape) for array in arrays]
    expected = [tuple(variable.shape) for variable in variables]
    if found != expected:
        raise EdgenetError(f"{path} is damaged: layer {leaf.name!r} needs weights {expected}, the file holds {found}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    if hasattr(leaf, "finalize_state"):  # Normalization computes with copies of its weights
        leaf.finalize_state()


def _weight_name(path: str) -> str:
    return re.sub(r":\d+$", "", path.rsplit("/", 1)[-1])
