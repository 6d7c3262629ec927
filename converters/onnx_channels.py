"""Dead channels, so that every depthwise convolution has a multiple of 16, as ONNX Runtime's fast int8 kernel asks.

MobileNets have widths of 24, 40, 72, 88, 120, 184, 200. At such a width ONNX Runtime falls back to a depthwise kernel
two to four times slower, which on V3-Large costs a fifth of the whole network. The added channels hold nothing and
nobody reads them: their weights are zero on both sides.
"""

from __future__ import annotations

import numpy as np

from converters.onnx_graph import INPUT, OUTPUT, Graph, Node

STEP = 16
UNARY = frozenset({"Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"})
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})


def pad_channels(graph: Graph) -> int:
    """Widen the graph in place; return how many channels were added."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    fixed, makers, takers, depthwise = {INPUT, OUTPUT}, [], [], []
    width: dict[str, int | None] = {}  # channels, where known
    for node in graph.nodes:
        tensors = [name for name in node.inputs if name not in graph.constants] + [node.output]
        weight = graph.constants.get(node.inputs[1]) if node.op == "Conv" else None
        width[node.output] = width.get(tensors[0]) if weight is None else len(weight)
        if node.op == "Conv" and any(name not in graph.constants for name in node.inputs[1:]):
            fixed.update(tensors)
        elif node.op == "Conv" and node.attributes.get("group", 1) == 1:
            makers.append(node)
            takers.append(node)
        elif _is_depthwise(graph, node):
            depthwise.append(node)
            parent[root(node.inputs[0])] = root(node.output)
        elif node.op in UNARY | POOLS or (
            node.op in ("Add", "Mul") and len(tensors) == 3 and width.get(tensors[0]) == width.get(tensors[1])
        ):  # one channel times many must stay one
            for name in tensors[:-1]:
                parent[root(name)] = root(node.output)
        else:
            fixed.update(tensors)
    barred = {root(name) for name in fixed}
    added: dict[str, int] = {}
    for node in depthwise:
        channels = len(graph.constants[node.inputs[1]])
        if root(node.output) not in barred and channels % STEP:
            added[root(node.output)] = -channels % STEP
    for node in makers + depthwise:
        for name in node.inputs[1:]:
            _widen(graph, name, 0, added.get(root(node.output), 0))
    for node in depthwise:
        node.attributes["group"] = len(graph.constants[node.inputs[1]])
    for node in takers:
        _widen(graph, node.inputs[1], 1, added.get(root(node.inputs[0]), 0))
    return sum(added.values())


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if node.op != "Conv":
        return False
    weight = graph.constants[node.inputs[1]]
    return bool(node.attributes.get("group", 1) == len(weight) and weight.shape[1] == 1)


def _widen(graph: Graph, name: str, axis: int, by: int) -> None:
    if by:
        array = graph.constants[name]
        graph.constants[name] = np.pad(array, [(0, by if i == axis else 0) for i in range(array.ndim)])
