"""What a runtime says of an open model file, and how it is run: the seam between LiteRT and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from devices.errors import ModelUnreadable
from devices.runtimes.model_file import one_line

Array = NDArray[Any]

# What the LiteRT bindings raise on a corrupt file: bad indices and names, absurd sizes.
NATIVE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, OSError, SystemError)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model file; scale is 0 where the tensor is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # numpy's name: "uint8", "float32"
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a runtime says of a file that it has opened and run once."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    runtime: str  # "LiteRT 2.3.0"
    delegate: str  # "XNNPACK", "none", "CPUExecutionProvider"
    delegate_note: str  # why the default delegate was left out, else ""
    ops: int | None  # in the file's graph; None where the runtime does not tell
    delegated_ops: int | None  # how many of them the delegate took
    labels: tuple[str, ...] | None
    labels_note: str  # why packed labels were ignored, else ""
    file_bytes: int
    load_ms: float  # open and allocate
    first_ms: float  # the first inference


class Session(Protocol):
    """An open model: its input is set apart from its run, so that the run can be timed bare."""

    @property
    def info(self) -> ModelInfo:
        """What the runtime says of the file."""

    def set_input(self, raw: Array) -> None:
        """Set the next input, [1, ...] in the file's dtype."""

    def invoke(self) -> None:
        """Run once; ModelUnreadable where the runtime fails."""

    def output(self) -> Array:
        """Give the first output, raw."""


def run(session: Session, raw: Array) -> NDArray[np.float32]:
    """Run one input, in the file's own dtype and shape [1, ...]; float32 scores [1, classes], dequantised."""
    session.set_input(raw)
    session.invoke()
    return dequantise(session.output(), session.info.outputs[0])


def dequantise(raw: Array, tensor: TensorInfo) -> NDArray[np.float32]:
    """Turn a raw output of any shape into float32 [1, classes]: (raw - zero point) * scale."""
    flat: NDArray[np.float32] = raw.reshape(1, -1).astype(np.float32)
    if tensor.scale and raw.dtype.kind in "iu":
        flat -= np.float32(tensor.zero_point)
        flat *= np.float32(tensor.scale)
    return flat


def example_input(tensor: TensorInfo) -> Array:
    """Make a fixed noise input: all byte values for integers, [0, 1) for floats."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    noise = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(13)).astype(np.uint8)
    dtype = np.dtype(tensor.dtype)
    values: Array = noise.astype(np.float32) / 256 if dtype.kind == "f" else noise
    example: Array = values.astype(dtype).reshape(tensor.shape)
    return example


def output_hash(raw: Array) -> str:
    """Hash a raw output: FNV-1a, 64 bits, over its bytes, 16 hexadecimal digits; what the native runner prints."""
    value = 0xCBF29CE484222325
    for byte in raw.tobytes():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def require_tensors(tensors: Sequence[TensorInfo], path: Path, what: str) -> None:
    """Refuse what no image classifier has: no tensor at all, text, or a size that is left open."""
    if not tensors:
        raise ModelUnreadable(f"{path}: it has no {what}: convert or download it again")
    for tensor in tensors:
        name = one_line(tensor.name, 40)
        if np.dtype(tensor.dtype).kind not in "fiub":
            raise ModelUnreadable(f"{path}: its {what} {name!r} holds {tensor.dtype}, not numbers")
        if what == "input" and min(tensor.shape, default=0) < 1:
            sizes = ", ".join("?" if n < 1 else str(n) for n in tensor.shape)
            raise ModelUnreadable(f"{path}: its input {name!r} is [{sizes}]: export it with a fixed size")
