"""What a user wants made: the order, and the calibration images that go with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgenet.artifact import Format
from edgenet.dataset import LabelledImages, fingerprint, image_files
from edgenet.errors import UsageError
from edgenet.labels import Labels

FEW_IMAGES = 100
AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made.

    Attributes:
        formats: of the files.
        out: folder that they appear in.
        labels: names of the classes; None: the network's own, if it has any.
        crop: how a picture that is not of the input's shape is cut: "center" or "squash".
        command: the command line, for the manifest.

    Raises:
        UsageError: formats are no tuple of "tflite" and "onnx", or labels no Labels.
    """

    formats: tuple[Format, ...]
    out: Path
    labels: Labels | None = None
    crop: Literal["center", "squash"] = "center"
    command: str = ""

    def __post_init__(self) -> None:
        if not self.formats or not set(self.formats) <= set(get_args(Format)):
            raise UsageError(f'formats {self.formats!r}: give ("tflite",), ("onnx",) or ("tflite", "onnx")')
        if self.labels is not None and not isinstance(self.labels, Labels):
            raise UsageError("labels: give edgenet.read_labels(FILE), or edgenet.Labels with a tuple of names")
        object.__setattr__(self, "out", Path(self.out))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Representative images, unlabelled.

    Attributes:
        files: the images.
        sha256: of their contents.
    """

    files: tuple[Path, ...]
    sha256: str

    @property
    def too_few(self) -> bool:
        """Fewer images than the ranges of activations can be trusted to."""
        return len(self.files) < FEW_IMAGES


def calibration_images(folder: Path | str, limit: int) -> Calibration:
    """Choose calibration images from a folder: all, or `limit` of them spread evenly.

    Raises:
        EdgenetError: there is no image in it.
    """
    files = image_files(folder, limit)
    return Calibration(files, fingerprint(files))


Effort = Literal["plain", "fast", "best"]


@dataclass(frozen=True, slots=True)
class Demand:
    """How much is done for the accuracy of an integer file.

    Attributes:
        effort: "plain": calibration alone. "fast": what needs no training. "best": distillation, too.
        keep_float: (AUTO,), (NONE,), or names of layers that compute in float.
        validation: labelled images to judge by, never to calibrate by; None: nobody has any.
        max_drop: points of top-1 that a file may lose on them; None: nobody minds.
        explain: say what each layer loses.

    Raises:
        UsageError: there is no such effort; keep_float is none of the three; max_drop is not finite.
    """

    effort: Effort = "fast"
    keep_float: tuple[str, ...] = (AUTO,)
    validation: LabelledImages | None = None
    max_drop: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.effort not in get_args(Effort):
            raise UsageError(f'effort {self.effort!r}: give "plain", "fast" or "best"')
        kept = self.keep_float
        if isinstance(kept, str) or not kept or (len(kept) > 1 and {AUTO, NONE} & set(kept)):
            raise UsageError(f'keep_float {kept!r}: give ("auto",), ("none",) or a tuple of names of layers')
        if self.max_drop is not None and not math.isfinite(self.max_drop):
            raise UsageError(f"max_drop {self.max_drop}: give points of top-1, such as 0.5; None where nobody minds")

    @property
    def names_layers(self) -> bool:
        """The user has said which layers compute in float."""
        return not {AUTO, NONE} & set(self.keep_float)
