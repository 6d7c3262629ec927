"""What the graph of a SavedModel may do when it is loaded and run: compute.

TensorFlow runs whatever operations a graph names, those that write files or call Python included. Which compute is told
by where TensorFlow itself defines them. Nothing is run here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError

# The modules of TensorFlow's operations that compute: gen_array_ops and so on. Input and output, datasets, logging,
# debugging, Python and networks are in others; these two of others compute.
_COMPUTING = (
    *(
        "array",
        "bitwise",
        "control_flow",
        "data_flow",
        "functional",
        "image",
        "linalg",
        "list",
        "lookup",
        "manip",
        "math",
    ),
    *("nn", "random", "resource_variable", "special_math", "spectral", "state", "stateful_random", "stateless_random"),
    *("string", "uniform_quant"),
)
_COMPUTING_TOO = ("Assert", "XlaCallModule")
# They read files, end the process, run on another machine, or run what a registered gradient names.
_REACHING = (
    *("Abort", "ImmutableConst", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "RecordInput"),
    *("RemoteCall", "SymbolicGradient"),
)
# What saves and restores variables is in every SavedModel; TensorFlow 1 restores by running it.
_RESTORING = ("RestoreV2", "Restore", "RestoreSlice", "NoOp")
_MAIN_OPS = ("saved_model_main_op", "legacy_init_op")  # run as a SavedModel of TensorFlow 1 is loaded


def check_graph(path: Path) -> None:
    """Refuse a SavedModel that, loaded or run, would do more than compute.

    Raises:
        EdgenetError: its saved_model.pb is damaged, or names an operation that reaches out of the graph.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    decode_error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except decode_error as exc:
        raise EdgenetError(f"{path} is damaged: its saved_model.pb cannot be read. Save the model again") from exc
    for meta in saved.meta_graphs:
        graph = _Graph(meta)
        restored = set(graph.reached([meta.saver_def.restore_op_name], [])) if meta.saver_def.restore_op_name else set()
        run = set(graph.reached(graph.ends(), graph.functions()))
        for name, op in sorted(run | restored):
            if not _computes(op) and not ((name, op) not in run and op in _RESTORING):
                raise EdgenetError(
                    f"{path} is refused: its operation {name!r} ({op}) reaches out of the graph; "
                    "if you know who made it, say --trust"
                )


@cache
def _computes(op: str) -> bool:
    import tensorflow as tf

    module = str(getattr(getattr(tf.raw_ops, op, None), "__module__", "")).rpartition(".gen_")[2]
    computing = module.removesuffix("_v2").removesuffix("_ops") in _COMPUTING
    return op in _COMPUTING_TOO or (computing and op not in _REACHING)


class _Graph:
    """One graph of a SavedModel, and the functions it may call."""

    def __init__(self, meta: Any) -> None:
        self._meta = meta
        self._nodes: dict[str, list[Any]] = {}  # lists: a file may hold two of one name
        self._functions: dict[str, list[Any]] = {}
        for node in meta.graph_def.node:
            self._nodes.setdefault(node.name, []).append(node)
        for one in meta.graph_def.library.function:
            self._functions.setdefault(one.signature.name, []).extend(one.node_def)

    def ends(self) -> Iterator[str]:
        """Name the nodes that are asked for: outputs of the signatures, and what is run at the beginning."""
        for signature in self._meta.signature_def.values():
            yield from (tensor.name for tensor in signature.outputs.values())
        for key in _MAIN_OPS:
            yield from self._meta.collection_def[key].node_list.value

    def functions(self) -> Iterator[str]:
        """Name the functions that its objects can call, as they are made or later."""
        objects = self._meta.object_graph_def
        yield from objects.concrete_functions
        for node in objects.nodes:
            yield from node.function.concrete_functions
            yield node.bare_concrete_function.concrete_function_name

    def reached(self, ends: Iterable[str], functions: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield name and operation of each node that some nodes of the graph, or some functions, lead to."""
        nodes, called, seen = list(ends), list(functions), set[str]()
        while nodes or called:
            if nodes:
                name = nodes.pop().removeprefix("^").split(":")[0]
                body = self._nodes.get(name, []) if f"node {name}" not in seen else []
                seen.add(f"node {name}")
                nodes += [source for node in body for source in node.input]
            else:
                name = called.pop()
                body = self._functions.get(name, []) if f"function {name}" not in seen else []
                seen.add(f"function {name}")
            for node in body:
                called += [node.op, *_called(node)]
                if node.op not in self._functions:
                    yield node.name, node.op


def _called(node: Any) -> Iterator[str]:
    """Name the functions that a node's attributes hold."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (one.name for one in value.list.func)
