"""Time and peak memory of each conversion against calling the converters by hand, whole processes side by side.

    EDGENET_TEST_DATA=... python benchmarks/conversion.py [--repetitions 3]

By hand is the shortest script that the libraries' documentation leads to, imports included; it neither labels nor
describes nor tries its file. Memory is the largest single process. Needs the folder of real weights and photographs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

GOAL = 1.1

PRELUDE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
family, weights, images, out = sys.argv[1:]
if family == "mobilenet_v1_0.25_224":
    model = keras.applications.MobileNet(alpha=0.25, weights=None)
elif family == "mobilenet_v1_1.0_224":
    model = keras.applications.MobileNet(weights=None)
elif family == "mobilenet_v2_1.0_224":
    model = keras.applications.MobileNetV2(weights=None)
else:
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=(224, 224, 3))
model.load_weights(weights)
def pictures():
    from pathlib import Path
    from PIL import Image
    for file in sorted(Path(images).glob("*/*.png")):
        x = np.asarray(Image.open(file).convert("RGB").resize((224, 224), Image.BILINEAR), np.float32)[None]
        yield [x if "v3" in family else x / 127.5 - 1]
"""
BY_HAND = {
    "tflite float32": """
import tensorflow as tf
open(out, "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
""",
    "tflite int8": """
import tensorflow as tf
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = pictures
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
open(out, "wb").write(converter.convert())
""",
    "onnx float32": """
model(np.zeros((1, 224, 224, 3), np.float32))
model.export(out, format="onnx", verbose=False)
""",
    "onnx int8": """
model(np.zeros((1, 224, 224, 3), np.float32))
model.export(out + ".float", format="onnx", verbose=False)
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
class Reader(CalibrationDataReader):
    def __init__(self):
        self.pictures = ({name: p[0]} for p in pictures())
    def get_next(self):
        return next(self.pictures, None)
import onnx
name = onnx.load(out + ".float").graph.input[0].name
quantize_static(out + ".float", out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
""",
}
# By hand is plain calibration. "fast", edgenet's default, corrects biases as well: shown, and held to no goal.
CONVERSIONS = (
    ("tflite float32", ""),
    ("tflite int8", "plain"),
    ("tflite int8", "fast"),
    ("onnx float32", ""),
    ("onnx int8", "plain"),
    ("onnx int8", "fast"),
)
WEIGHTS = {
    "mobilenet_v1_0.25_224": "mobilenet_v1_0.25_224.h5",
    "mobilenet_v1_1.0_224": "mobilenet_v1_1.0_224.weights.h5",
    "mobilenet_v2_1.0_224": "mobilenet_v2_1.0_224.weights.h5",
    "mobilenet_v3_small_1.0_224": "mobilenet_v3_small_1.0_224.weights.h5",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost."""

    seconds: float
    peak_mb: float


def cost(command: list[str]) -> Cost:
    """Run a command; measure its wall time and the peak memory of its largest process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    noise = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{noise.decode()[-2000:]}")
    return Cost(time.perf_counter() - began, usage.ru_maxrss / 1024)


def main() -> int:
    """Print the table; exit 1 if edgenet costs more than GOAL times as much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--networks", default=",".join(WEIGHTS))
    options = parser.parse_args()
    data = Path(os.environ["EDGENET_TEST_DATA"]).resolve()
    images = data / "imagenet" / "calibration"
    table = Table(
        title="whole processes, medians",
        caption=f"ratio: edgenet / by hand; goal <= {GOAL} but for fast, which does more",
    )
    for column in ("network", "conversion", "by hand", "edgenet", "ratio", "by hand", "edgenet", "ratio"):
        table.add_column(column, justify="left" if column in ("network", "conversion") else "right")
    worst = 0.0
    for network in options.networks.split(","):
        weights = data / "models" / WEIGHTS[network]
        for what, effort in CONVERSIONS:
            script = BY_HAND[what]
            kind, precision = what.split()
            verb = (
                ["quantize", "--effort", effort, "--calibration", str(images)] if precision == "int8" else ["convert"]
            )
            theirs: list[Cost] = []
            ours: list[Cost] = []
            for repetition in range(options.repetitions):
                with tempfile.TemporaryDirectory() as out:
                    own = [sys.executable, "-m", "edgenet", verb[0], network, *verb[1:], "--weights", str(weights)]
                    own += ["--to", kind, "-o", out]
                    hand = [sys.executable, "-c", PRELUDE + script, network, str(weights), str(images)]
                    hand += [f"{out}/by_hand.{kind}"]
                    turns = [(ours, own), (theirs, hand)]  # in turn first and second: the first pays for cold files
                    for costs, command in turns if repetition % 2 else reversed(turns):
                        costs.append(cost(command))
            cells = []
            for field in ("seconds", "peak_mb"):
                base, own_figure = (float(np.median([getattr(c, field) for c in costs])) for costs in (theirs, ours))
                if effort != "fast":
                    worst = max(worst, own_figure / base)
                unit = "s" if field == "seconds" else "MB"
                cells += [f"{base:.1f} {unit}", f"{own_figure:.1f} {unit}", f"{own_figure / base:.2f}"]
            table.add_row(network, f"{what} {effort}".strip(), *cells)
        table.add_section()
    Console(width=150).print(table)
    return int(worst > GOAL)


if __name__ == "__main__":
    sys.exit(main())
