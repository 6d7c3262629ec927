"""A Keras network as a list of nodes in order, and running it node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Call = Callable[..., Any]
"""call(node, *args, **kwargs) -> what the node answers."""


def nodes(core: keras.Model) -> list[Any]:
    """List the calls of a functional model's operations, each after those it reads; inputs are none of them."""
    by_depth = core._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def readers(core: keras.Model) -> dict[int, list[Any]]:
    """Map the id of each tensor to the nodes that read it."""
    found: dict[int, list[Any]] = {}
    for node in nodes(core):
        for tensor in node.input_tensors:
            found.setdefault(id(tensor), []).append(node)
    return found


def producers(core: keras.Model) -> dict[int, int]:
    """Map the id of each tensor that a node answers to the node's position."""
    return {id(tensor): i for i, node in enumerate(nodes(core)) for tensor in node.outputs}


def only_reader(found: dict[int, list[Any]], node: Any) -> Any | None:
    """Return the one node that reads a node's output; None where there are more or none."""
    following = found.get(id(node.outputs[0]), [])
    return following[0] if len(following) == 1 else None


def run(core: keras.Model, x: Any, call: Call) -> Any:
    """Run a network node by node, forgetting each tensor after its last reader: they are large."""
    import keras

    steps = nodes(core)
    left = Counter(id(tensor) for node in steps for tensor in node.input_tensors)
    tensors = {id(core.inputs[0]): x}
    for node in steps:
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = keras.tree.flatten(call(node, *args, **kwargs))
        tensors.update(zip((id(tensor) for tensor in node.outputs), outputs, strict=True))
        for tensor in node.input_tensors:
            left[id(tensor)] -= 1
            if not left[id(tensor)] and tensor is not core.outputs[0]:
                tensors.pop(id(tensor), None)
    return tensors[id(core.outputs[0])]


def called_once(core: keras.Model, operation: Any) -> bool:
    """Say whether an operation is called once in a network, so that its weights may be changed for that call."""
    return sum(node.operation is operation for node in nodes(core)) == 1


def weighted(operation: Any) -> bool:
    """Say whether an operation is a plain convolution, depthwise convolution or dense layer."""
    import keras

    return type(operation) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def depthwise(layer: Any) -> bool:
    """Say whether a weighted layer has a kernel of its own for each input channel."""
    import keras

    return isinstance(layer, keras.layers.DepthwiseConv2D)


def linear(layer: Any, x: Any, kernel: Any, bias: Any) -> Any:
    """Answer what a weighted layer without activation does, with another kernel and bias."""
    import keras

    if isinstance(layer, keras.layers.Dense):
        return keras.ops.matmul(x, kernel) + bias
    convolve = keras.ops.depthwise_conv if depthwise(layer) else keras.ops.conv
    return convolve(x, kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate) + bias


def moves_only(operation: Any) -> bool:
    """Say whether an operation only moves values, so that its output keeps its input's grid."""
    import keras

    kinds = (
        keras.layers.ZeroPadding2D,
        keras.layers.MaxPooling2D,
        keras.layers.GlobalMaxPooling2D,
        keras.layers.Permute,
    )
    return reshapes(operation) or isinstance(operation, kinds)


def reshapes(operation: Any) -> bool:
    """Say whether an operation gives the same values in the same order."""
    import keras

    kinds = (
        keras.layers.Reshape,
        keras.layers.Flatten,
        keras.layers.Dropout,
        keras.layers.SpatialDropout2D,
        keras.layers.Identity,
    )
    return isinstance(operation, kinds)


def activation(operation: Any) -> str:
    """Name an operation that is an activation ("relu", "relu6", "hard_swish", "softmax", ...); "" for any other."""
    import keras

    if isinstance(operation, keras.layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return {None: "relu", 6.0: "relu6"}.get(operation.max_value, "") if plain else ""
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    if isinstance(operation, keras.layers.Activation):
        name = getattr(operation.activation, "__name__", "")
        return {"hard_silu": "hard_swish", "linear": ""}.get(name, name)
    return {"Relu": "relu", "Relu6": "relu6", "HardSilu": "hard_swish"}.get(type(operation).__name__, "")


def added_constant(node: Any) -> float | None:
    """Return c where a node computes x + c with a plain number c; None for any other."""
    args = node.arguments.args
    plain = type(node.operation).__name__ == "Add" and len(args) == 2 and isinstance(args[1], float | int)
    return float(args[1]) if plain else None
