"""How often model files and networks are right, on labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.machine import at_once
from devices.runtimes.model_file import check_model_file
from devices.runtimes.pool import ModelPool
from edgenet.artifact import Artifact
from edgenet.dataset import LabelledImages, labelled
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.nets.network import Network, check_model, open_float
from edgenet.progress import Progress
from edgenet.proof.accuracy import Accuracy, evaluate
from edgenet.proof.options import EvaluationRequest, check_evaluate, is_model_file
from edgenet.proof.subjects import BATCH, open_artifact, prepared


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


def evaluate_models(models: Sequence[str], request: EvaluationRequest, progress: Progress) -> tuple[Evaluation, ...]:
    """Measure top-1 and top-5 of model files and of networks.

    Raises:
        UsageError: an option that concerns none of them; nobody says what the classes are called.
        EdgenetError: a class folder fits no label, or a picture cannot be read.
        DeviceError: a file cannot be opened.
    """
    check_evaluate(models, request)
    for model in models:  # all, before minutes of work
        if is_model_file(model):
            check_model_file(model)
        else:
            check_model(model)
    return tuple(_evaluate_model(model, request, progress) for model in models)


def evaluate_file(subject: Artifact, dataset: LabelledImages, workers: int | None, progress: Progress) -> Evaluation:
    """Measure top-1 and top-5 of a model file, on all cores."""
    name = subject.path.name
    progress(f"evaluate {name}", 0, len(dataset.files))
    processes = min(workers or at_once(), math.ceil(len(dataset.files) / BATCH))
    with ModelPool(subject.path, processes) as pool:
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
