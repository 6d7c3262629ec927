"""edgenet carries a MobileNet, or your own Keras classifier, to a Raspberry Pi or a phone, with proof at each step.

The public names, loaded when first used, so that `import edgenet` costs nothing:

    network = edgenet.open_network("mobilenet_v2_0.35_96", weights="mine.h5")
    order = edgenet.Order(("tflite", "onnx"), Path("out"), edgenet.read_labels(Path("labels.txt")))
    files = edgenet.convert(network, "float32", order, progress=print)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.errors import ConverterError as ConverterError
    from devices.errors import DeviceError as DeviceError
    from edgenet.artifact import Artifact as Artifact
    from edgenet.artifact import Manifest as Manifest
    from edgenet.benchmarking import Schedule as Schedule
    from edgenet.benchmarking import benchmark as benchmark
    from edgenet.dataset import image_files as image_files
    from edgenet.dataset import labelled as labelled
    from edgenet.deploy import convert as convert
    from edgenet.errors import EdgenetError as EdgenetError
    from edgenet.image import Preprocessing as Preprocessing
    from edgenet.image import load as load_image  # noqa: F401
    from edgenet.labels import Labels as Labels
    from edgenet.labels import read_labels as read_labels
    from edgenet.nets.network import Network as Network
    from edgenet.nets.network import open_network as open_network
    from edgenet.order import Demand as Demand
    from edgenet.order import Order as Order
    from edgenet.order import calibration_images as calibration_images
    from edgenet.proof.evaluation import evaluate_file as evaluate_file
    from edgenet.proof.subjects import open_artifact as open_artifact
    from edgenet.proof.subjects import scorer as scorer
    from edgenet.proof.verification import verify_files as verify_files
    from edgenet.quantization import Quantized as Quantized
    from edgenet.quantization import quantize as quantize
    from edgenet.spec import ModelSpec as ModelSpec

_HOMES = {
    "Artifact": "edgenet.artifact",
    "ConverterError": "converters.errors",
    "Demand": "edgenet.order",
    "DeviceError": "devices.errors",
    "EdgenetError": "edgenet.errors",
    "Labels": "edgenet.labels",
    "Manifest": "edgenet.artifact",
    "ModelSpec": "edgenet.spec",
    "Network": "edgenet.nets.network",
    "Order": "edgenet.order",
    "Preprocessing": "edgenet.image",
    "Quantized": "edgenet.quantization",
    "Schedule": "edgenet.benchmarking",
    "benchmark": "edgenet.benchmarking",
    "calibration_images": "edgenet.order",
    "convert": "edgenet.deploy",
    "evaluate_file": "edgenet.proof.evaluation",
    "image_files": "edgenet.dataset",
    "labelled": "edgenet.dataset",
    "load_image": "edgenet.image",
    "open_artifact": "edgenet.proof.subjects",
    "open_network": "edgenet.nets.network",
    "quantize": "edgenet.quantization",
    "read_labels": "edgenet.labels",
    "scorer": "edgenet.proof.subjects",
    "verify_files": "edgenet.proof.verification",
}
__all__ = [*_HOMES]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgenet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), "load" if name == "load_image" else name)
