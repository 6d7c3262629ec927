"""An order from Python is refused where it makes no sense, as one from the command line is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import edgenet
from converters.errors import ConverterError
from edgenet.order import Calibration

from .symbols_files import INT8


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


def test_paths_may_be_texts_and_counts_numpys(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("no\nyes\n")
    (tmp_path / "yes").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "yes/one.png")
    labels, folder = edgenet.read_labels(f"{tmp_path}/labels.txt"), str(tmp_path)
    assert edgenet.image_files(folder) == edgenet.calibration_images(folder, 5).files == (tmp_path / "yes/one.png",)
    assert edgenet.labelled(folder, labels).targets.tolist() == [1]
    assert edgenet.open_artifact(str(INT8)).path == INT8
    assert edgenet.Order(("tflite",), cast("Any", "out")).out == Path("out")
    with pytest.raises(edgenet.EdgenetError, match=r"labels: give edgenet\.read_labels"):
        edgenet.Order(("tflite",), tmp_path, cast("Any", ["no", "yes"]))
    network = edgenet.open_network("mobilenet_v2_0.35_32", weights="none", classes=cast("int", np.int64(2)))
    assert network.source.classes == 2
    assert type(network.source.classes) is int  # which JSON takes


def test_every_error_that_is_documented_has_a_public_name(tmp_path: Path) -> None:
    with pytest.raises(edgenet.DeviceError, match="does not exist"):
        edgenet.open_artifact(tmp_path / "no.tflite")
    assert edgenet.ConverterError is ConverterError
