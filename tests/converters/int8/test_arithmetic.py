"""Arithmetic: floats added up in the file's order are the layer's own answer, but for the last bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import layers

from converters.int8 import arithmetic, graph


@pytest.mark.parametrize("size", [(7, 8), (8, 9), (9, 7)])
@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(5, 3, 2, "same"),  # of an even side, zeros are added behind it alone
        layers.Conv2D(5, (3, 2), (2, 1), "valid"),
        layers.Conv2D(5, (2, 5), 1, "same"),
        layers.Conv2D(5, 1, 2),
        layers.DepthwiseConv2D(3, 2, "same"),
        layers.DepthwiseConv2D(5, 1, "valid"),
        layers.DepthwiseConv2D(2, 2, "same"),
        layers.Dense(5),
    ],
    ids=lambda layer: f"{type(layer).__name__} {getattr(layer, 'kernel_size', '')}",
)
def test_floats_in_order_are_the_layers_answer(layer: Any, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (2, *size, 4)).astype(np.float32)
    layer(x)
    kernel, bias = np.asarray(layer.kernel), rng.normal(0, 1, layer.bias.shape).astype(np.float32)
    answer = np.asarray(arithmetic.in_float(layer, kernel, bias, x))
    np.testing.assert_allclose(answer, np.asarray(graph.linear(layer, x, kernel, bias)), atol=2e-6)
