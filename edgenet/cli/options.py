"""Options that several verbs share, spelled and explained once."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli.terminal import warn

if TYPE_CHECKING:
    from edgenet.artifact import Format
    from edgenet.dataset import LabelledImages
    from edgenet.labels import Labels
    from edgenet.nets.network import Network
    from edgenet.order import Order


MOST_THREADS = 256
"""Of one inference: a few thousand end a runtime by a signal, for which its file would get the blame."""


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


def finite(value: float | None) -> float | None:
    """Refuse NaN, above and below which is nothing: a gate at NaN would hold back no file. For Option's callback."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to hold anything against.")
    return value


Model = Annotated[
    str,
    typer.Argument(help="A network (mobilenet_v2_0.35_96), symbols, or your own .keras, .h5 or SavedModel folder."),
]
Files = Annotated[list[Path], typer.Argument(help="Model files: .tflite, .onnx.")]
To = Annotated[list[FormatName] | None, typer.Option("--to", help="Kind of file; may be given twice. Default: both.")]
Weights = Annotated[
    str,
    typer.Option(
        help="For a named network: imagenet (default; downloaded), none (random), or a .h5, .weights.h5, .keras."
    ),
]
LabelFile = Annotated[
    Path | None, typer.Option("--labels", help="The classes in order: a .txt (one a line) or .csv (index,wnid,name).")
]
Classes = Annotated[int | None, typer.Option(help="How many classes, for --weights none.", min=2)]
InputRangeOption = Annotated[
    InputRange | None,
    typer.Option(
        "--input-range", help="What your model takes, if it does not normalize by itself, such as --input-range=-1..1."
    ),
]
Size = Annotated[int | None, typer.Option(help="Input size, for a model of yours that leaves it open.", min=1)]
Trust = Annotated[bool, typer.Option("--trust", help="Run code (Lambda layers) that the model file brings.")]
CropOption = Annotated[Crop, typer.Option("--crop", help="center: cut the largest centred part; squash: cut nothing.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the files.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def labels_in(file: Path | None) -> Labels | None:
    """Read a label file, where one was given."""
    from edgenet.labels import read_labels

    return read_labels(file) if file else None


def order(to: list[FormatName] | None, out: Path, labels: Path | None, crop: Crop) -> Order:
    """Say what convert and quantize are to make; finds out at once that the folder takes no files."""
    from edgenet.appearing import check_folder
    from edgenet.order import Order

    check_folder(out)
    formats: tuple[Format, ...] = tuple(one.value for one in dict.fromkeys(to or FormatName))
    return Order(formats, out, labels_in(labels), crop.value, command_line())


def network(
    model: str,
    weights: str,
    classes: int | None,
    input_range: InputRange | None,
    size: int | None,
    trust: bool,
    wanted: Order,
) -> Network:
    """Open the network that convert and quantize start from."""
    from edgenet.nets.network import open_network
    from edgenet.nets.weights import imagenet_labels

    range_ = value(input_range)
    opened = open_network(model, weights=weights, classes=classes, input_range=range_, size=size, trust=trust)
    if wanted.labels is not None or opened.labels is not None:
        return opened
    if opened.source.weights == "imagenet":
        return dataclasses.replace(opened, labels=imagenet_labels())
    warn("no --labels: the files will not know what their classes are called")
    return opened


def validation(folder: Path, network: Network, wanted: Order, limit: int | None) -> LabelledImages:
    """Find the labelled images that top-1 is measured on."""
    from edgenet.dataset import labelled
    from edgenet.errors import UsageError

    known = wanted.labels or network.labels
    if known is None:
        raise UsageError(f"--validation {folder}: nobody says what the classes are called; give --labels FILE")
    return labelled(folder, known, None, limit)


def tell_left_out(*folders: Path | None) -> None:
    """Say so where folders hold pictures that are not read: a class may have no others."""
    from edgenet.dataset import left_out

    for folder in filter(None, folders):
        unread = left_out(folder)
        if unread:
            count = f"{len(unread)} picture{'s' * (len(unread) > 1)} of kinds that are not read"
            warn(f"{folder}: {count}, {unread[0].name} the first, left out; convert them to JPEG or PNG")


def value(option: Enum | None) -> str:
    """Text of a choice; "" where none was made."""
    return str(option.value) if option else ""


def thread_counts(text: str) -> tuple[int, ...]:
    """Read --threads "1,2,4".

    Raises:
        UsageError: not whole numbers of 1 to MOST_THREADS.
    """
    from edgenet.errors import UsageError

    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= MOST_THREADS for part in parts):
        raise UsageError(f"--threads {text}: give whole numbers from 1 to {MOST_THREADS}, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def command_line() -> str:
    """What the user typed, for the manifest."""
    return shlex.join(["edgenet", *sys.argv[1:]])
