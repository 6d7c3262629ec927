"""Latency of edgenet's files against what a user gets today, side by side in one run.

    python benchmarks/artifacts.py [--threads 1,2] [--networks mobilenet_v1,...] [--seconds 1.0]

Today: keras.applications -> TFLiteConverter (float32, int8), model.export(format="onnx"), tf2onnx. Their files take
normalized floats, edgenet's take raw bytes and normalize inside, so the comparison is to edgenet's disadvantage.
Weights are random: latency does not depend on them. Every file is opened anew in each repetition, in random order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from devices.bench import PythonBench
from devices.latency import Latency, measure, speedup
from devices.runtimes.timing import Schedule
from edgenet import deploy, quantization
from edgenet.nets.network import Network, open_network
from edgenet.order import Order, calibration_images

NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
CALIBRATION = 16

# What must hold: our file against theirs, at least this many times faster.
GOALS = {
    ("tflite int8", "mobilenet_v1"): 1.0,
    ("tflite int8", "mobilenet_v2"): 1.0,
    ("tflite int8", "mobilenet_v3_small"): 4.0,
    ("tflite int8", "mobilenet_v3_large"): 4.0,
    ("onnx float32", "mobilenet_v1"): 1.0,
    ("onnx float32", "mobilenet_v2"): 1.0,
    ("onnx float32", "mobilenet_v3_small"): 1.15,
    ("onnx float32", "mobilenet_v3_large"): 1.15,
    ("onnx int8 vs float32", "mobilenet_v1"): 1.0,
    ("onnx int8 vs float32", "mobilenet_v2"): 1.0,
    ("onnx int8 vs float32", "mobilenet_v3_small"): 1.0,
    ("onnx int8 vs float32", "mobilenet_v3_large"): 1.0,
}


def stock(network: Network, folder: Path) -> dict[str, Path]:
    """Make the files that the libraries' own documentation leads to."""
    import tensorflow as tf
    import tf2onnx

    makers = {
        "mobilenet_v1": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
        "mobilenet_v3_small": keras.applications.MobileNetV3Small,
        "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    }
    family = network.name.removesuffix("_1.0_224")
    model = makers[family](weights=None, input_shape=(network.height, network.width, 3))
    images = noise(network.height)

    def representative() -> Any:
        for image in images:
            raw = image[np.newaxis].astype(np.float32)
            yield [raw if "v3" in family else raw / 127.5 - 1]

    files = {name: folder / f"{family}.{name}" for name in ("float32.tflite", "int8.tflite", "export.onnx", "tf2.onnx")}
    files["float32.tflite"].write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    files["int8.tflite"].write_bytes(converter.convert())
    signature = [keras.InputSpec(shape=(1, network.height, network.width, 3), dtype="float32")]
    model.export(files["export.onnx"], format="onnx", input_signature=signature, verbose=False)
    spec = (tf.TensorSpec((1, network.height, network.width, 3), tf.float32, name="image"),)
    function = tf.function(lambda image: model(image, training=False), input_signature=spec)
    tf2onnx.convert.from_function(function, input_signature=spec, output_path=str(files["tf2.onnx"]))
    return files


def noise(size: int) -> np.ndarray:
    """Make calibration images; ranges do not change the latency."""
    return np.random.default_rng(0).integers(0, 256, (CALIBRATION, size, size, 3), np.uint8)


def ours(network: Network, folder: Path) -> dict[str, Path]:
    """Make edgenet's files."""
    from PIL import Image

    pictures = folder / "noise"
    pictures.mkdir(exist_ok=True)
    for i, image in enumerate(noise(network.height)):
        Image.fromarray(image).save(pictures / f"{i}.png")
    order = Order(("tflite", "onnx"), folder / "edgenet")
    calibration = calibration_images(pictures, CALIBRATION)
    made = (
        *deploy.convert(network, "float32", order, silent),
        *quantization.quantize(network, "int8", calibration, order, silent).files,
    )
    return {f"{one.manifest.precision}.{one.manifest.format}": one.path for one in made}


def silent(what: str, done: int, total: int) -> None:
    """Take progress and print none."""


def compare(name: str, threads: tuple[int, ...], schedule: Schedule, folder: Path, table: Table) -> list[str]:
    """Measure one network; fill the table; name the goals that were missed."""
    network = open_network(name, weights="none")
    family = network.name.removesuffix("_1.0_224")
    theirs, own = stock(network, folder), ours(network, folder)
    results = measure([*theirs.values(), *own.values()], threads, schedule, bench=PythonBench(120))
    found = {(one.path, one.threads): one for one in results}
    missed = []
    pairs = (
        ("tflite float32", theirs["float32.tflite"], own["float32.tflite"]),
        ("tflite int8", theirs["int8.tflite"], own["int8.tflite"]),
        ("onnx float32", theirs["export.onnx"], own["float32.onnx"]),
        ("onnx float32 vs tf2onnx", theirs["tf2.onnx"], own["float32.onnx"]),
        ("onnx int8 vs float32", own["float32.onnx"], own["int8.onnx"]),
    )
    for what, base, better in pairs:
        for count in threads:
            slow, fast = found[base, count], found[better, count]
            goal = GOALS.get((what.removesuffix(" vs tf2onnx"), family))
            if _row(table, family, what, slow, fast, goal):
                missed.append(f"{family}: {what}, {count} threads")
    table.add_section()
    return missed


def _row(table: Table, family: str, what: str, slow: Latency, fast: Latency, goal: float | None) -> bool:
    ratio = speedup(slow, fast)
    # "No slower" is judged with the interval: a median 1 % apart in either direction is a tie.
    missed = goal is not None and (ratio.high if goal == 1.0 else ratio.value) < goal
    table.add_row(
        family,
        what,
        str(fast.threads),
        f"{slow.median_ms:.3f}",
        f"{fast.median_ms:.3f}",
        f"{ratio.value:.2f}x",
        f"{ratio.low:.2f} .. {ratio.high:.2f}",
        "" if goal is None else f">= {goal:g}",
        "missed" if missed else "",
        f"{fast.file_bytes / slow.file_bytes:.2f}",
    )
    return missed


def main() -> int:
    """Print the table; exit 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seconds", type=float, default=0.5, help="of measuring, a file, thread count and repetition")
    parser.add_argument("--repetitions", type=int, default=15, help="fewer leave 2 threads on 2 cores to chance")
    options = parser.parse_args()
    threads = tuple(int(n) for n in options.threads.split(","))
    schedule = Schedule(warmup_s=0.3, duration_s=options.seconds, min_runs=50, repetitions=options.repetitions)
    table = Table(title="edgenet against stock, medians in ms", caption="ratio: how many times faster; 95 % interval")
    for column in ("network", "file", "threads", "base", "edgenet", "ratio", "interval", "goal", "", "size ratio"):
        table.add_column(column, justify="left" if column in ("network", "file") else "right")
    missed = []
    for name in options.networks.split(","):
        # The converters print hundreds of lines; stdout is for the table.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            missed += compare(name, threads, schedule, Path(folder), table)
            print(f"{name} measured", file=sys.stderr)
    Console(width=150).print(table)
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
