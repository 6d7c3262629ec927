"""A .tflite file in LiteRT."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from devices.errors import ModelUnreadable, RuntimeMissing
from devices.runtimes.labels import tflite_labels
from devices.runtimes.model_file import one_line
from devices.runtimes.runtime import NATIVE_ERRORS, Array, ModelInfo, TensorInfo, example_input, require_tensors


class LiteRTSession:
    """LiteRT, or the older tflite-runtime where only that installs."""

    def __init__(self, path: Path, threads: int) -> None:
        interpreter_module, runtime = _import_litert()
        resolvers = interpreter_module.OpResolverType
        note = ""
        try:
            self._open(path, threads, interpreter_module, resolvers.AUTO)
        except NATIVE_ERRORS as refused:
            # XNNPACK refuses some files that LiteRT's own kernels run, at allocation or at the first run.
            try:
                self._open(path, threads, interpreter_module, resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
            except NATIVE_ERRORS as exc:
                raise ModelUnreadable(f"{path}: {runtime} refuses it ({one_line(str(exc))})") from exc
            note = f"the default delegate refused this file, it runs without and slower: {one_line(str(refused), 120)}"
        ops, delegated = _count_delegated(self._interpreter)
        labels, labels_note = tflite_labels(path)
        self.info = ModelInfo(
            inputs=self._inputs,
            outputs=self._outputs,
            runtime=runtime,
            delegate="XNNPACK" if delegated else "none",
            delegate_note=note,
            ops=ops,
            delegated_ops=delegated,
            labels=labels,
            labels_note=labels_note,
            file_bytes=path.stat().st_size,
            load_ms=self._load_ms,
            first_ms=self._first_ms,
        )

    def _open(self, path: Path, threads: int, module: Any, resolver: Any) -> None:
        start = time.perf_counter_ns()
        self._interpreter: Any = module.Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
        )
        self._interpreter.allocate_tensors()
        loaded = time.perf_counter_ns()
        details = self._interpreter.get_input_details()
        self._inputs = tuple(_litert_tensor(tensor) for tensor in details)
        self._outputs = tuple(_litert_tensor(tensor) for tensor in self._interpreter.get_output_details())
        require_tensors(self._inputs, path, "input")
        require_tensors(self._outputs, path, "output")
        for tensor, detail in zip(self._inputs, details, strict=True):
            self._interpreter.set_tensor(detail["index"], example_input(tensor))
        self._input_index = details[0]["index"]
        self._output_index = self._interpreter.get_output_details()[0]["index"]
        first = time.perf_counter_ns()
        self._interpreter.invoke()
        self._first_ms = (time.perf_counter_ns() - first) / 1e6
        self._load_ms = (loaded - start) / 1e6

    def set_input(self, raw: Array) -> None:
        """Copy the next input in, [1, ...] in the file's dtype."""
        self._interpreter.set_tensor(self._input_index, raw)

    def invoke(self) -> None:
        """Run once; ModelUnreadable where the runtime fails."""
        try:
            self._interpreter.invoke()
        except NATIVE_ERRORS as exc:
            raise ModelUnreadable(f"{self.info.runtime} fails on it ({one_line(str(exc))})") from exc

    def output(self) -> Array:
        """Give the first output, raw."""
        answer: Array = self._interpreter.get_tensor(self._output_index)
        return answer


def _import_litert() -> tuple[Any, str]:
    reasons = []
    try:
        import ai_edge_litert
        import ai_edge_litert.interpreter

        return ai_edge_litert.interpreter, f"LiteRT {ai_edge_litert.__version__}"
    except (ImportError, AttributeError) as exc:
        reasons.append(f"ai-edge-litert: {exc}")
    try:
        import tflite_runtime
        import tflite_runtime.interpreter

        if int(np.__version__.split(".")[0]) >= 2:  # it imports, and then fails
            raise RuntimeMissing(f'tflite-runtime needs numpy below 2, not {np.__version__}: pip install "numpy<2"')
        return tflite_runtime.interpreter, f"tflite-runtime {tflite_runtime.__version__}"
    except (ImportError, AttributeError) as exc:
        reasons.append(f"tflite-runtime: {exc}")
    why = one_line("; ".join(reasons))
    raise RuntimeMissing(f'no runtime reads .tflite here ({why}): pip install "edgenet[device]"')


def _litert_tensor(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        name=str(detail["name"]),
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _count_delegated(interpreter: Any) -> tuple[int | None, int | None]:
    """Count the ops of the first graph, and those that DELEGATE nodes took over.

    LiteRT keeps the replaced nodes in its list: they are the ones met on the way back from a DELEGATE node's outputs
    to its inputs.
    """
    details = getattr(interpreter, "_get_ops_details", None)
    if details is None:
        return None, None
    nodes = details()
    takers = [node for node in nodes if "DELEGATE" in node["op_name"].upper()]
    own = [node for node in nodes if "DELEGATE" not in node["op_name"].upper()]
    producer = {int(tensor): node for node in own for tensor in node["outputs"]}
    taken: set[int] = set()
    for taker in takers:
        given = {int(tensor) for tensor in taker["inputs"]}
        waiting = [int(tensor) for tensor in taker["outputs"]]
        while waiting:
            node = producer.get(waiting.pop())
            if node is not None and node["index"] not in taken:
                taken.add(node["index"])
                waiting.extend(int(tensor) for tensor in node["inputs"] if int(tensor) not in given)
    return len(own), len(taken)
