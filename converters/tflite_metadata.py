"""TFLite Model Metadata: what a stock MediaPipe ImageClassifier wants to find inside a .tflite file.

The metadata is itself a flatbuffer (metadata_schema.fbs, file identifier "M001"), kept in one more buffer of the model
under the name TFLITE_METADATA; the labels are a text file in a zip archive appended to the model. The package that used
to write both is abandoned, so both are written here.

The model's own bytes are not repacked. A flatbuffer's offsets are relative and point forward, so a new root table is
laid *before* the old body and points into it. Weights therefore keep the 16-byte alignment that the converter gave
them, which a round trip through the generated Python classes loses.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from converters.errors import ConverterError

if TYPE_CHECKING:
    import flatbuffers

METADATA_NAME = "TFLITE_METADATA"
LABELS_NAME = "labels.txt"

_ALIGNMENT = 64  # of the old body within the new file; a multiple of the 16 bytes that weights ask for
_VERSION, _BUFFERS, _METADATA = 0, 4, 6  # slots of the model's root table in schema.fbs
# metadata_schema.fbs: ContentProperties.ImageProperties, ColorSpaceType.RGB, ProcessUnitOptions.NormalizationOptions,
# AssociatedFileType.TENSOR_AXIS_LABELS
_IMAGE_PROPERTIES, _RGB, _NORMALIZATION, _AXIS_LABELS = 2, 1, 1, 2
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest a zip can say: the same model gives the same bytes on any day


def with_metadata(
    model: bytes, *, name: str, description: str, labels: Sequence[str], mean: float, std: float
) -> bytes:
    """Return the .tflite file `model` with TFLite metadata and its labels inside.

    `model` has one image input [1, h, w, 3] and one output [1, classes]; `labels` holds a name per class, in order.
    `mean` and `std` say how a raw byte becomes the input: (byte - mean) / std; 0 and 1 for a uint8 input. Metadata that
    is already there is replaced. The same arguments give the same bytes.

    Raises:
        ConverterError: not a .tflite file, or a label that a text file of one label a line cannot hold.

    Source: metadata_schema.fbs of TensorFlow Lite Support; schema.fbs of TensorFlow Lite.
    """
    text = _labels_text(labels)
    if std == 0:
        raise ConverterError("std is 0: a raw byte becomes the input by (byte - mean) / std")
    body = _without_archive(model)
    if len(body) < 8 or body[4:8] != b"TFL3":
        raise ConverterError("not a .tflite file (identifier TFL3 is missing): convert the model again")
    try:
        new = _with_buffer(body, _model_metadata(name, description, mean, std))
    except (struct.error, IndexError, UnicodeDecodeError) as exc:
        raise ConverterError("the .tflite file is damaged: convert the model again") from exc
    return _with_archive(new, text)


def _labels_text(labels: Sequence[str]) -> str:
    """Return one label a line; a label with a line break would shift every class after it."""
    if not labels:
        raise ConverterError("no labels: give one label per class")
    for index, label in enumerate(labels):
        if len(label.splitlines()) > 1 or label.splitlines() != [label]:
            problem = "is empty" if not label else f"{label!r} contains a line break"
            raise ConverterError(f"label {index} {problem}: a labels file holds one label a line")
    return "".join(f"{label}\n" for label in labels)


def _model_metadata(name: str, description: str, mean: float, std: float) -> bytes:
    """Return the ModelMetadata flatbuffer of an image classifier whose labels lie in labels.txt."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)

    def table(*fields: tuple[int, str, int]) -> int:
        """Write a table of (slot, "offset" | "byte", value) fields."""
        builder.StartObject(max(slot for slot, _, _ in fields) + 1)
        for slot, kind, value in fields:
            if kind == "offset":
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                builder.PrependUint8Slot(slot, value, 0)
        return int(builder.EndObject())

    def text(value: str) -> int:
        return int(builder.CreateString(value))

    image = table((0, "byte", _RGB))
    content = table((0, "byte", _IMAGE_PROPERTIES), (1, "offset", image))
    options = table((0, "offset", _floats(builder, mean)), (1, "offset", _floats(builder, std)))
    unit = table((0, "byte", _NORMALIZATION), (1, "offset", options))
    image_input = table(
        (0, "offset", text("image")),
        (1, "offset", text("RGB image, raw bytes")),
        (3, "offset", content),
        (4, "offset", _offsets(builder, unit)),
        (5, "offset", _range(builder, (0.0 - mean) / std, (255.0 - mean) / std)),
    )
    labels = table((0, "offset", text(LABELS_NAME)), (2, "byte", _AXIS_LABELS))
    scores = table(
        (0, "offset", text("probability")),
        (1, "offset", text("probability of each class")),
        (5, "offset", _range(builder, 0.0, 1.0)),
        (6, "offset", _offsets(builder, labels)),
    )
    subgraph = table((2, "offset", _offsets(builder, image_input)), (3, "offset", _offsets(builder, scores)))
    root = table(
        (0, "offset", text(name)),
        (1, "offset", text(description)),
        (3, "offset", _offsets(builder, subgraph)),
        (7, "offset", text("1.0.0")),  # the oldest metadata parser that understands every field used here
    )
    builder.Finish(root, file_identifier=b"M001")
    return bytes(builder.Output())


def _floats(builder: flatbuffers.Builder, value: float) -> int:
    builder.StartVector(4, 1, 4)
    builder.PrependFloat32(value)
    return int(builder.EndVector())


def _offsets(builder: flatbuffers.Builder, offset: int) -> int:
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _range(builder: flatbuffers.Builder, low: float, high: float) -> int:
    """Write Stats, the range of a tensor: vectors of maxima (slot 0) and minima (slot 1)."""
    most, least = _floats(builder, max(low, high)), _floats(builder, min(low, high))
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, most, 0)
    builder.PrependUOffsetTRelativeSlot(1, least, 0)
    return int(builder.EndObject())


def _u32(data: bytes | bytearray, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _fields(data: bytes, table: int) -> dict[int, int]:
    """Return {slot: position of the field} of the table at `table`."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    slots = struct.unpack_from(f"<{size // 2 - 2}H", data, vtable + 4)
    return {slot: table + offset for slot, offset in enumerate(slots) if offset}


def _elements(data: bytes, field: int | None) -> list[int]:
    """Return the positions of the tables in a vector of tables; nothing where the field is absent."""
    if field is None:
        return []
    vector = field + _u32(data, field)
    first = vector + 4
    return [at + _u32(data, at) for at in range(first, first + 4 * _u32(data, vector), 4)]


def _metadata_name(data: bytes, table: int) -> str:
    field = _fields(data, table).get(0)
    if field is None:
        return ""
    at = field + _u32(data, field)
    return data[at + 4 : at + 4 + _u32(data, at)].decode()


def _with_buffer(body: bytes, payload: bytes) -> bytes:
    """Return the flatbuffer `body` under a new root table that has one more buffer, named METADATA_NAME."""
    model = _u32(body, 0)
    old = _fields(body, model)
    buffers = _elements(body, old.get(_BUFFERS))
    entries = [at for at in _elements(body, old.get(_METADATA)) if _metadata_name(body, at) != METADATA_NAME]

    head = bytearray(struct.pack("<I4s", 0, b"TFL3"))

    def reserve(data: bytes, align: int = 4) -> int:
        """Append `data` at a multiple of `align` and return its position."""
        head.extend(bytes(-len(head) % align))
        head.extend(data)
        return len(head) - len(data)

    present = {*old, _BUFFERS, _METADATA}
    count = max(present) + 1
    slots = [4 + 4 * slot for slot in range(count)]  # a word a slot; the absent ones stay unreferenced
    places = (at if slot in present else 0 for slot, at in enumerate(slots))
    vtable_at = reserve(struct.pack(f"<{2 + count}H", 4 + 2 * count, 4 + 4 * count, *places))
    root = reserve(bytes(4 + 4 * count))
    struct.pack_into("<I", head, 0, root)
    struct.pack_into("<i", head, root, root - vtable_at)
    buffer_vector = reserve(struct.pack("<I", len(buffers) + 1) + bytes(4 * (len(buffers) + 1)))
    entry_vector = reserve(struct.pack("<I", len(entries) + 1) + bytes(4 * (len(entries) + 1)))

    # Buffer {data: [ubyte]}, then Metadata {name: string, buffer: uint}: a vtable each, then the table.
    buffer_vtable = reserve(struct.pack("<3H", 6, 8, 4))
    buffer = reserve(bytes(8))
    struct.pack_into("<i", head, buffer, buffer - buffer_vtable)
    entry_vtable = reserve(struct.pack("<4H", 8, 12, 4, 8))
    entry = reserve(bytes(12))
    struct.pack_into("<iII", head, entry, entry - entry_vtable, 0, len(buffers))
    label = METADATA_NAME.encode()
    name_at = reserve(struct.pack("<I", len(label)) + label + b"\0")
    struct.pack_into("<I", head, entry + 4, name_at - (entry + 4))
    reserve(bytes(-(len(head) + 4) % 16) + struct.pack("<I", len(payload)))  # so that the bytes begin at 16 n
    data_at = len(head) - 4
    struct.pack_into("<I", head, buffer + 4, data_at - (buffer + 4))
    head.extend(payload)
    head.extend(bytes(-len(head) % _ALIGNMENT))

    shift = len(head)
    _point(head, buffer_vector + 4, [*(at + shift for at in buffers), buffer])
    _point(head, entry_vector + 4, [*(at + shift for at in entries), entry])
    for slot, field in old.items():
        at = root + slots[slot]
        if slot == _VERSION:  # the one scalar; all others are offsets
            head[at : at + 4] = body[field : field + 4]
        elif slot not in (_BUFFERS, _METADATA):
            _point(head, at, [field + _u32(body, field) + shift])
    _point(head, root + slots[_BUFFERS], [buffer_vector])
    _point(head, root + slots[_METADATA], [entry_vector])
    return bytes(head) + body


def _point(head: bytearray, at: int, targets: Sequence[int]) -> None:
    """Write unsigned relative offsets from `at` on, one a target."""
    for index, target in enumerate(targets):
        place = at + 4 * index
        struct.pack_into("<I", head, place, target - place)


def _without_archive(model: bytes) -> bytes:
    """Return `model` up to the zip archive appended to it, if there is one."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            starts = [info.header_offset for info in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return model
    return model[: min(starts)] if starts else model


def _with_archive(model: bytes, labels: str) -> bytes:
    """Append a zip archive that holds labels.txt, stored and not compressed: readers map it."""
    info = zipfile.ZipInfo(LABELS_NAME, _ZIP_TIME)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    file = io.BytesIO()
    file.write(model)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(info, labels.encode())
    return file.getvalue()
