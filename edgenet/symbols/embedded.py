"""What is shipped: the embedded network's weights, and the record of how they came about."""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from edgenet.spec import ModelSpec
from edgenet.symbols.generate import SIZE
from edgenet.symbols.glyphs import LABELS

SPEC = ModelSpec("mobilenet_v2", alpha=0.35, size=SIZE, classes=len(LABELS))
WEIGHTS_NAME = "symbols.weights.h5"
RECORD_NAME = "symbols.json"


@dataclass(frozen=True, slots=True)
class Confusion:
    """The pair of symbols taken for one another most often."""

    truth: str
    answer: str
    images: int


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """How the weights came about and what they reach; it stands beside them as JSON."""

    command: str
    model: str
    labels: tuple[str, ...]
    seed: int
    images: int  # distinct training pictures
    epochs: int
    seconds: float  # wall time, generating the pictures included, the test left out
    cpu_seconds: float | None  # of all threads over the same stretch; None where nobody measured it
    cores: int
    test_seed: int
    test_images: int
    top1: float  # on the pictures of test_seed, 0..1
    worst: Confusion | None  # None where every answer was right
    weights_bytes: int
    weights_sha256: str
    tools: dict[str, str] = field(default_factory=dict)  # name -> version


def weights_path() -> Path:
    """The shipped weights, a file for `keras.Model.load_weights`."""
    return Path(str(resources.files("edgenet.symbols") / WEIGHTS_NAME))


def record() -> TrainingRecord:
    """The shipped weights' record."""
    text = (resources.files("edgenet.symbols") / RECORD_NAME).read_text(encoding="utf-8")
    values = json.loads(text)
    worst = values.pop("worst")
    values["labels"] = tuple(values["labels"])
    return TrainingRecord(**values, worst=Confusion(**worst) if worst else None)
