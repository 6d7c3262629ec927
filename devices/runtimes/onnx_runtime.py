"""A .onnx file in ONNX Runtime."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.cpuinfo import INT8_FEATURES
from devices.errors import DeviceError, ModelUnreadable, RuntimeMissing
from devices.machine import isa_features
from devices.runtimes.labels import onnx_labels
from devices.runtimes.model_file import one_line
from devices.runtimes.runtime import NATIVE_ERRORS, Array, ModelInfo, TensorInfo, example_input, require_tensors

EXACT = ("session.x64quantprecision", "1")
"""A session's setting with which int8 is summed exactly on x86 processors that lack VNNI.

Without it ONNX Runtime adds pairs of products up in 16 bits there (on Intel's before Cascade Lake and Ice Lake, AMD's
before Zen 4), and cuts off what does not fit: the same file answers otherwise than on a Raspberry Pi. With it they take
up to 1.4 times as long. Where there is VNNI it would only keep ONNX Runtime from using it; on ARM it does nothing.
Source: ONNX Runtime's onnxruntime_session_options_config_keys.h (kOrtSessionOptionsAvx2PrecisionMode), platform.cpp.
"""

_X86 = ("x86_64", "amd64", "i386", "i686", "x86")


def is_exact_alone(machine: str, features: Sequence[str]) -> bool:
    """Whether int8 is summed exactly without EXACT.

    Args:
        machine: as platform.machine() says.
        features: those of devices.cpuinfo's ISA_FEATURES that its processor has; none where nobody knows.
    """
    return machine.lower() not in _X86 or any(name in INT8_FEATURES for name in features)


def is_exact_alone_here() -> bool:
    """Whether it is on this machine."""
    return is_exact_alone(platform.machine(), isa_features())


class OnnxSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its wheels would report to Microsoft what they run
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as native
        except (ImportError, AttributeError) as exc:
            reason = one_line(str(exc))
            raise RuntimeMissing(f'onnxruntime is missing here ({reason}): pip install "edgenet[device]"') from exc
        # Its errors share no base of their own.
        named = tuple(e for e in vars(native).values() if isinstance(e, type) and issubclass(e, Exception))
        self._errors: tuple[type[Exception], ...] = (*NATIVE_ERRORS, *named)
        runtime = f"ONNX Runtime {onnxruntime.__version__}"
        try:
            self._open(path, threads, onnxruntime, runtime)
        except self._errors as exc:
            if isinstance(exc, DeviceError):
                raise
            raise ModelUnreadable(f"{path}: {runtime} refuses it ({one_line(str(exc))})") from exc

    def _open(self, path: Path, threads: int, ort: Any, runtime: str) -> None:
        start = time.perf_counter_ns()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # what is fatal; errors come as exceptions anyway
        if not is_exact_alone_here():
            options.add_session_config_entry(*EXACT)
        self._session: Any = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        load_ms = (time.perf_counter_ns() - start) / 1e6
        inputs = tuple(_onnx_tensor(tensor, fixed_batch=True) for tensor in self._session.get_inputs())
        outputs = tuple(_onnx_tensor(tensor) for tensor in self._session.get_outputs())
        require_tensors(inputs, path, "input")
        require_tensors(outputs, path, "output")
        labels, labels_note = onnx_labels(self._session.get_modelmeta().custom_metadata_map.get("labels"))
        self.info = ModelInfo(
            inputs=inputs,
            outputs=outputs,
            runtime=runtime,
            delegate=self._session.get_providers()[0],
            delegate_note="",
            ops=None,
            delegated_ops=None,
            labels=labels,
            labels_note=labels_note,
            file_bytes=path.stat().st_size,
            load_ms=load_ms,
            first_ms=0.0,
        )
        self._binding = self._session.io_binding()
        for tensor in outputs:
            self._binding.bind_output(tensor.name, "cpu")
        kept = [np.ascontiguousarray(example_input(tensor)) for tensor in inputs]
        self._others = kept[1:]  # bound by address: they must outlive the binding
        for tensor, value in zip(inputs[1:], self._others, strict=True):
            self._binding.bind_cpu_input(tensor.name, value)
        self.set_input(kept[0])
        first = time.perf_counter_ns()
        self.invoke()
        self.info = replace(self.info, first_ms=(time.perf_counter_ns() - first) / 1e6)

    def set_input(self, raw: Array) -> None:
        """Bind the next input, [1, ...] in the file's dtype."""
        self._input = np.ascontiguousarray(raw)
        self._binding.bind_cpu_input(self.info.inputs[0].name, self._input)

    def invoke(self) -> None:
        """Run once; ModelUnreadable where the runtime fails."""
        try:
            self._session.run_with_iobinding(self._binding)
        except self._errors as exc:
            raise ModelUnreadable(f"{self.info.runtime} fails on it ({one_line(str(exc))})") from exc

    def output(self) -> Array:
        """Give the first output, raw."""
        answer: Array = self._binding.copy_outputs_to_cpu()[0]
        return answer


def _onnx_tensor(tensor: Any, fixed_batch: bool = False) -> TensorInfo:
    shape = [n if isinstance(n, int) else -1 for n in tensor.shape]
    if fixed_batch and len(shape) > 1 and shape[0] < 1:
        shape[0] = 1  # a dynamic batch is run as batch 1
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return TensorInfo(str(tensor.name), tuple(shape), dtype if dtype in np.sctypeDict else "object", 0.0, 0)
