"""Options that several verbs share, spelled and explained once."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgenet.labels import Labels


class FormatName(str, Enum):
    """Kinds of model file."""

    tflite = "tflite"
    onnx = "onnx"


class InputRange(str, Enum):
    """What a network's input ranges over."""

    bytes = "0..255"
    unit = "0..1"
    signed = "-1..1"


class Crop(Enum):
    """How a picture that is not of the input's shape is cut."""

    center = "center"
    squash = "squash"


Model = Annotated[
    str,
    typer.Argument(help="A network (mobilenet_v2_0.35_96), symbols, or your own .keras, .h5 or SavedModel folder."),
]
Files = Annotated[list[Path], typer.Argument(help="Model files: .tflite, .onnx.")]
To = Annotated[list[FormatName] | None, typer.Option("--to", help="Kind of file; may be given twice. Default: both.")]
Weights = Annotated[
    str, typer.Option(help="For a named network: imagenet, none (random), or a .h5, .weights.h5 or .keras file.")
]
LabelFile = Annotated[
    Path | None, typer.Option("--labels", help="The classes in order: a .txt (one a line) or .csv (index,wnid,name).")
]
Classes = Annotated[int | None, typer.Option(help="How many classes, for --weights none.")]
InputRangeOption = Annotated[
    InputRange | None, typer.Option("--input-range", help="For a model that does not normalize its own input.")
]
Size = Annotated[int | None, typer.Option(help="Input size, for a model of yours that leaves it open.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run code (Lambda layers) that the model file brings.")]
CropOption = Annotated[Crop, typer.Option("--crop", help="center: cut the largest centred part; squash: cut nothing.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the files.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def labels_in(file: Path | None) -> Labels | None:
    """Read a label file, where one was given."""
    from edgenet.labels import read_labels

    return read_labels(file) if file else None


def value(option: Enum | None) -> str:
    """Text of a choice; "" where none was made."""
    return str(option.value) if option else ""


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Read "1,2,4".

    Raises:
        UsageError: not positive whole numbers.
    """
    from edgenet.errors import UsageError

    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{option} {text}: give positive whole numbers, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def command_line() -> str:
    """What the user typed, for the manifest."""
    return shlex.join(["edgenet", *sys.argv[1:]])
