"""What benchmarks/int8.py starts in a process of its own: the float answers, the float graphs, other int8 tools.

    python benchmarks/int8_baselines.py MAKER NETWORK WEIGHTS PICTURES OUT [--graph FILE]

MAKER is one of MAKERS, NETWORK a name that edgenet knows, PICTURES a folder of calibration images. "reference" takes a
text file of pictures in its place, one path a line, and writes the float Keras network's probabilities.

Every tool gets the network as edgenet builds it, without its last softmax: a quantized softmax answers zeros, which
have no logarithm. Its input is normalized float -1..1, its calibration images are those that edgenet takes, cut as
edgenet cuts them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from edgenet.dataset import batches
from edgenet.image import Preprocessing
from edgenet.nets.network import Network, open_network
from edgenet.order import calibration_images

CALIBRATION = 200
BATCH = 32
INPUT = "image"


@dataclass(frozen=True, slots=True)
class Job:
    """What one child is to make.

    Attributes:
        network: with its softmax, as edgenet opens it.
        pictures: folder of calibration images, or the text file that names pictures.
        graph: a float graph that another child made; None where the tool starts from Keras.
        out: the file.
    """

    network: Network
    pictures: Path
    graph: Path | None
    out: Path


def reference(job: Job) -> None:
    """Write the float network's probabilities, float32 [images, classes], as .npy."""
    files = [Path(line) for line in job.pictures.read_text(encoding="utf-8").splitlines()]
    pixels = batches(files, _preprocessing(job), BATCH)
    np.save(job.out, np.concatenate(list(job.network.scores(pixels))))


def float_tflite(job: Job) -> None:
    """Write the float graph that tools for TFLite start from."""
    import tensorflow as tf

    job.out.write_bytes(tf.lite.TFLiteConverter.from_keras_model(logits(job.network)).convert())


def float_onnx(job: Job) -> None:
    """Write the float graph that tools for ONNX start from, and the calibration images, uint8, beside it as .npy."""
    import tensorflow as tf
    import tf2onnx

    core = logits(job.network)
    signature = (tf.TensorSpec((1, *core.inputs[0].shape[1:]), tf.float32, name=INPUT),)
    function = tf.function(lambda image: core(image, training=False), input_signature=signature)
    tf2onnx.convert.from_function(function, input_signature=signature, output_path=str(job.out))
    np.save(job.out.with_suffix(".npy"), np.concatenate(list(_pixels(job))))


def stock_tflite(job: Job) -> None:
    """Quantize with TFLiteConverter as its documentation says."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(logits(job.network))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in _normalized(job))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    job.out.write_bytes(converter.convert())


def stock_ort(job: Job) -> None:
    """Quantize with ONNX Runtime as its documentation says: pre-process, then QDQ with the true minimum and maximum."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = _normalized(job)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    prepared = job.out.with_suffix(".prepared.onnx")
    # Symbolic shapes need sympy, and there are none: the graph has batch 1.
    quant_pre_process(str(job.graph), str(prepared), skip_symbolic_shape=True)
    quantize(
        str(prepared),
        str(job.out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        calibrate_method=CalibrationMethod.MinMax,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def aeq(job: Job) -> None:
    """Quantize with ai-edge-quantizer: its static int8 recipe, its own calibration."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    ((signature, names),) = Interpreter(str(job.graph)).get_signature_list().items()
    # A list: it goes through the images twice, first to count them.
    images = [{names["inputs"][0]: image} for image in _normalized(job)]
    worker = quantizer.Quantizer(str(job.graph), recipe.static_wi8_ai8())
    ranges = worker.calibrate({signature: images})
    job.out.write_bytes(worker.quantize(ranges).quantized_model)


MAKERS: dict[str, Callable[[Job], None]] = {
    "reference": reference,
    "float-tflite": float_tflite,
    "float-onnx": float_onnx,
    "stock-tflite": stock_tflite,
    "stock-ort": stock_ort,
    "aeq": aeq,
}


def logits(network: Network) -> Any:
    """Return the Keras model without its last softmax. Changes the network: it answers no probabilities afterwards."""
    import keras

    core = network.core
    last = core.layers[-1]
    if isinstance(last, keras.layers.Activation):
        return keras.Model(core.inputs[0], last.input, name=core.name)
    last.activation = keras.activations.linear
    return core


def _preprocessing(job: Job) -> Preprocessing:
    return Preprocessing(job.network.height, job.network.width)


def _pixels(job: Job) -> Iterator[np.ndarray]:
    return batches(calibration_images(job.pictures, CALIBRATION).files, _preprocessing(job), BATCH)


def _normalized(job: Job) -> Iterator[np.ndarray]:
    scale, offset = np.float32(job.network.scale), np.float32(job.network.offset)
    for batch in _pixels(job):
        for image in batch:
            yield image[np.newaxis].astype(np.float32) * scale + offset


def main() -> int:
    """Make one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maker", choices=MAKERS)
    parser.add_argument("network")
    parser.add_argument("weights", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--graph", type=Path)
    options = parser.parse_args()
    network = open_network(options.network, weights=str(options.weights))
    MAKERS[options.maker](Job(network, options.pictures, options.graph, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
