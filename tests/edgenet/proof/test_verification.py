"""What model files are held against, and what they are given; stand-ins answer for networks and runtimes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devices import machine
from devices.errors import DeviceError
from devices.runtimes.pool import ModelPool
from devices.runtimes.runtime import TensorInfo
from edgenet import artifact
from edgenet.artifact import Artifact, Source
from edgenet.errors import EdgenetError, UsageError
from edgenet.proof import evaluation, subjects, verification
from edgenet.proof.options import EvaluationRequest
from edgenet.symbols.generate import write_folder
from tests.edgenet.symbols_files import INT8


def subject(**changes: Any) -> Artifact:
    """The embedded file, with another source, crop or input."""
    known = artifact.load(INT8)
    assert known is not None
    source = changes.pop("source", known.manifest.source)
    eats = dataclasses.replace(known.manifest.input, **changes)
    return Artifact(INT8, dataclasses.replace(known.manifest, source=source, input=eats))


class Stand:
    """A network that answers its own number, and how wide the white of a picture is that it is shown."""

    def __init__(self, number: int, height: int = 96, width: int = 96) -> None:
        self.number, self.name, self.height, self.width = number, f"network {number}", height, width

    def scores(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.stack([np.full(len(batch), self.number), batch[..., 0].mean(axis=(1, 2))], axis=1)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A picture that is white at its left and right ends."""
    pixels = np.zeros((96, 288, 3), np.uint8)
    pixels[:, :96] = pixels[:, 192:] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return [tmp_path / "wide.png"]


def test_each_file_is_held_against_its_own_network_on_pictures_cut_as_for_it(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = subject().manifest.source
    assert isinstance(first, Source)
    second = dataclasses.replace(first, weights_sha256="1" * 64)
    built: list[Source] = []

    def reopen(source: Source, trust: bool) -> Stand:
        built.append(source)
        assert trust
        return Stand([first, second].index(source))

    monkeypatch.setattr(verification, "reopen", reopen)
    references = verification._References(None, files, True, lambda *_: None)
    whole = pytest.approx(170, abs=1)
    assert references.scores(subject(source=first)).tolist() == [[0, 0]]
    assert references.scores(subject(source=second)).tolist() == [[1, 0]]
    assert references.scores(subject(source=first, crop="squash")).tolist() == [[0, whole]]
    assert references.scores(subject(source=first)).tolist() == [[0, 0]]
    assert built == [first, second, first], "each once"
    given: Any = Stand(7)
    named = verification._References(given, files, False, lambda *_: None)
    assert named.scores(subject(source=None)).tolist() == [[7, 0]]
    assert len(built) == 3
    with pytest.raises(UsageError, match="its float network is unknown; give --against MODEL"):
        references.check(subject(source=None))
    for size in ((96, 95), (95, 96)):
        other: Any = Stand(7, *size)
        with pytest.raises(EdgenetError, match=rf"takes 96x96 and network 7 {size[0]}x{size[1]}; compare it with"):
            verification._References(other, files, False, lambda *_: None).scores(subject())


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (str(artifact.manifest_path(INT8)), "json"),  # as in `edgenet verify out/*`
        ("/no/such.onnx", "does not exist"),
        ("/no/such.keras", "does not exist|Keras file"),
        ("mobilenet_v2_0.35_9x", "no network is called|does not exist"),
    ],
)
def test_what_is_no_model_is_told_before_minutes_of_work_with_the_others(
    files: list[Path], tmp_path: Path, last: str, says: str
) -> None:
    told: list[object] = []
    request = EvaluationRequest(tmp_path, None, None, None, "", None, "", None, None, 1, False)
    with pytest.raises((EdgenetError, DeviceError), match=says):
        verification.verify_files([INT8, Path(last)], files, against=None, progress=lambda *one: told.append(one))
    with pytest.raises((EdgenetError, DeviceError), match=says):
        evaluation.evaluate_models([str(INT8), last], request, lambda *one: told.append(one))
    assert told == []


def test_a_container_runs_no_more_processes_than_it_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Pool(ModelPool):
        def __init__(self, path: Path, workers: int) -> None:
            started.append(workers)
            super().__init__(path, workers)

    monkeypatch.setattr(subjects, "ModelPool", Pool)
    monkeypatch.setattr(machine, "cores", lambda: 64)
    monkeypatch.setattr(machine, "lent", lambda _: 1.2)
    with subjects.scorer(subject()) as scores:
        assert next(scores([np.zeros((1, 96, 96, 3), np.uint8)])).shape == (1, 20)
    assert started == [2]


def test_evaluate_starts_no_more_processes_than_it_has_batches_and_says_at_once_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, 1, seed=3)
    seen: list[tuple[str, int, int]] = []

    class Pool(ModelPool):
        def __init__(self, path: Path, workers: int) -> None:
            assert seen == [(f"evaluate {INT8.name}", 0, 20)]
            assert workers == 3
            super().__init__(path, workers)

    monkeypatch.setattr(evaluation, "ModelPool", Pool)
    request = EvaluationRequest(tmp_path, None, None, None, "", None, "", None, None, 500, False)
    (done,) = evaluation.evaluate_models([str(INT8)], request, lambda *one: seen.append(one))
    assert done.accuracy.images == 20


@pytest.mark.parametrize(
    ("eats", "zero_point", "expected"),
    [
        ({"dtype": "uint8"}, 0, [0, 100, 255]),
        ({"dtype": "int8"}, -128, [0, 100, 255]),  # raw bytes: the runtime shifts them
        ({"dtype": "float32", "scale": 1 / 127.5, "offset": -1.0}, 0, [-1, 100 / 127.5 - 1, 1]),
        ({"dtype": "int8", "scale": 1 / 127.5, "offset": -1.0}, 0, [-100, -22, 100]),
        ({"dtype": "int8", "scale": 1.0, "offset": 0.0}, 3, [3, 127, 127]),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_file_is_given_its_own_numbers_in_its_own_layout(
    eats: dict[str, Any], zero_point: int, expected: list[float], layout: str
) -> None:
    """A step of the tensor is a hundredth."""
    tensor = TensorInfo("image", (1, 2, 1, 3), eats["dtype"], 0.01, zero_point)
    pool: Any = SimpleNamespace(info=SimpleNamespace(inputs=(tensor,)), map=lambda batches: batches)
    image = np.array([[[0, 100, 255]], [[100, 0, 255]]], np.uint8)
    (batch,) = subjects.prepared(pool, subject(layout=layout, **eats))([image[np.newaxis]])
    ours = batch.transpose(0, 2, 3, 1) if layout == "NCHW" else batch
    assert ours.shape == (1, 2, 1, 3)
    np.testing.assert_allclose(ours[0, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(ours[0, 1, 0], [expected[1], expected[0], expected[2]], atol=1e-6)
