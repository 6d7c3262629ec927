"""How often model files and networks are right, on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devices.machine import at_once
from devices.runtimes.model_file import SUFFIXES, check_model_file
from devices.runtimes.pool import ModelPool
from edgenet import artifact
from edgenet.artifact import Artifact
from edgenet.dataset import LabelledImages, labelled
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.nets.network import Network, check_model, names_a_network, open_float
from edgenet.proof.accuracy import Accuracy, evaluate
from edgenet.proof.subjects import BATCH, open_artifact, prepared

Progress = Callable[[str, int, int], None]


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
    _refuse_idle_options(models, request)
    for model in models:  # all, before minutes of work
        if is_model_file(model):
            check_model_file(model)
        else:
            check_model(model)
    return tuple(_evaluate_model(model, request, progress) for model in models)


def _refuse_idle_options(models: Sequence[str], request: EvaluationRequest) -> None:
    """Refuse an option that concerns none of the models."""
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


def is_model_file(model: str) -> bool:
    """Say whether a runtime opens this, rather than Keras."""
    return Path(model).suffix.lower() in SUFFIXES


def evaluate_file(subject: Artifact, dataset: LabelledImages, workers: int | None, progress: Progress) -> Evaluation:
    """Measure top-1 and top-5 of a model file, on all cores."""
    name = subject.path.name
    with ModelPool(subject.path, workers or at_once()) as pool:
        scores = prepared(pool, subject)
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
