"""Copies of the channels whose rounding costs most, in channels that hold nothing, each rounded a part of a step apart.

A channel that is stored n times, each time with another part of a step added, is rounded to n levels where it had one:
what reads all n of them, with an n-th of the weight each, sees a rounding error an n-th as large. Networks have
channels to spare: some hold one value whatever the image, which training left behind or regularized away; and kernels
compute TILE channels at a time, whether there are as many or not. So it costs next to nothing, and no float: integers
stay integers, the same in every runtime.

Idle is what no image can change: bounds go through the network channel by channel, from a pixel's 256 levels on.

Source: channels twice as in Zhao et al. 2019, Improving Neural Network Quantization without Retraining using Outlier
Channel Splitting (arXiv 1901.09504), there to halve outliers; parts of a step as in dithering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import STEPS
from converters.int8.simulator import Simulator, State, Weights

if TYPE_CHECKING:
    import keras

TILE = 16
"""Channels that the int8 kernels of XNNPACK and ONNX Runtime compute at a time."""

STILL = 0.01
"""Of a step: a channel that moves less is idle."""


Bounds = tuple[np.ndarray, np.ndarray]
"""Least and largest value of each channel."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A layer, a depthwise and a pointwise one in a row, a ReLU after each of the first two, and no other reader.

    Attributes:
        layer: name of the convolution that answers the channels.
        first: position of its ReLU.
        depthwise: name of the layer that reads them one by one.
        second: position of its ReLU.
        reader: name of the pointwise convolution that reads them all.
    """

    layer: str
    first: int
    depthwise: str
    second: int
    reader: str


def chains(simulator: Simulator) -> list[Chain]:
    """List the chains of a network whose two tensors are stored as integers."""
    import keras

    stored = frozenset(simulator.points) - simulator.float_points()
    readers = graph.readers(simulator.core)
    found = []
    for node in simulator.steps:
        passed = _passed(readers, node)
        if len(passed) != 4 or type(node.operation) is not keras.layers.Conv2D or node.operation.groups != 1:
            continue
        relu, depthwise, second, reader = passed
        ends = [simulator.position[id(step)] for step in (relu, second)]
        layers = [step.operation for step in (node, depthwise, reader)]
        once = all(graph.called_once(simulator.core, layer) for layer in layers)
        if once and stored.issuperset(ends) and _one_by_one(depthwise.operation) and _pointwise(reader.operation):
            first, middle, last = (str(layer.name) for layer in layers)
            found.append(Chain(first, ends[0], middle, ends[1], last))
    return found


def widths(simulator: Simulator) -> dict[str, int]:
    """Say how many channels the layer of each chain may answer at no cost, where that is more than it does."""
    full = {one.layer: simulator.core.get_layer(one.layer).filters for one in chains(simulator)}
    return {name: -(-filters // TILE) * TILE for name, filters in full.items() if filters % TILE}


def widened(core: keras.Model, filters: Mapping[str, int]) -> keras.Model:
    """Copy a folded network with more channels, which hold nothing, behind those of some layers.

    Args:
        core: what fold() answered.
        filters: channels of layers, by name; depthwise layers and readers behind them follow.
    """
    import keras

    def copy(layer: Any) -> Any:
        if not graph.weighted(layer):
            return layer
        config = layer.get_config()
        return type(layer).from_config({**config, "filters": filters[layer.name]} if layer.name in filters else config)

    wide = keras.models.clone_model(core, clone_function=copy)
    for layer in filter(graph.weighted, core.layers):
        larger = wide.get_layer(layer.name)
        larger.set_weights([_padded(*pair) for pair in zip(layer.get_weights(), larger.get_weights(), strict=True)])
    return wide


def copied(simulator: Simulator, state: State, noise: Mapping[int, np.ndarray]) -> tuple[Weights, int]:
    """Return weights of the same function, with copies of the costliest channels in idle ones, and how many.

    Args:
        simulator: of the network.
        state: float weights, and the ranges whose steps copies are set apart by.
        noise: that rounding a channel of a point adds to the logits, [channels] by the position of the point; channels
            beyond these cost nothing.
    """
    weights, count = dict(state.weights), 0
    limits = bounds(simulator, state)
    for chain in chains(simulator):
        steps = [(state.ranges[at].high - state.ranges[at].low) / STEPS for at in (chain.first, chain.second)]
        low, high = limits[chain.second]
        idle = np.flatnonzero(high - low < STILL * steps[1])
        cost = np.zeros(len(low))
        for at in (chain.first, chain.second):
            cost[: len(noise[at])] += noise[at]
        cost[idle] = 0
        places = _places(cost, idle.tolist())
        if places:
            weights.update(_filled(chain, weights, low, idle, places, steps))
            count += sum(len(slots) - 1 for slots in places.values())
    return weights, count


def bounds(simulator: Simulator, state: State) -> dict[int, Bounds]:
    """Bound what each channel of each stored tensor can be, whatever the image: least and largest, by position.

    What is stored lies in its range; convolutions and ReLUs between say more.
    """
    import keras

    image = simulator.core.inputs[0]
    low, high = (np.full(image.shape[-1], (level - simulator.zero) * float(simulator.scale)) for level in (0, STEPS))
    known: dict[int, Bounds] = {id(image): (low, high)}
    found: dict[int, Bounds] = {}
    for position, node in enumerate(simulator.steps):
        layer, output = node.operation, node.outputs[0]
        span = known.get(id(node.input_tensors[0])) if len(node.input_tensors) == 1 else None
        if span is None or isinstance(layer, keras.layers.ZeroPadding2D):
            span = span and _with_zero(span)
        elif type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) and _plain(layer):
            outer = span if layer.padding == "valid" else _with_zero(span)
            span = _through(layer, *state.weights[layer.name], outer)
        elif (kind := graph.activation(layer)) in ("relu", "relu6"):
            top = 6 if kind == "relu6" else np.inf
            span = (np.clip(span[0], 0, top), np.clip(span[1], 0, top))
        else:
            span = None
        stored = state.ranges.get(position)
        if stored is not None:
            low, high = span or (np.full(output.shape[-1], -np.inf), np.full(output.shape[-1], np.inf))
            span = found[position] = (np.clip(low, stored.low, stored.high), np.clip(high, stored.low, stored.high))
        if span is not None:
            known[id(output)] = span
    return found


def _filled(
    chain: Chain,
    weights: Weights,
    constant: np.ndarray,
    idle: np.ndarray,
    places: Mapping[int, Sequence[int]],
    steps: Sequence[float],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return a chain's weights with what idle channels hold in the reader's bias, and copies in these channels."""
    kernel, bias = (part.copy() for part in weights[chain.layer])
    single, shift = (part.copy() for part in weights[chain.depthwise])
    reading, answer = (part.copy() for part in weights[chain.reader])
    answer += np.einsum("c,co->o", constant[idle], reading[0, 0, idle]).astype(np.float32)
    reading[:, :, idle] = 0
    for channel, slots in places.items():
        whole, level, taps, offset = (part[..., channel].copy() for part in (kernel, bias, single[..., 0], shift))
        share = reading[:, :, channel] / len(slots)
        for slot, part in zip(slots, _parts(len(slots)), strict=True):
            kernel[..., slot], bias[slot] = whole, level + part * steps[0]
            single[:, :, slot, 0] = taps
            shift[slot] = offset + part * (steps[1] - steps[0] * taps.sum())
            reading[:, :, slot] = share
    return {chain.layer: (kernel, bias), chain.depthwise: (single, shift), chain.reader: (reading, answer)}


def _parts(count: int) -> np.ndarray:
    """Return parts of a step, evenly apart and 0 on average."""
    parts: np.ndarray = (np.arange(count) + 0.5) / count - 0.5
    return parts


def _places(cost: np.ndarray, idle: list[int]) -> dict[int, list[int]]:
    """Give each idle channel to the one that gains most: noise falls with the square of the number of copies."""
    places: dict[int, list[int]] = {}
    for slot in idle:
        held = np.ones(len(cost))
        for channel, slots in places.items():
            held[channel] = len(slots)
        channel = int((cost / held**2 - cost / (held + 1) ** 2).argmax())
        if cost[channel] > 0:
            places.setdefault(channel, [channel]).append(slot)
    return places


def _passed(readers: dict[int, list[Any]], node: Any) -> list[Any]:
    """List the ReLU, depthwise layer, ReLU and layer behind a node, as far as each is the only reader of the last."""
    import keras

    passed = list[Any]()
    for relu in (True, False, True, False):
        node = graph.only_reader(readers, node)
        if node is not None and not relu and isinstance(node.operation, keras.layers.ZeroPadding2D):
            node = graph.only_reader(readers, node)
        if node is None or (graph.activation(node.operation) in ("relu", "relu6")) != relu:
            return []
        passed.append(node)
    return passed


def _one_by_one(layer: Any) -> bool:
    return graph.weighted(layer) and graph.depthwise(layer) and layer.depth_multiplier == 1


def _pointwise(layer: Any) -> bool:
    import keras

    return type(layer) is keras.layers.Conv2D and layer.groups == 1 and tuple(layer.kernel_size) == (1, 1)


def _plain(layer: Any) -> bool:
    return getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1


def _with_zero(span: Bounds) -> Bounds:
    return np.minimum(span[0], 0), np.maximum(span[1], 0)


def _through(layer: Any, kernel: np.ndarray, bias: np.ndarray, span: Bounds) -> Bounds:
    weights = kernel.astype(np.float64)
    low, high = (end[:, np.newaxis] for end in span)  # a depthwise kernel is [height, width, channels, 1]
    axes = (0, 1, 3) if graph.depthwise(layer) else (0, 1, 2)
    least = np.minimum(weights * low, weights * high).sum(axes)
    most = np.maximum(weights * low, weights * high).sum(axes)
    return bias + least, bias + most


def _padded(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    return np.pad(small, [(0, wide - few) for few, wide in zip(small.shape, large.shape, strict=True)])
