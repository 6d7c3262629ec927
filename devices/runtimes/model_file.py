"""What can be said of a model file before any runtime opens it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from pathlib import Path

from devices.errors import ModelUnreadable

SUFFIXES = (".tflite", ".onnx")

_TFLITE_MAGIC = b"TFL3"  # bytes 4..8 of the FlatBuffer, its file identifier
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_ANSI = re.compile(r"\x1b?\[[0-9;]*m")


def check_model_file(path: str | os.PathLike[str]) -> Path:
    """Refuse a file that is plainly no model, so that no runtime has to be started for it.

    Returns the path as a Path. Raises ModelUnreadable: missing, a folder or a pipe, empty, not readable, an unknown
    suffix, or a .tflite without its identifier (bytes 4..8 are "TFL3").
    """
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ModelUnreadable(f"{file} is {what}: give a .tflite or .onnx file")
        with file.open("rb") as stream:
            head = stream.read(16)
    except FileNotFoundError as exc:
        raise ModelUnreadable(f"{file} does not exist: check the path") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ModelUnreadable(f"{file} cannot be read ({reason}): check its path and permissions") from exc
    _check_kind(file, head)
    return file


def sha256(path: Path) -> str:
    """Hash a file's contents."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_kind(file: Path, head: bytes) -> None:
    suffix = file.suffix.lower()
    if suffix in _KERAS_SUFFIXES:
        raise ModelUnreadable(f"{file} is a Keras file, which no device runs: edgenet convert {shlex.quote(str(file))}")
    if suffix not in SUFFIXES:
        raise ModelUnreadable(f"{file} ends neither in .tflite nor in .onnx: no runtime here reads it")
    if not head:
        raise ModelUnreadable(f"{file} is empty: convert or download it again")
    if head.startswith(b"version https:/"):
        raise ModelUnreadable(f"{file} is a Git LFS pointer and not the model: git lfs pull")
    if suffix == ".tflite" and head[4:8] != _TFLITE_MAGIC:
        raise ModelUnreadable(f"{file} is no TFLite model (bytes 4..8 are not TFL3): convert or download it again")


def one_line(text: str, limit: int = 200) -> str:
    """Shorten what a native runtime said to one line of at most `limit` characters, without colours."""
    words = " ".join(_ANSI.sub("", text).split())
    return words if len(words) <= limit else words[: limit - 3] + "..."
