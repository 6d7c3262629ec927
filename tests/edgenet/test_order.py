"""An order from Python is refused where it makes no sense, as one from the command line is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest

import edgenet
from converters.errors import ConverterError
from edgenet.order import Calibration


@pytest.mark.parametrize("formats", ["tflite", ("tflite", "onx"), ()])
def test_formats_that_nobody_writes_are_refused(formats: Any) -> None:
    with pytest.raises(edgenet.EdgenetError, match=r'give \("tflite",\)'):
        edgenet.Order(formats=formats, out=Path("out"))


def test_an_effort_that_there_is_not_is_refused() -> None:
    effort: Any = "bset"
    with pytest.raises(edgenet.EdgenetError, match=r'effort \'bset\': give "plain", "fast" or "best"'):
        edgenet.Demand(effort=effort)


@pytest.mark.parametrize("kept", ["none", (), ("none", "auto"), ("auto", "conv")])
def test_what_stays_float_is_one_word_or_names_of_layers(kept: Any) -> None:
    with pytest.raises(edgenet.EdgenetError, match=r'keep_float .*: give \("auto",\), \("none",\) or a tuple of names'):
        edgenet.Demand(keep_float=kept)


def test_a_precision_belongs_to_the_function_that_makes_it(tmp_path: Path) -> None:
    """A float file would be called int8: nothing is asked of the network before that is refused."""
    network, quiet, order = cast("Any", None), print, edgenet.Order(("tflite",), tmp_path)
    with pytest.raises(edgenet.EdgenetError, match=r"'int8': give \"float32\" or \"float16\""):
        edgenet.convert(network, cast("Any", "int8"), order, quiet)
    with pytest.raises(edgenet.EdgenetError, match=r"'float32': give \"int8\", \"int16x8\" or \"dynamic\""):
        edgenet.quantize(network, cast("Any", "float32"), Calibration((), ""), order, quiet)
    with pytest.raises(edgenet.EdgenetError, match=r'effort "best" belongs to int8; int16x8 gains nothing by it'):
        edgenet.quantize(network, "int16x8", Calibration((), ""), order, quiet, demand=edgenet.Demand("best"))


@pytest.mark.parametrize("points", [math.nan, math.inf])
def test_a_drop_that_no_file_could_miss_is_refused(points: float) -> None:
    with pytest.raises(edgenet.EdgenetError, match=r"max_drop .*: give points of top-1, such as 0\.5"):
        edgenet.Demand(max_drop=points)


def test_every_error_that_is_documented_has_a_public_name(tmp_path: Path) -> None:
    with pytest.raises(edgenet.DeviceError, match="does not exist"):
        edgenet.open_artifact(tmp_path / "no.tflite")
    assert edgenet.ConverterError is ConverterError
