"""ONNX Runtime as edgenet opens it: with exact sums of int8 on every processor."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from devices.runtimes.onnx_runtime import EXACT, is_exact_alone_here


def opened(file: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not is_exact_alone_here():
        options.add_session_config_entry(*EXACT)
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
