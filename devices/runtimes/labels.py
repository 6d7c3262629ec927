"""Class labels that travel inside a model file: TFLite's packed label file, ONNX' metadata_props."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

MAX_LABEL_BYTES = 4 << 20

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,  # an encrypted member; NotImplementedError, an unknown compression, is one too
    ValueError,  # UnicodeDecodeError is one
    OverflowError,
    MemoryError,
)


def tflite_labels(path: Path) -> tuple[tuple[str, ...] | None, str]:
    """Read the label file of the zip that TFLite metadata appends to a model.

    Returns (labels, note): labels is None where the file carries none; note says why packed labels were ignored,
    else "". A packed file that unfolds to more than MAX_LABEL_BYTES is a zip bomb or no label file: it is ignored.
    Source: tensorflow.org/lite/models/convert/metadata, "associated files".
    """
    try:
        if not zipfile.is_zipfile(path):
            return None, ""
        with zipfile.ZipFile(path) as archive:
            texts = [m for m in archive.infolist() if m.filename.lower().endswith(".txt")]
            member = next((m for m in texts if "label" in m.filename.lower()), texts[0] if len(texts) == 1 else None)
            if member is None:
                return None, ""
            with archive.open(member) as stream:  # the size the header declares may lie: read no more than the cap
                text = stream.read(MAX_LABEL_BYTES + 1)
        if len(text) > MAX_LABEL_BYTES:
            return None, f"its packed labels {member.filename!r} unfold to more than 4 MB and were ignored"
        return _lines(text.decode("utf-8-sig")), ""
    except _ZIP_ERRORS as exc:
        return None, f"its packed labels cannot be read ({type(exc).__name__}) and were ignored"


def onnx_labels(text: str | None) -> tuple[tuple[str, ...] | None, str]:
    """Read the labels from the value of ONNX' metadata_props key "labels", a JSON list of strings.

    Returns (labels, note) as tflite_labels does.
    """
    if text is None:
        return None, ""
    try:
        labels = json.loads(text) if len(text) <= MAX_LABEL_BYTES else None
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return None, 'its metadata "labels" is no JSON list of strings and was ignored'
    return tuple(labels), ""


def _lines(text: str) -> tuple[str, ...] | None:
    labels = [line.strip() for line in text.split("\n")]
    while labels and not labels[-1]:
        labels.pop()
    return tuple(labels) or None
