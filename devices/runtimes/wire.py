"""Messages between a ModelProcess and its child: a fixed header, JSON fields, raw bytes. No pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, BinaryIO

_HEADER = struct.Struct("<4sBIQ")  # magic, kind, bytes of JSON, bytes of payload
_MAGIC = b"edg1"
_MAX_FIELDS = 64 << 20
_MAX_PAYLOAD = 4 << 30


class WireError(ValueError):
    """What came is no message: the peer is broken."""


class Kind(IntEnum):
    """What a message asks or answers."""

    OPEN = 1  # fields: path, threads -> INFO
    RUN = 2  # fields: images; payload: raw inputs -> one ROW an image
    TIME = 3  # fields of a Schedule -> TIMES
    INFO = 4  # fields of a ModelInfo
    ROW = 5  # payload: float32 [classes]
    TIMES = 6  # fields of a Run; payload: int64 nanoseconds [runs]
    ERROR = 7  # fields: error (a class of devices.errors), message


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came."""

    kind: Kind
    fields: Mapping[str, Any]
    payload: bytearray


def send(stream: BinaryIO, kind: Kind, fields: Mapping[str, Any] | None = None, payload: Any = b"") -> None:
    """Write one message and flush it; payload is anything contiguous with the buffer protocol."""
    view = memoryview(payload).cast("B") if len(payload) else memoryview(b"")
    text = json.dumps(fields).encode() if fields else b""
    stream.write(_HEADER.pack(_MAGIC, kind, len(text), view.nbytes) + text)
    stream.write(view)
    stream.flush()


def receive(stream: BinaryIO) -> Message:
    """Read one message; EOFError where the peer is gone, WireError where it speaks nonsense."""
    magic, kind, n_fields, n_payload = _HEADER.unpack(_exactly(stream, _HEADER.size))
    if magic != _MAGIC or n_fields > _MAX_FIELDS or n_payload > _MAX_PAYLOAD:
        raise WireError("no message header")
    text = _exactly(stream, n_fields)
    fields = json.loads(text) if text else {}
    return Message(Kind(kind), fields, _exactly(stream, n_payload))


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the peer is gone")
        done += got
    return data
