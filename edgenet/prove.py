"""What a model file answers: does it agree with its float network, and is it right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from devices.machine import at_once
from devices.runtimes.model_file import SUFFIXES, check_model_file
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.pool import ModelPool
from edgenet import artifact
from edgenet.artifact import Artifact, Precision
from edgenet.dataset import LabelledImages, batches, labelled
from edgenet.errors import EdgenetError, UsageError
from edgenet.evaluate import Accuracy, evaluate
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.nets.network import Network, check_model, names_a_network, open_network, reopen
from edgenet.nets.normalization import affine
from edgenet.verify import Agreement, Verdict, agree, judge, one_answer

Progress = Callable[[str, int, int], None]
Scorer = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

BATCH = 8
"""Images that one process of a pool gets at a time: small, so that all cores end together."""

GENERATED_PER_CLASS, GENERATED_SEED = 10, 5


@dataclass(frozen=True, slots=True)
class Verification:
    """How a file's answers compare with its float network's, and whether that is good enough."""

    file: Path
    sha256: str
    precision: Precision
    agreement: Agreement
    verdict: Verdict
    one_answer: float  # share of images of which the float network says the same


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How often a file or a network is right."""

    model: str
    sha256: str  # "" for a network
    precision: str
    runtime: str
    delegate: str
    note: str  # why the default delegate was left out; "" where it was not
    accuracy: Accuracy


def is_model_file(model: str) -> bool:
    """Say whether a runtime opens this, rather than Keras."""
    return Path(model).suffix.lower() in SUFFIXES


def open_artifact(path: Path | str, input_range: str = "", crop: Literal["center", "squash"] = "center") -> Artifact:
    """Read a model file's manifest, or describe a foreign file by what its runtime says.

    Args:
        path: the file.
        input_range: of a foreign file that takes floats: a key of INPUT_RANGES.
        crop: of a foreign file.

    Raises:
        UsageError: a foreign file takes floats, and nobody has said of what range.
        EdgenetError: the manifest does not fit the file, or the file is no image classifier.
        DeviceError: the file cannot be opened.
    """
    path = Path(path)
    known = artifact.load(path)
    if known is not None:
        return known
    with ModelProcess(path) as process:
        return artifact.describe(path, process.info, affine(input_range) if input_range else None, crop)


def verify_files(
    paths: Sequence[Path],
    files: Sequence[Path],
    *,
    against: Network | None,
    input_range: str = "",
    trust: bool = False,
    progress: Progress,
) -> tuple[Verification, ...]:
    """Compare model files with the float network they were made from, on real images.

    Args:
        paths: .tflite and .onnx files.
        files: pictures.
        against: the float network; None builds the one that each manifest names.
        input_range: of foreign files that take floats.
        trust: run code that the user's Keras file brings.
        progress: told of each step.

    Raises:
        UsageError: a foreign file, and no network to compare it with.
    """
    references = _References(against, files, trust, progress)
    subjects = [open_artifact(check_model_file(path), input_range) for path in paths]  # all, before minutes of work
    for subject in subjects:
        references.check(subject)
    results = []
    for subject in subjects:
        path, manifest = subject.path, subject.manifest
        reference = references.scores(subject)
        with scorer(subject) as scores:
            steps = _counted(f"run {path.name}", len(files), progress)
            candidate = np.concatenate(list(steps(scores(batches(files, manifest.input.preprocessing, BATCH)))))
        quantized = manifest.output.dtype != "float32"
        sqnr_of = "probabilities" if quantized else "logits"
        agreement = agree(reference, candidate, name=path.name, sqnr_of=sqnr_of)  # type: ignore[arg-type]
        verdict = judge(agreement, manifest.precision)
        results.append(
            Verification(path, manifest.sha256, manifest.precision, agreement, verdict, one_answer(reference))
        )
    return tuple(results)


def evaluate_file(subject: Artifact, dataset: LabelledImages, workers: int | None, progress: Progress) -> Evaluation:
    """Measure top-1 and top-5 of a model file, on all cores."""
    name = subject.path.name
    with ModelPool(subject.path, workers or at_once()) as pool:
        scores = _prepared(pool, subject)
        accuracy = evaluate(
            scores,
            dataset,
            subject.manifest.input.preprocessing,
            name=name,
            batch_size=BATCH,
            progress=lambda done: progress(f"evaluate {name}", done, len(dataset.files)),
        )
        manifest, info = subject.manifest, pool.info
        return Evaluation(
            str(subject.path),
            manifest.sha256,
            manifest.precision,
            info.runtime,
            info.delegate,
            info.delegate_note,
            accuracy,
        )


def evaluate_network(network: Network, dataset: LabelledImages, prep: Preprocessing, progress: Progress) -> Evaluation:
    """Measure top-1 and top-5 of the float Keras network."""
    accuracy = evaluate(
        network.scores,
        dataset,
        prep,
        name=network.name,
        progress=lambda done: progress(f"evaluate {network.name}", done, len(dataset.files)),
    )
    return Evaluation(network.name, "", "float32", "Keras", "TensorFlow", "", accuracy)


def open_float(
    model: str, weights: str, classes: int | None, input_range: str, size: int | None, trust: bool
) -> Network:
    """Open a network that stands beside model files in one command: each option goes to whom it concerns."""
    if names_a_network(model):
        return open_network(model, weights=weights, classes=classes)
    return open_network(model, input_range=input_range, size=size, trust=trust)


def generated_images(folder: Path) -> Path:
    """Fill a folder with pictures for a user who gives none."""
    from edgenet.symbols.generate import write_folder

    write_folder(folder, GENERATED_PER_CLASS, GENERATED_SEED)
    return folder


@contextlib.contextmanager
def scorer(subject: Artifact, workers: int | None = None) -> Iterator[Scorer]:
    """Open a model file on all cores; yield what turns uint8 batches into float32 scores."""
    with ModelPool(subject.path, workers or at_once()) as pool:
        yield _prepared(pool, subject)


def _prepared(pool: ModelPool, subject: Artifact) -> Scorer:
    """Give a file its input in its own layout and dtype; the files made here take the pixels as they are."""
    scores = _in_its_dtype(pool, subject)
    if subject.manifest.input.layout == "NHWC":
        return scores
    return lambda images: scores(batch.transpose(0, 3, 1, 2) for batch in images)


def _in_its_dtype(pool: ModelPool, subject: Artifact) -> Scorer:
    eats, tensor = subject.manifest.input, pool.info.inputs[0]
    real = np.arange(256, dtype=np.float32) * np.float32(eats.scale) + np.float32(eats.offset)  # of each level
    if eats.dtype == "float32":
        return lambda images: pool.map(real[batch] for batch in images)
    if eats.dtype == "int8" and tensor.zero_point != -128:
        levels = np.clip(np.round(real / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
        return lambda images: pool.map(levels[batch] for batch in images)
    return pool.map  # raw bytes; any other dtype is refused there


def _counted(what: str, total: int, progress: Progress) -> Scorer:
    def steps(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        done = 0
        progress(what, 0, total)
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            progress(what, done, total)

    return steps


class _References:
    """The float networks' answers on the images, each computed once."""

    def __init__(self, against: Network | None, files: Sequence[Path], trust: bool, progress: Progress) -> None:
        self._against = against
        self._files = files
        self._trust = trust
        self._progress = progress
        self._known: dict[tuple[object, Preprocessing], np.ndarray] = {}

    def check(self, subject: Artifact) -> None:
        """Refuse a file whose network nobody names."""
        if self._against is None and subject.manifest.source is None:
            raise UsageError(f"{subject.path} has no manifest, so its float network is unknown; give --against MODEL")

    def scores(self, subject: Artifact) -> np.ndarray:
        """Answer with float32 [images, classes] of the network behind this file, on pictures cut as for this file."""
        source = subject.manifest.source
        prep = subject.manifest.input.preprocessing
        key = (None if self._against else source, prep)
        if key not in self._known:
            self._progress("load the float network", 0, 0)
            network = self._against or reopen(source, trust=self._trust)  # type: ignore[arg-type]
            if (network.height, network.width) != (prep.height, prep.width):
                raise EdgenetError(
                    f"{subject.path} takes {prep.height}x{prep.width} and {network.name} "
                    f"{network.height}x{network.width}; compare it with the network it was made from"
                )
            steps = _counted(f"run {network.name} in float", len(self._files), self._progress)
            answers = steps(network.scores(batches(self._files, prep, 32)))
            self._known[key] = np.concatenate(list(answers))
        return self._known[key]


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What evaluate is to do with each model; the fields are the command's options."""

    data: Path
    limit: int | None
    labels: Labels | None
    wnids: Path | None
    weights: str
    classes: int | None
    input_range: str
    size: int | None
    crop: Literal["center", "squash"] | None  # None: center
    workers: int | None
    trust: bool


def evaluate_models(models: Sequence[str], request: EvaluationRequest, progress: Progress) -> tuple[Evaluation, ...]:
    """Measure top-1 and top-5 of model files and of networks.

    Raises:
        UsageError: an option that concerns none of them; nobody says what the classes are called.
        EdgenetError: a class folder fits no label, or a picture cannot be read.
        DeviceError: a file cannot be opened.
    """
    files = [model for model in models if is_model_file(model)]
    foreign = any(not artifact.manifest_path(Path(model)).exists() for model in files)
    network = any(names_a_network(model) for model in models if model not in files)
    keras = any(not names_a_network(model) for model in models if model not in files)
    for option, given, used, whose in (
        ("--weights", request.weights, network, "networks that are named"),
        ("--classes", request.classes, network, "networks that are named"),
        ("--size", request.size, keras, "Keras models of your own"),
        ("--trust", request.trust, keras, "Keras models of your own"),
        (
            "--input-range",
            request.input_range,
            keras or foreign,
            "Keras models of your own and files without a manifest",
        ),
        ("--crop", request.crop, keras or network or foreign, "all but files whose manifest says it"),
    ):
        if given and not used:
            raise UsageError(f"{option} concerns {whose}, and there is none here; leave it out")
    for model in models:  # all, before minutes of work
        if is_model_file(model):
            check_model_file(model)
        else:
            check_model(model)
    return tuple(_evaluate_model(model, request, progress) for model in models)


def _evaluate_model(model: str, request: EvaluationRequest, progress: Progress) -> Evaluation:
    if is_model_file(model):
        subject = open_artifact(Path(model), request.input_range, request.crop or "center")
        answers = subject.manifest.output
        known = Labels(answers.labels, answers.wnids or None) if answers.labels else None
        dataset = _dataset(model, known, answers.classes, request)
        return evaluate_file(subject, dataset, request.workers, progress)
    progress("load the network", 0, 0)
    network = open_float(model, request.weights, request.classes, request.input_range, request.size, request.trust)
    dataset = _dataset(model, network.labels, network.classes, request)
    prep = Preprocessing(network.height, network.width, request.crop or "center")
    return evaluate_network(network, dataset, prep, progress)


def _dataset(model: str, own: Labels | None, classes: int, request: EvaluationRequest) -> LabelledImages:
    labels = request.labels or own
    if labels is None:
        raise UsageError(f"{model} does not say what its {classes} classes are called; give --labels FILE")
    if len(labels.names) != classes:
        raise EdgenetError(f"{model} answers {classes} classes and the labels name {len(labels.names)}; give its own")
    return labelled(request.data, labels, request.wnids, request.limit)
