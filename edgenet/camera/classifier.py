"""A model file as the camera uses it: a picture in, probabilities out. The file is open in a process of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from devices.errors import DeviceError
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.runtime import ModelInfo
from edgenet import artifact
from edgenet.artifact import Artifact
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Pixels, fit
from edgenet.labels import Labels
from edgenet.proof.subjects import prepared

Tell = Callable[[str], None]
Ask = Callable[[str], Labels | None]


@dataclass(frozen=True, slots=True)
class Card:
    """Who answers; threads: of one inference."""

    model: str
    precision: str
    runtime: str
    threads: int


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of one picture: probabilities float64 [classes], and what that took."""

    probabilities: npt.NDArray[np.float64]
    preprocess_ns: int
    inference_ns: int


class Classifier(Protocol):
    """What answers pictures. One thread uses it; close may come from another."""

    @property
    def card(self) -> Card:
        """Who answers now."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""

    def classify(self, image: Pixels, meanwhile: Callable[[], None] = ...) -> Scores:
        """Answer a picture, uint8 [h, w, 3] in blue, green, red; meanwhile: called while the answer is awaited."""

    def toggle(self) -> Card:
        """Let the sibling of the other precision answer from now on; who that is."""

    def close(self) -> None:
        """End, also in the middle of an answer; harmless twice."""


def default_model() -> Path:
    """The embedded model: symbols in int8, with its float32 sibling beside it.

    Made by `edgenet quantize symbols --calibration symbols-calibration --to tflite` on the calibration images of
    `edgenet demo` and `edgenet convert symbols --to tflite`; a test holds them against the Keras network.
    """
    return Path(str(resources.files("edgenet.symbols") / "symbols_int8.tflite"))


class FileClassifier:
    """A model file and, once asked for, its sibling of the other precision; see Classifier.

    threads: of one inference. labels: they win over what the file says. input_range: (scale, offset) for a foreign file
    that takes floats. warn: told of what is no error. ask: asked for the labels where nobody says any; None: numbers.
    Raises EdgenetError where the labels are not as many as the classes, UsageError where nobody says what a float input
    ranges over, or more say so than the manifest, DeviceError where the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        labels: Labels | None = None,
        input_range: tuple[float, float] | None = None,
        warn: Tell = lambda _: None,
        ask: Ask = lambda _: None,
    ) -> None:
        self._threads = threads
        self._input_range = input_range
        self._lock = threading.Lock()
        self._closed = False
        self._opened: dict[Path, _Opened] = {}
        self._current = self._open(path)
        try:
            self._labels = _names(self._current, labels, warn, ask)
        except BaseException:  # Ctrl-C, too, is an answer
            self.close()
            raise

    @property
    def card(self) -> Card:
        """Who answers now."""
        return self._current.card

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self._labels

    @property
    def artifact(self) -> Artifact:
        """The file that answers now, and what is known of it."""
        return self._current.artifact

    def classify(self, image: Pixels, meanwhile: Callable[[], None] = lambda: None) -> Scores:
        """Answer a picture, uint8 [h, w, 3] in blue, green, red. Raises DeviceError where the model dies of it.

        meanwhile: called while the answer is awaited. What takes longer than that counts as inference.
        """
        try:
            return self._current.classify(image, meanwhile)
        except ValueError as exc:  # a pipe that was closed between two messages
            if not self._closed:
                raise
            raise DeviceError(f"{self._current.artifact.path}: its process is closed") from exc

    def toggle(self) -> Card:
        """Let the sibling of the other precision answer; it stays open. Raises EdgenetError where there is none."""
        path = sibling(self._current.artifact)
        if path not in self._opened:
            self._open(path)
        other = self._opened[path]
        if other.artifact.manifest.output.classes != len(self._labels):
            raise EdgenetError(
                f"{path} answers other classes than {self._current.artifact.path.name}: convert both again"
            )
        self._current = other
        return other.card

    def close(self) -> None:
        """End the processes, also in the middle of an inference; harmless twice."""
        with self._lock:
            self._closed = True
            for one in self._opened.values():
                one.process.close()

    def _open(self, path: Path) -> _Opened:
        process = ModelProcess(path, self._threads)
        try:
            known = artifact.load(path)
            if known and self._input_range:
                raise UsageError(f"--input-range concerns files without a manifest, and {path} has one: leave it out")
            opened = _Opened(process, known or artifact.describe(path, process.info, self._input_range))
        except BaseException:  # no error, and no Ctrl-C, leaves the process behind
            process.close()
            raise
        with self._lock:
            if self._closed:
                process.close()
            self._opened[path] = opened
        return opened


def sibling(one: Artifact) -> Path:
    """Where the same network in the other precision lies: int8 beside float32, anything else beside float32.

    Raises EdgenetError where the file is foreign, or its sibling is not beside it, or was made from another network.
    """
    path, manifest = one.path, one.manifest
    suffix = f"_{manifest.precision}"
    if manifest.source is None or not path.stem.endswith(suffix):
        raise EdgenetError(f"{path.name} has no sibling of another precision: edgenet convert and quantize make both")
    wanted = "int8" if manifest.precision == "float32" else "float32"
    beside = path.with_name(f"{path.stem.removesuffix(suffix)}_{wanted}{path.suffix}")
    known = artifact.load(beside)
    if known is None or not beside.is_file() or known.manifest.name != manifest.name:
        raise EdgenetError(f"{beside.name} is not beside {path.name}: edgenet convert and quantize make both")
    if not artifact.same_network(known.manifest, manifest):
        raise EdgenetError(f"{beside.name} was made from other weights than {path.name}: convert both again")
    return beside


def read_of(path: Path) -> dict[Path, str]:
    """Return the files that a model is read from, and what each is: itself, its sibling, and what lies beside both."""
    files = {path: "the file of the model", artifact.manifest_path(path): "the manifest of the model"}
    with contextlib.suppress(EdgenetError, OSError):  # what is damaged is refused later, in its own words
        known = artifact.load(path)
        if known is not None:
            other = sibling(known)
            files[other] = "the file of the other precision"
            files[artifact.manifest_path(other)] = "the manifest of the other precision"
    return files


class _Alone:
    """One process, where other verbs take a pool of them."""

    def __init__(self, process: ModelProcess) -> None:
        self._process = process
        self.meanwhile: Callable[[], None] = lambda: None

    @property
    def info(self) -> ModelInfo:
        return self._process.info

    def map(self, batches: Iterable[Pixels]) -> Iterator[npt.NDArray[np.float32]]:
        return (self._process.run(batch, self.meanwhile) for batch in batches)


class _Opened:
    """A model file, open."""

    def __init__(self, process: ModelProcess, one: Artifact) -> None:
        self.process = process
        self.artifact = one
        self._prep = one.manifest.input.preprocessing
        self._alone = _Alone(process)
        self._answer = prepared(self._alone, one)
        self._probabilities = one.manifest.output.meaning == "probabilities"
        self._sum_tolerance = one.manifest.output.sum_tolerance
        self._logits = False
        info, manifest = process.info, one.manifest
        runtime = (
            info.runtime if info.delegate in ("none", "CPUExecutionProvider") else f"{info.runtime} {info.delegate}"
        )
        precision = manifest.precision if manifest.precision != "unknown" else info.inputs[0].dtype
        self.card = Card(manifest.name, precision, runtime, process.threads)

    def classify(self, image: Pixels, meanwhile: Callable[[], None]) -> Scores:
        began = time.perf_counter_ns()
        pixels = fit(image, self._prep, channels="BGR")[None]
        prepared = time.perf_counter_ns()
        self._alone.meanwhile = meanwhile
        row = next(self._answer([pixels]))[0].astype(np.float64)
        return Scores(self._as_probabilities(row), prepared - began, time.perf_counter_ns() - prepared)

    def _as_probabilities(self, row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn a foreign file's logits into probabilities; once it has shown any, it is taken to answer logits.

        Probabilities lie in 0..1 and add up to 1; the page's classifier.js decides alike.
        """
        if not np.isfinite(row).all():
            raise EdgenetError(
                f"{self.artifact.path}: answers NaN or infinity, so it has no top class; convert it again"
            )
        if not self._probabilities:
            outside = row.min() < -0.01 or row.max() > 1.01
            self._logits = self._logits or bool(outside or abs(row.sum() - 1) > self._sum_tolerance)
        if self._logits:
            row = np.exp(row - row.max())
            row /= row.sum()
        return row


def _names(opened: _Opened, given: Labels | None, warn: Tell, ask: Ask) -> tuple[str, ...]:
    """Names of the classes: those given, else the file's own, else those that somebody answers, else numbers."""
    path, answers = opened.artifact.path, opened.artifact.manifest.output
    names = given.names if given else answers.labels
    if not names:
        note = opened.process.info.labels_note
        said = f"{path} does not say what its {answers.classes} classes are called{f' ({note})' if note else ''}"
        asked = ask(said)
        if asked is None:
            warn(f"{said}: --labels FILE names them")
            return tuple(f"class {index}" for index in range(answers.classes))
        names = asked.names
    if len(names) != answers.classes:
        raise EdgenetError(f"{path} answers {answers.classes} classes and the labels name {len(names)}: give its own")
    return tuple(_printable(name) for name in names)


def _printable(name: str) -> str:
    """Return a label without what terminals take for commands: a file's labels are as little trusted as the file."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
