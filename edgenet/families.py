"""The published block tables of MobileNet V1, V2 and V3, as typed rows. They stand here once.

edgenet.layers lays a network out from them; edgenet.nets.build makes the Keras model from the same layers.

Sources: V1 Howard et al. 2017 (arXiv 1704.04861), table 1; V2 Sandler et al. 2018 (arXiv 1801.04381), table 2;
V3 Howard et al. 2019 (arXiv 1905.02244), tables 1 and 2.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Activation = Literal["linear", "relu", "relu6", "hard_swish", "hard_sigmoid", "softmax"]


class Separable(NamedTuple):
    """One depthwise separable block: depthwise 3x3, then pointwise (V1, table 1)."""

    out: int  # channels after the pointwise convolution, at alpha = 1
    stride: int


class Inverted(NamedTuple):
    """A run of inverted residual blocks (V2, table 2: t, c, n, s)."""

    expansion: int
    out: int  # channels after projection, at alpha = 1
    repeat: int
    stride: int  # of the first block; the others have 1


class Bottleneck(NamedTuple):
    """One inverted residual block of V3 (tables 1 and 2)."""

    kernel: int
    expanded: int  # channels after expansion, at alpha = 1
    out: int  # channels after projection, at alpha = 1
    squeeze_excite: bool
    activation: Activation
    stride: int


V1 = (
    Separable(64, 1),  # 112 x 112
    Separable(128, 2),  # 112 -> 56
    Separable(128, 1),
    Separable(256, 2),  # 56 -> 28
    Separable(256, 1),
    Separable(512, 2),  # 28 -> 14
    Separable(512, 1),  # these five are what the shallow network leaves out
    Separable(512, 1),
    Separable(512, 1),
    Separable(512, 1),
    Separable(512, 1),
    Separable(1024, 2),  # 14 -> 7
    # Table 1 in print gives this depthwise layer stride 2 at 7x7. It must be 1: the row below it in print (pointwise,
    # 7x7x1024) and the 569 M multiply-adds only come out that way.
    Separable(1024, 1),  # 7 x 7
)
V1_SHALLOW_WITHOUT = range(6, 11)

V2 = (
    Inverted(1, 16, 1, 1),  # 112 x 112
    Inverted(6, 24, 2, 2),  # 112 -> 56
    Inverted(6, 32, 3, 2),  # 56 -> 28
    Inverted(6, 64, 4, 2),  # 28 -> 14
    Inverted(6, 96, 3, 1),
    Inverted(6, 160, 3, 2),  # 14 -> 7
    Inverted(6, 320, 1, 1),
)

V3_LARGE = (
    Bottleneck(3, 16, 16, False, "relu", 1),  # 112 x 112
    Bottleneck(3, 64, 24, False, "relu", 2),  # 112 -> 56
    Bottleneck(3, 72, 24, False, "relu", 1),
    Bottleneck(5, 72, 40, True, "relu", 2),  # 56 -> 28
    Bottleneck(5, 120, 40, True, "relu", 1),
    Bottleneck(5, 120, 40, True, "relu", 1),
    Bottleneck(3, 240, 80, False, "hard_swish", 2),  # 28 -> 14
    Bottleneck(3, 200, 80, False, "hard_swish", 1),
    Bottleneck(3, 184, 80, False, "hard_swish", 1),
    Bottleneck(3, 184, 80, False, "hard_swish", 1),
    Bottleneck(3, 480, 112, True, "hard_swish", 1),
    Bottleneck(3, 672, 112, True, "hard_swish", 1),
    Bottleneck(5, 672, 160, True, "hard_swish", 2),  # 14 -> 7
    Bottleneck(5, 960, 160, True, "hard_swish", 1),
    Bottleneck(5, 960, 160, True, "hard_swish", 1),
)

V3_SMALL = (
    Bottleneck(3, 16, 16, True, "relu", 2),  # 112 -> 56
    Bottleneck(3, 72, 24, False, "relu", 2),  # 56 -> 28
    Bottleneck(3, 88, 24, False, "relu", 1),
    Bottleneck(5, 96, 40, True, "hard_swish", 2),  # 28 -> 14
    Bottleneck(5, 240, 40, True, "hard_swish", 1),
    Bottleneck(5, 240, 40, True, "hard_swish", 1),
    Bottleneck(5, 120, 48, True, "hard_swish", 1),
    Bottleneck(5, 144, 48, True, "hard_swish", 1),
    Bottleneck(5, 288, 96, True, "hard_swish", 2),  # 14 -> 7
    Bottleneck(5, 576, 96, True, "hard_swish", 1),
    Bottleneck(5, 576, 96, True, "hard_swish", 1),
)
V3_STEM = 16  # not multiplied by alpha, in the authors' code as in Keras
# V3-Small: version 1 of the paper says 66 M multiply-adds and 2.9 M parameters, the final one 56 M and 2.5 M: the last
# layer answered 1280 channels first, and 1024 in the end. Keras' published weights are the final network's, so is this.
V3_HEAD = {"mobilenet_v3_large": 1280, "mobilenet_v3_small": 1024}  # multiplied by alpha only above 1
