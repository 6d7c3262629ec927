"""What verify and evaluate are asked with: which option concerns which model. One that concerns none is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devices.runtimes.model_file import SUFFIXES
from edgenet import artifact
from edgenet.errors import UsageError
from edgenet.labels import Labels
from edgenet.nets.network import names_a_network

_NAMED, _OWN = "networks that are named", "Keras models of your own"
_WITHOUT_A_RANGE = f"{_OWN} and files without a manifest"


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


def is_model_file(model: str) -> bool:
    """Say whether a runtime opens this, rather than Keras."""
    return Path(model).suffix.lower() in SUFFIXES


def check_evaluate(models: Sequence[str], request: EvaluationRequest) -> None:
    """Refuse options of evaluate that concern none of its models.

    Raises:
        UsageError: there is one.
    """
    files = [model for model in models if is_model_file(model)]
    foreign = _foreign(map(Path, files))
    network = any(names_a_network(model) for model in models if model not in files)
    keras = any(not names_a_network(model) for model in models if model not in files)
    _refuse_idle(
        ("--weights", request.weights, network, _NAMED),
        ("--classes", request.classes, network, _NAMED),
        ("--size", request.size, keras, _OWN),
        ("--trust", request.trust, keras, _OWN),
        ("--input-range", request.input_range, keras or foreign, _WITHOUT_A_RANGE),
        ("--crop", request.crop, keras or network or foreign, "all but files whose manifest says it"),
        ("--workers", request.workers, bool(files), "model files"),
    )


def check_verify(
    paths: Sequence[Path], against: str, weights: str, classes: int | None, input_range: str, size: int | None
) -> None:
    """Refuse options of verify that would be ignored: they say which network `against` means, or what a file eats.

    Raises:
        UsageError: there is one.
    """
    if not against and (weights or classes or size):
        raise UsageError("--weights, --classes and --size say which network --against means; give it, too")
    network = names_a_network(against)
    _refuse_idle(
        ("--weights", weights, network, _NAMED),
        ("--classes", classes, network, _NAMED),
        ("--size", size, not network, _OWN),
        ("--input-range", input_range, bool(against and not network) or _foreign(paths), _WITHOUT_A_RANGE),
    )


def _foreign(paths: Iterable[Path]) -> bool:
    return any(not artifact.manifest_path(path).exists() for path in paths)


def _refuse_idle(*options: tuple[str, object, bool, str]) -> None:
    """Refuse an option that was given and concerns nothing of the call: (name, given, used, whom it concerns)."""
    for option, given, used, whose in options:
        if given and not used:
            raise UsageError(f"{option} concerns {whose}, and there is none here; leave it out")
