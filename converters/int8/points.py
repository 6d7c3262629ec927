"""Which tensors of a Keras network a file stores as integers: found by their values, not by their names.

Converters fuse, rename and reorder. But a float file answers what the Keras network answers, tensor by tensor: so both
are run on the same images, and tensors that hold the same numbers are the same tensor. What a converter has fused away
is found nowhere, and is not quantized there either.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import graph

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-3
"""Of a tensor's largest value: other orders of float additions differ by 1e-5, other tensors by far more."""

PROBES = 3
"""Images that tensors are compared on; on one alone, a gate that is open for every channel changes nothing."""

Names = Mapping[int, tuple[str, ...]]
"""Position of a Keras node -> names of the file's tensors that hold what it answers."""


def tflite_values(flatbuffer: bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run a float TFLite graph on float images [n, h, w, 3]; return every tensor it computes, in order, [n, ...]."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that all tensors are kept: that is the point
        model = Interpreter(model_content=flatbuffer, experimental_preserve_all_tensors=True)
    model.allocate_tensors()
    details = {tensor["index"]: tensor for tensor in model.get_tensor_details()}
    steps = [op for op in model._get_ops_details() if op["op_name"] != "DELEGATE"]
    read = {i for op in steps for i in op["inputs"]} | {one["index"] for one in model.get_output_details()}
    produced = [i for op in steps for i in op["outputs"] if i in read]  # what nobody reads is kept nowhere
    produced = [i for i in produced if i in details and details[i]["dtype"] == np.float32]  # a loop's may be none: -1
    seen: dict[int, list[np.ndarray]] = {i: [] for i in produced}
    for image in x:
        model.set_tensor(model.get_input_details()[0]["index"], image[np.newaxis])
        model.invoke()
        for i in produced:
            seen[i].append(model.get_tensor(i).copy())
    return {details[i]["name"]: np.stack(arrays) for i, arrays in seen.items()}


def match(core: keras.Model, x: np.ndarray, values: Mapping[str, np.ndarray]) -> Names:
    """Find the Keras node behind each tensor of a file.

    Args:
        core: a folded network.
        x: the float images [n, h, w, 3] that the values come from.
        values: of the file's tensors, [n, ...] each, channels last; dead channels at the end of the last axis and axes
            of length 1 do not matter.

    Returns:
        Names by position in graph.nodes(core). A node that only moves values shares its names with what it moves.
    """
    steps, found = graph.nodes(core), graph.readers(core)
    position = {id(node): i for i, node in enumerate(steps)}
    flat = {name: _pixels(value) for name, value in values.items()}
    claimed: dict[str, int] = {}
    origin: dict[int, int] = {}  # of a tensor: the position of the node that computed its values

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        y = node.operation(*args, **kwargs)
        own = position[id(node)]
        if graph.added_constant(node) is not None and _before_relu(found, node):
            return y  # a converter makes it part of a bias; where the ReLU changes nothing, the tensor is the ReLU's
        root = origin.get(id(node.input_tensors[0]), own) if graph.moves_only(node.operation) else own
        origin[id(node.outputs[0])] = root
        wanted = _pixels(np.asarray(y))
        names = [name for name, value in flat.items() if _equal(wanted, value)]
        fresh = [name for name in names if name not in claimed]
        # Equal tensors are claimed in the order in which both compute them; a move takes what it moves along.
        for name in fresh if root != own else fresh[:1]:
            claimed[name] = root
        return y

    import keras

    graph.run(core, keras.ops.convert_to_tensor(x), call)
    names_of: dict[int, tuple[str, ...]] = {}
    for name, root in claimed.items():
        names_of[root] = (*names_of.get(root, ()), name)
    return names_of


def _before_relu(found: dict[int, list[Any]], node: Any) -> bool:
    reader = graph.only_reader(found, node)
    return reader is not None and graph.activation(reader.operation) in ("relu", "relu6")


def _pixels(value: np.ndarray) -> np.ndarray:
    """Reshape to [n, pixels, channels]."""
    return value.reshape(len(value), -1, value.shape[-1] if value.ndim > 1 else 1)


def _equal(keras_value: np.ndarray, value: np.ndarray) -> bool:
    channels = keras_value.shape[2]
    if value.shape[:2] != keras_value.shape[:2] or value.shape[2] < channels:
        return False
    limit = TOLERANCE * max(float(np.abs(keras_value[:, :1]).max()), 1e-6)
    close = np.abs(value[:, :1, :channels] - keras_value[:, :1]).max() <= limit  # a look at one pixel spares the rest
    limit = TOLERANCE * max(float(np.abs(keras_value).max()), 1e-6)
    return bool(close and np.abs(value[:, :, :channels] - keras_value).max() <= limit)
