"""The whole job on the embedded classifier: build, convert, quantize, verify, evaluate, measure; no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devices.runtimes.timing import Schedule
from edgenet import deploy, quantization
from edgenet.artifact import Artifact
from edgenet.benchmarking import Row, benchmark
from edgenet.dataset import labelled
from edgenet.nets.network import open_network
from edgenet.order import Order, calibration_images
from edgenet.progress import Progress
from edgenet.proof.accuracy import Accuracy
from edgenet.proof.evaluation import evaluate_file, evaluate_network
from edgenet.proof.verification import Verification, verify_files
from edgenet.symbols.generate import write_folder
from edgenet.symbols.glyphs import LABELS

# The embedded weights were trained on seed 1 and tested on seed 2; nothing here has been seen by them.
CALIBRATION_SEED, EVALUATION_SEED = 3, 4
CALIBRATION_PER_CLASS, EVALUATION_PER_CLASS = 10, 20
SCHEDULE = Schedule(warmup_s=0.2, duration_s=0.5, min_runs=50, repetitions=3)


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One file, and everything that was proven about it."""

    artifact: Artifact
    verification: Verification
    accuracy: Accuracy
    speed: Row


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's result: the float network's accuracy, and a row a file."""

    folder: Path
    keras: Accuracy
    rows: tuple[DemoRow, ...]


def run(folder: Path, command: str, progress: Progress) -> Demo:
    """Do the whole job into a folder.

    Raises:
        EdgenetError, ConverterError, DeviceError: a step failed.
    """
    progress("build the network", 0, 0)
    network = open_network("symbols")  # first, as it needs Keras: without it nothing is written
    progress("generate images of the symbols", 0, 0)
    write_folder(folder / "symbols-calibration", CALIBRATION_PER_CLASS, CALIBRATION_SEED)
    write_folder(folder / "symbols-images", EVALUATION_PER_CLASS, EVALUATION_SEED)
    order = Order(("tflite", "onnx"), folder, command=command)
    calibration = calibration_images(folder / "symbols-calibration", CALIBRATION_PER_CLASS * len(LABELS))
    made = (
        *deploy.convert(network, "float32", order, progress),
        *quantization.quantize(network, "int8", calibration, order, progress).files,
    )
    dataset = labelled(folder / "symbols-images", LABELS)
    prep = made[0].manifest.input.preprocessing
    keras = evaluate_network(network, dataset, prep, progress).accuracy
    paths = [one.path for one in made]
    verified = verify_files(paths, dataset.files, against=network, progress=progress)
    right = [evaluate_file(one, dataset, None, progress).accuracy for one in made]
    speed = benchmark(paths, (1,), SCHEDULE, progress)
    rows = tuple(DemoRow(*fields) for fields in zip(made, verified, right, speed, strict=True))
    return Demo(folder, keras, rows)
