"""A float network becomes float artifacts, each proven before it gets its name."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from edgenet import publish
from edgenet.artifact import Artifact
from edgenet.errors import UsageError
from edgenet.nets.network import Network
from edgenet.order import Order
from edgenet.progress import Progress

"""Called with what is being done, how much is done, and of how much (0: nobody knows)."""

FloatPrecision = Literal["float32", "float16"]


def convert(network: Network, precision: FloatPrecision, order: Order, progress: Progress) -> tuple[Artifact, ...]:
    """Convert a network into float files, one a format, each opened by its runtime and run once.

    Raises:
        UsageError: another precision.
        EdgenetError: the labels do not fit, or a file cannot be written.
        ConverterError: a layer cannot be converted.
        DeviceError: the runtime refuses the file.
    """
    if precision not in get_args(FloatPrecision):
        raise UsageError(f'precision {precision!r}: give "float32" or "float16"; the others are edgenet.quantize\'s')
    labels = publish.fitting_labels(order.labels or network.labels, network)
    made: list[Artifact] = []
    for format_ in order.formats:
        progress(f"{network.name} -> {format_} {precision}", 0, 0)
        manifest = publish.draft(network, format_, precision, labels, order, None)
        if format_ == "tflite":
            from converters import to_tflite

            graph = to_tflite.trace(network.core, precision)
            model = to_tflite.convert(graph, scale=network.scale, offset=network.offset)
            content, fallback = publish.labelled(model.flatbuffer, manifest), ""
        else:
            from converters import to_onnx

            written = to_onnx.convert(
                network.core,
                scale=network.scale,
                offset=network.offset,
                precision=precision,
                metadata=publish.properties(manifest),
            )
            content, fallback = written.onnx, written.fallback
        made.append(
            publish.publish(
                content, dataclasses.replace(manifest, tools=publish.tools(format_, precision, fallback)), order.out
            )
        )
    return tuple(made)
