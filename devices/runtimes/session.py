"""Open a .tflite or .onnx file in this process.

Only the child that model_process starts calls this: a corrupt file can kill the native runtime (and does).
"""

from __future__ import annotations

from pathlib import Path

from devices.errors import ModelUnreadable
from devices.runtimes.runtime import Session


def open_session(path: Path, threads: int) -> Session:
    """Open a model file and run it once on noise.

    threads: of one inference. Raises ModelUnreadable with the runtime's own reason, RuntimeMissing.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:  # of a file from a system that writes names another way
        raise ModelUnreadable(f"{path}: Python's runtimes open no path that is not UTF-8: rename it") from exc
    if path.suffix.lower() == ".tflite":
        from devices.runtimes.litert_runtime import LiteRTSession

        return LiteRTSession(path, threads)
    from devices.runtimes.onnx_runtime import OnnxSession

    return OnnxSession(path, threads)
