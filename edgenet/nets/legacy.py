"""Configurations of older Keras versions, made fit for Keras 3.

Keras 3 reads most Keras 2 files and trips over the rest: DepthwiseConv2D's `groups`, nested models, slashes in names,
TensorFlow operations used as layers (`x / 127.5 - 1` in a functional model becomes a TFOpLambda).
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError

Json = Any

_MODELS = ("Functional", "Model", "Sequential")
_SEEDED = (
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness"),
    *("RandomCrop", "RandomHeight", "RandomWidth"),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
)
_DROPPED: dict[str, tuple[str, ...]] = {  # arguments that Keras 3 does not know and that change no answer
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups",),
    "BatchNormalization": ("fused", "renorm", "renorm_clipping", "renorm_momentum", "virtual_batch_size", "adjustment"),
    "InputLayer": ("ragged",),
    "Lambda": ("module", "function_type", "output_shape_type", "output_shape_module"),
    **dict.fromkeys(_SEEDED, ("rng_type", "force_generator")),
}
_SCALE = {
    "math.multiply": 1,
    "__operators__.mul": 1,
    "math.truediv": -1,
    "math.divide": -1,
    "__operators__.truediv": -1,
}
_SHIFT = {"math.add": 1, "__operators__.add": 1, "math.subtract": -1, "__operators__.sub": -1}
_MERGE = {"math.multiply": "Multiply", "__operators__.mul": "Multiply", "math.add": "Add", "__operators__.add": "Add"}


def modernize(path: Path, config: dict[str, Json]) -> dict[str, Json]:
    """Return `config` rewritten for Keras 3's deserializer; what is modern already stays as it is.

    Raises:
        EdgenetError: a layer class or TensorFlow operation that cannot be told in Keras 3's layers.
    """
    if not isinstance(config.get("class_name"), str):
        raise EdgenetError(f"{path} is damaged: its model configuration names no class. Save the model again")
    try:
        return _layer(path, config)
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError, ValueError) as exc:
        raise EdgenetError(f"{path} is damaged: its model configuration is incomplete ({exc!r})") from exc


def _layer(path: Path, item: dict[str, Json]) -> dict[str, Json]:
    """Return one layer's (or model's) configuration, rewritten."""
    import keras

    item = {key: value for key, value in item.items() if key != "compile_config"}
    name, inner = item["class_name"], item["config"]
    if name == "Sequential" and isinstance(inner, list):  # Keras before 2.2.3
        inner = {"name": "sequential", "layers": inner}
    if not isinstance(inner, dict):
        return item
    inner = dict(inner)
    module, registered = item.get("module"), item.get("registered_name")
    if (
        module is None
        and isinstance(registered, str)
        and not registered.lower().startswith("keras>")
        and ">" in registered
    ):
        raise _custom(path, inner.get("name") or name, name)  # though it may have the name of one of Keras' own
    old = module is None or not str(module).startswith("keras.") or _keras2(item, inner)
    if "dtype" in inner:
        inner["dtype"] = _dtype(inner["dtype"])
    if isinstance(inner.get("name"), str):
        inner["name"] = plain_name(inner["name"])
    if isinstance(item.get("name"), str):
        item["name"] = plain_name(item["name"])
    if old:
        item = _old_layer(path, item, inner)
        name, inner = item["class_name"], item["config"]
        if "trainable" not in inner and (operations := _operations_module(name)):
            item["module"] = operations  # `x / 127.5` in Keras 3, as its .h5 files write it
        elif item["module"] == "keras.layers" and not hasattr(keras.layers, name):
            raise _custom(path, inner.get("name") or name, name)
    if name in _MODELS and isinstance(inner.get("layers"), list):
        inner["layers"] = [_layer(path, layer) for layer in inner["layers"]]
        _link(name, inner)
    item["config"] = inner
    return item


def _custom(path: Path, layer: str, kind: str) -> EdgenetError:
    return EdgenetError(
        f"{path}: its layer {layer!r} is a custom class, {kind}, whose code is not in the "
        "file; export the model (model.export or model.save to a folder) and give that SavedModel folder"
    )


def _operations_module(name: str) -> str | None:
    """Return the module of a Keras 3 operation such as TrueDivide; they are part of no public module."""
    for part in ("numpy", "nn", "math", "core", "image"):
        module = f"keras.src.ops.{part}"
        if isinstance(vars(importlib.import_module(module)).get(name), type):
            return module
    return None


def _keras2(item: dict[str, Json], inner: dict[str, Json]) -> bool:
    """Tell a Keras 2 layer whose module has the same name in Keras 3."""
    return (
        "batch_input_shape" in inner
        or item["class_name"] in _DROPPED
        or "engine" in str(item.get("module"))
        or item["class_name"] == "TFOpLambda"
    )


def plain_name(name: str) -> str:
    """Keras 3 has no slashes in layer names ("Conv/BatchNorm" in Keras 2's MobileNetV3)."""
    return name.replace("/", "_")


def _dtype(policy: Json) -> Json:
    """Mixed precision is a matter of training: a mixed policy becomes float32, the precision of its weights."""
    name = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    if isinstance(name, str) and name.startswith("mixed_"):
        return "float32"
    return policy if not isinstance(policy, dict) or "module" in policy else name


def _old_layer(path: Path, item: dict[str, Json], inner: dict[str, Json]) -> dict[str, Json]:
    name = item["class_name"]
    for key in _DROPPED.get(name, ()):
        inner.pop(key, None)
    shape = inner.pop("batch_input_shape", None)
    if name == "InputLayer" and shape is not None:
        inner["batch_shape"] = shape
    if name == "BatchNormalization" and isinstance(inner.get("axis"), list):
        inner["axis"] = inner["axis"][0]
    if name in _MODELS:
        layers = inner.get("layers")
        if name == "Sequential" and layers and layers[0].get("class_name") != "InputLayer":
            first = layers[0].get("config", {}).get("batch_input_shape")
            if first is not None:
                inner["layers"] = [_input_layer(f"{inner.get('name', 'sequential')}_input", first), *layers]
        item["class_name"] = "Sequential" if name == "Sequential" else "Model"
    item["module"] = "keras.models" if name in _MODELS else "keras.layers"
    item["registered_name"] = None
    item["config"] = inner
    if name == "TFOpLambda":
        _operation(path, item)
    if name == "Lambda" and isinstance(inner.get("function"), list):  # reached with --trust only
        code, defaults, closure = inner["function"]
        function = {"code": code, "defaults": defaults, "closure": closure}
        inner["function"] = {"class_name": "__lambda__", "config": function}
    return item


def _input_layer(name: str, shape: Json) -> dict[str, Json]:
    return {
        "class_name": "InputLayer",
        "config": {"name": name, "batch_shape": shape, "dtype": "float32"},
        "module": "keras.layers",
        "registered_name": None,
    }


def _operation(path: Path, item: dict[str, Json]) -> None:
    """Turn a TensorFlow operation into Rescaling (a tensor and a number) or a merge layer (two tensors)."""
    inner, nodes = item["config"], item["inbound_nodes"]
    function, name = inner["function"], inner["name"]
    source, node, tensor, arguments = nodes[0]
    other = arguments.get("y")
    turned = source == "_CONSTANT_VALUE" and isinstance(other, list)  # `2 * x`: the number comes first
    if turned:
        (source, node, tensor), other = other[:3], tensor
    # Only layers say whether they are trainable: without it, Add would be taken for Keras 3's operation of this name.
    item["config"] = {"name": name, "trainable": True, "dtype": inner.get("dtype", "float32")}
    item["inbound_nodes"] = [[[source, node, tensor, {}]]]
    number = isinstance(other, (int, float)) and len(nodes) == 1
    if number and function in _SCALE and not (turned and _SCALE[function] < 0):
        item["class_name"] = "Rescaling"
        item["config"] |= {"scale": float(other) ** _SCALE[function], "offset": 0.0}
    elif number and function in _SHIFT:
        item["class_name"] = "Rescaling"
        sign = _SHIFT[function]
        scale, offset = (float(sign), float(other)) if turned else (1.0, float(other) * sign)
        item["config"] |= {"scale": scale, "offset": offset}
    elif isinstance(other, list) and isinstance(other[0], str) and function in _MERGE and len(nodes) == 1:
        item["class_name"] = _MERGE[function]
        item["inbound_nodes"] = [[[source, node, tensor, {}], [*other[:3], {}]]]
    else:
        raise EdgenetError(
            f"{path}: its layer {name!r} is the TensorFlow operation tf.{function}, which Keras 3 cannot rebuild; "
            "give the model as a SavedModel folder (model.save to a folder, with the Keras it was made with)"
        )


def _link(name: str, inner: dict[str, Json]) -> None:
    """Mend what a functional model says about the connections between its layers."""
    if name == "Sequential":
        return
    # A nested model with an input layer of its own was node 0 in Keras 2, and its first call node 1; in Keras 3 node 0.
    nested = {
        layer["config"]["name"]: layer["class_name"]
        for layer in inner["layers"]
        if layer["class_name"] in _MODELS and _begins_with_input(layer)
    }

    def tensor(ref: list[Json], shifted: Collection[str]) -> list[Json]:
        source = plain_name(ref[0])
        return [source, ref[1] - 1 if source in shifted and ref[1] > 0 else ref[1], *ref[2:]]

    for layer in inner["layers"]:
        nodes = layer.get("inbound_nodes", [])  # lists of references in Keras 2, objects in Keras 3
        layer["inbound_nodes"] = [
            [tensor(ref, nested) for ref in node] if isinstance(node, list) else node for node in nodes
        ]
    # For a functional model that ends in another, Keras 3 subtracts the 1 itself.
    shifted = [name for name, kind in nested.items() if kind == "Sequential"]
    for key in ("input_layers", "output_layers"):
        ends = inner[key]
        if ends and isinstance(ends[0], list):
            ends = [tensor(end, shifted) for end in ends]
            inner[key] = ends[0] if len(ends) == 1 else ends


def _begins_with_input(layer: dict[str, Json]) -> bool:
    layers = layer["config"].get("layers")
    return bool(layers) and layers[0]["class_name"] == "InputLayer"
