"""ONNX Runtime as edgenet opens it: with exact sums of int8 on every processor."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from devices.onnx_runtime import EXACT


def opened(file: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT)
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
