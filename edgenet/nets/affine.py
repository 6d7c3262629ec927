"""What a classifier eats and answers, read from its graph: normalisation at the front, softmax at the end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenet.errors import EdgenetError

if TYPE_CHECKING:
    import keras

# Layers that change nothing once training is over. Called directly, Keras 3's Random* layers are active unless told
# otherwise, and `export` calls them directly: left in, they make a converted model's answers random.
_IDLE = (
    "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization",
    "Identity", "AugMix", "CutMix", "MixUp",
)  # fmt: skip
_CALLS = 100  # functions within functions in a SavedModel; they cannot call themselves, a damaged file can
_KEPT_RANDOM = ("RandomCrop",)  # centre crop at inference
_SAME_VALUES = ("Reshape", "Flatten", "Squeeze", "Identity", "Cast")
_FARTHEST = 256.0  # no network is normalized to values beyond those of the bytes themselves
_SUM = 1e-3  # how far from 1 probabilities may add up, in any precision of floats


@dataclass(frozen=True, slots=True)
class Affine:
    """A model whose input normalisation is known: model(x) == core(x * scale + offset).

    Attributes:
        scale: see above.
        offset: see above.
        core: the rest of the model.
        farthest: the largest magnitude to which it normalizes one of the bytes 0..255.
    """

    scale: float
    offset: float
    core: keras.Model
    farthest: float

    @property
    def takes_bytes(self) -> bool:
        """Whether x is 0..255; otherwise pixels are scaled once more before this model sees them."""
        return self.farthest <= _FARTHEST


def flatten(model: keras.Model) -> keras.Model:
    """Return the same function as one functional model: no nested models, nothing that only training uses.

    The layers are shared with `model`, whose layers may be renamed where two nested models use the same name.
    """
    import keras

    names: set[str] = set()

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Model):
            # The graph inside of a Sequential or functional model; Keras has no public way to walk it.
            inner = keras.Model(operation.inputs, operation.outputs)
            answers = inner._run_through_graph(args[0] if len(inner.inputs) == 1 else args, lambda op: op, call)
            return answers[0] if len(inner.outputs) == 1 else answers
        if is_idle(operation):
            return args[0]
        if operation.name in names and operation not in seen:
            operation.name = _fresh(operation.name, names)
        names.add(operation.name)
        seen.append(operation)
        kwargs.pop("training", None)
        kwargs.pop("mask", None)
        return operation(*args, **kwargs)

    seen: list[Any] = []
    source = model.inputs[0]
    image = keras.Input(batch_shape=source.shape, dtype=source.dtype, name="image")
    names.add("image")
    output = call(model, image)
    return keras.Model(image, output, name=model.name)


def _fresh(name: str, names: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in names:
        number += 1
    return f"{name}_{number}"


def is_idle(operation: Any) -> bool:
    """Say whether a layer returns its input once training is over."""
    name = type(operation).__name__
    if name.startswith("Rand") and type(operation).__module__.startswith("keras.") and name not in _KEPT_RANDOM:
        return True
    if name == "Activation":
        return getattr(operation.activation, "__name__", "") == "linear"
    return name in _IDLE


def input_affine(model: keras.Model) -> Affine | None:
    """Return how pixels enter `model`; None where it does not say.

    A Rescaling (or `x / 127.5 - 1`) directly behind the input is taken out of the graph and told as scale and offset. A
    normalisation that cannot be taken out (one per channel, Normalization, or one behind a Resizing) stays inside:
    scale 1, offset 0. A model without any normalisation gives None, and one that would take bytes far beyond any
    network's values takes other pixels than bytes (`Affine.takes_bytes`): the caller has to ask.
    """
    import keras

    flat = flatten(model)
    tensor, scale, offset, found = flat.inputs[0], 1.0, 0.0, False
    while (step := _only_consumer(flat, tensor)) is not None:
        operation, result, arguments = step
        pair = _affine_of(operation, arguments)
        if pair is None:
            break
        found = True
        scale, offset = scale * pair[0], offset * pair[0] + pair[1]
        tensor = result
    if found and tensor is not flat.outputs[0]:
        return Affine(scale, offset, keras.Model(tensor, flat.outputs[0], name=flat.name), _farthest(scale, offset))
    inside = _normalises_inside(flat)
    return None if inside is None else Affine(1.0, 0.0, flat, inside)


def _only_consumer(model: keras.Model, tensor: Any) -> tuple[Any, Any, Any] | None:
    """Return (operation, its output, its arguments) where exactly one operation of the model eats `tensor`."""
    found = []
    for operation in model.operations:
        for node in operation._inbound_nodes:
            if any(source is tensor for source in node.input_tensors) and node in _nodes(model):
                found.append((operation, node.output_tensors[0], node.arguments))
    return found[0] if len(found) == 1 else None


def _nodes(model: keras.Model) -> list[Any]:
    """Return the calls that belong to the model; its layers may have been called elsewhere as well."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def _affine_of(operation: Any, arguments: Any) -> tuple[float, float] | None:
    """Return (scale, offset) of an operation that maps each number x to x * scale + offset, the same for all."""
    name = type(operation).__name__
    if name == "Rescaling":
        if isinstance(operation.scale, (int, float)) and isinstance(operation.offset, (int, float)):
            return float(operation.scale), float(operation.offset)
        return None
    if not type(operation).__module__.startswith("keras.src.ops."):
        return None
    args = arguments.args
    if len(args) != 2 or not isinstance(args[1], (int, float)) or args[1] == 0:
        return None
    number = float(args[1])
    known = {
        "TrueDivide": (1 / number, 0.0),
        "Divide": (1 / number, 0.0),
        "Multiply": (number, 0.0),
        "Add": (1.0, number),
        "Subtract": (1.0, -number),
    }
    return known.get(name)


def _normalises_inside(model: keras.Model) -> float | None:
    """Say how far what normalises before the first layer with weights takes a byte; None where nothing does."""
    tensor = model.inputs[0]
    while (step := _only_consumer(model, tensor)) is not None:
        operation, tensor, arguments = step
        name = type(operation).__name__
        if name == "Rescaling":
            return _farthest(operation.scale, operation.offset)
        if name == "Normalization" and operation.mean is not None:
            spread = np.maximum(np.sqrt(np.asarray(operation.variance)), 1e-7)
            return _farthest(1 / spread, -np.asarray(operation.mean) / spread)
        if (pair := _affine_of(operation, arguments)) is not None:
            return _farthest(*pair)
        if getattr(operation, "weights", None):
            return None
    return None


def _farthest(scale: Any, offset: Any) -> float:
    """Return the largest magnitude of level * scale + offset over the levels 0..255."""
    ends = np.stack(np.broadcast_arrays(np.asarray(offset), 255 * np.asarray(scale) + np.asarray(offset)))
    return float(np.abs(ends).max())


def answers_probabilities(model: keras.Model) -> bool:
    """Say whether the last operation of `model` is a softmax or a sigmoid."""
    return _last_activation(flatten(model)) in ("softmax", "sigmoid")


def _last_activation(flat: keras.Model) -> str:
    """Return the name of the activation that ends the graph; shape changes and a clip behind it do not count."""
    operation = _before(flat.outputs[0], (*_SAME_VALUES, "Clip"))._keras_history.operation
    name = type(operation).__name__
    if name in ("Softmax", "Sigmoid"):
        return name.lower()
    if name == "TFSMLayer":
        return _last_graph_operation(operation.call_endpoint_fn)
    activation = getattr(operation, "activation", None)
    if type(activation).__name__ == "Softmax":  # the layer itself as an activation
        return "softmax"
    return str(getattr(activation, "__name__", "linear"))


def _before(tensor: Any, kinds: Collection[str]) -> Any:
    """Go back from a tensor through operations of these kinds."""
    while type(tensor._keras_history.operation).__name__ in kinds:
        tensor = _input(tensor)
    return tensor


def _input(tensor: Any) -> Any:
    """Return what the operation that made a tensor reads first."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]


def _last_graph_operation(function: Any) -> str:
    """Return "softmax", "sigmoid" or "linear": what a TensorFlow function with one output ends in."""
    graph = function.graph.as_graph_def()
    library = {item.signature.name: item for item in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    node, calls = nodes.get(function.outputs[0].op.name), 0
    while node is not None:
        if node.op in ("Softmax", "Sigmoid"):
            return str(node.op.lower())
        if node.op in ("PartitionedCall", "StatefulPartitionedCall") and calls < _CALLS:
            body = library[node.attr["f"].func.name]
            calls += 1
            nodes = {item.name: item for item in body.node_def}
            # A function whose first output is not the only one would need the index; a classifier's is.
            source = body.ret[body.signature.output_arg[0].name]
        elif node.op in ("Identity", "IdentityN", "Reshape", "Squeeze", "Cast") and node.input:
            source = node.input[0]
        else:
            break
        node = nodes.get(source.split(":")[0])
    return "linear"


def as_classifier(core: keras.Model) -> keras.Model:
    """Return `core` flattened and ending in one probability per class: [n, h, w, 3] -> [n, classes].

    Logits get a softmax. A model with one output, the probability p (or the logit) of "yes", becomes two classes,
    [1 - p, p]: its labels are those of no and yes, in this order.

    Raises:
        EdgenetError: one output that can be no probability.
    """
    import keras

    flat = flatten(core)
    (output,) = flat.outputs
    last = _last_activation(flat)
    if output.shape[-1] == 1:
        if last == "softmax":
            raise EdgenetError("the model has one output behind a softmax, which always answers 1: give it two classes")
        if last not in ("sigmoid", "linear"):
            raise EdgenetError(f"the model has one output behind {last}: edgenet takes classifiers, not regressions")
        return _no_and_yes(flat, last == "sigmoid")
    if last in ("softmax", "sigmoid") or _adds_up_to_one(flat):
        return flat
    return keras.Model(flat.inputs[0], keras.layers.Softmax(name="edgenet_softmax")(output), name=flat.name)


def _adds_up_to_one(flat: keras.Model) -> bool:
    """Say whether all answers to some noise are probabilities: of an average of softmaxes, say. Logits are none."""
    noise = np.random.default_rng(0).random((2, *flat.inputs[0].shape[1:]), np.float32)
    for pixels in (noise, 2 * noise - 1, 255 * noise):
        answer = np.asarray(flat(pixels.astype(flat.inputs[0].dtype), training=False), np.float32)
        if not (np.all(answer >= 0) and np.all(np.abs(answer.sum(axis=1) - 1) <= _SUM)):
            return False
    return True


def _no_and_yes(flat: keras.Model, sigmoid: bool) -> keras.Model:
    """End a model with one output z in softmax([-z/2, z/2]), which is [1 - sigmoid(z), sigmoid(z)].

    A dense layer that answers z becomes one of two units, so that int8 files have logits here as of any classifier: of
    a p in 8 bits, all that is nearly certain would be 0 or 1.
    """
    import keras

    dense, tensor = keras.layers.Dense, _before(flat.outputs[0], (*_SAME_VALUES, "Clip") if sigmoid else _SAME_VALUES)
    last = tensor._keras_history.operation
    if sigmoid and not isinstance(last, dense):
        if type(last).__name__ not in ("Activation", "Sigmoid"):  # a convolution's own, or inside a SavedModel
            no = keras.layers.Rescaling(-1.0, 1.0, name="edgenet_no")(flat.outputs[0])
            output = keras.layers.Concatenate(name="edgenet_no_yes")([no, flat.outputs[0]])
            return keras.Model(flat.inputs[0], output, name=flat.name)
        tensor, sigmoid = _before(_input(tensor), _SAME_VALUES), False
        last = tensor._keras_history.operation
    kernel, bias = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    if isinstance(last, dense) and (sigmoid or last.activation is keras.activations.linear):
        tensor, kernel = _input(tensor), np.asarray(last.kernel)
        bias = np.asarray(last.bias) if last.use_bias else bias
    if len(tensor.shape) > 2:
        tensor = keras.layers.Flatten(name="edgenet_row")(tensor)
    logits = keras.layers.Dense(2, name="edgenet_no_yes")
    output = keras.layers.Softmax(name="edgenet_softmax")(logits(tensor))
    logits.set_weights([np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2])
    return keras.Model(flat.inputs[0], output, name=flat.name)
