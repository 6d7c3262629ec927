"""A network laid out: every layer with its sizes, and what it costs. By arithmetic alone, without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgenet.families import (
    V1,
    V1_SHALLOW_WITHOUT,
    V2,
    V3_HEAD,
    V3_LARGE,
    V3_SMALL,
    V3_STEM,
    Activation,
)
from edgenet.spec import ModelSpec

LayerType = Literal["conv", "depthwise", "pointwise", "squeeze-excite", "fully connected", "pool", "scale", "add"]


class Shape(NamedTuple):
    """Height, width, channels of one image's feature map."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it runs: its sizes are final, alpha and input size applied.

    Attributes:
        name: the name Keras gives it.
        type: what is shared out in the totals; a 1x1 convolution on a feature map is "pointwise".
        kernel: side of the square kernel; 0 where there is none.
        stride: 1 or 2.
        pad: explicit zeros (before, after) on both axes ahead of a "valid" convolution; None is "same" padding.
        input: shape of what it reads.
        output: shape of what it answers.
        activation: applied after the batch normalization.
        batch_norm: a batch normalization follows, and the convolution has no bias of its own.
        residual: for "add" and "scale", the name of the earlier layer whose (activated) output is the other operand.
    """

    name: str
    type: LayerType
    kernel: int
    stride: int
    input: Shape
    output: Shape
    pad: tuple[int, int] | None = None
    activation: Activation = "linear"
    batch_norm: bool = False
    residual: str = ""

    @property
    def kernel_weights(self) -> int:
        """Weights of the kernel alone: what the papers count."""
        if self.kernel == 0:
            return 0
        per_output = 1 if self.type == "depthwise" else self.input.channels
        return self.kernel**2 * per_output * self.output.channels

    @property
    def parameters(self) -> int:
        """Kernel plus bias, or plus batch normalization's gamma, beta, mean and variance: what Keras counts."""
        if self.kernel == 0:
            return 0
        return self.kernel_weights + self.output.channels * (4 if self.batch_norm else 1)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the kernel on one image."""
        return self.kernel_weights * self.output.height * self.output.width


def layout(spec: ModelSpec) -> tuple[Layer, ...]:
    """Lay out a network: every layer with its sizes, in the order Keras builds them."""
    plan = _Plan(spec)
    if spec.family == "mobilenet_v1":
        _v1(plan)
    elif spec.family == "mobilenet_v2":
        _v2(plan)
    else:
        _v3(plan)
    return tuple(plan.layers)


def multiply_adds(spec: ModelSpec) -> int:
    """Multiply-adds of one inference."""
    return sum(layer.multiply_adds for layer in layout(spec))


def parameters(spec: ModelSpec) -> int:
    """Parameters as Keras counts them: kernels, biases and all four batch normalization vectors."""
    return sum(layer.parameters for layer in layout(spec))


def kernel_weights(spec: ModelSpec) -> int:
    """Parameters as the papers count them: kernels alone."""
    return sum(layer.kernel_weights for layer in layout(spec))


@dataclass(frozen=True, slots=True)
class Share:
    """What all layers of one type cost together."""

    type: LayerType
    layers: int
    kernel_weights: int
    multiply_adds: int


def shares(spec: ModelSpec) -> tuple[Share, ...]:
    """Sum up each layer type that has weights, dearest in multiply-adds first."""
    table = [layer for layer in layout(spec) if layer.kernel]
    sums = []
    for type_ in dict.fromkeys(layer.type for layer in table):
        own = [layer for layer in table if layer.type == type_]
        weights, cost = sum(x.kernel_weights for x in own), sum(x.multiply_adds for x in own)
        sums.append(Share(type_, len(own), weights, cost))
    return tuple(sorted(sums, key=lambda s: -s.multiply_adds))


def separable_reduction(kernel: int, out: int) -> float:
    """Cost of a separable over a standard convolution: 1/N + 1/D_K^2 (V1, section 3.1)."""
    return 1 / out + 1 / kernel**2


def divisible(channels: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of the divisor, never more than 10 % down (the authors' slim code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class _Plan:
    """Layers laid out so far, and the shape that the next one reads."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.layers: list[Layer] = []
        self.shape = Shape(spec.size, spec.size, 3)

    @property
    def last(self) -> str:
        return self.layers[-1].name

    def conv(
        self,
        name: str,
        type_: LayerType,
        out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        pad: tuple[int, int] | None = None,
        activation: Activation = "linear",
        batch_norm: bool = True,
    ) -> None:
        side = [
            -(-n // stride) if pad is None else (n + sum(pad) - kernel) // stride + 1
            for n in (self.shape.height, self.shape.width)
        ]
        output = Shape(side[0], side[1], out)
        self._append(Layer(name, type_, kernel, stride, self.shape, output, pad, activation, batch_norm))

    def depthwise(self, name: str, kernel: int, stride: int, activation: Activation) -> None:
        """Stride 2 pads as the authors' TensorFlow did: more at the end where the side is even."""
        pad = None if stride == 1 else (kernel // 2 - 1 + self.shape.height % 2, kernel // 2)
        out = self.shape.channels
        self.conv(name, "depthwise", out, kernel=kernel, stride=stride, pad=pad, activation=activation)

    def add(self, name: str, residual: str) -> None:
        self._append(Layer(name, "add", 0, 1, self.shape, self.shape, residual=residual))

    def pool(self, name: str) -> None:
        self._append(Layer(name, "pool", 0, 1, self.shape, Shape(1, 1, self.shape.channels)))

    def squeeze_excite(self, prefix: str) -> None:
        full, residual = self.shape, self.last
        squeezed = divisible(full.channels * 0.25)
        self.pool(f"{prefix}squeeze_excite_avg_pool")
        name = f"{prefix}squeeze_excite_conv"
        self.conv(name, "squeeze-excite", squeezed, activation="relu", batch_norm=False)
        name = f"{prefix}squeeze_excite_conv_1"
        self.conv(name, "squeeze-excite", full.channels, activation="hard_sigmoid", batch_norm=False)
        name = f"{prefix}squeeze_excite_mul"
        self._append(Layer(name, "scale", 0, 1, self.shape, full, residual=residual))

    def classifier(self, name: str) -> None:
        self.conv(name, "fully connected", self.spec.classes, activation="softmax", batch_norm=False)

    def _append(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.shape = layer.output


def _v1(plan: _Plan) -> None:
    def width(out: int) -> int:
        return max(1, int(out * plan.spec.alpha))

    plan.conv("conv1", "conv", width(32), kernel=3, stride=2, activation="relu6")
    rows = enumerate(V1, start=1)
    if plan.spec.variant == "shallow":
        rows = enumerate((row for i, row in enumerate(V1) if i not in V1_SHALLOW_WITHOUT), start=1)
    for i, row in rows:
        # V1 pads (0, 1) at stride 2 whatever the side: at odd sizes this is not "same", and the weights expect it.
        pad = None if row.stride == 1 else (0, 1)
        if plan.spec.variant == "standard":
            plan.conv(f"conv_{i}", "conv", width(row.out), kernel=3, stride=row.stride, pad=pad, activation="relu6")
            continue
        channels = plan.shape.channels
        name = f"conv_dw_{i}"
        plan.conv(name, "depthwise", channels, kernel=3, stride=row.stride, pad=pad, activation="relu6")
        plan.conv(f"conv_pw_{i}", "pointwise", width(row.out), activation="relu6")
    plan.pool("global_average_pooling2d")
    plan.classifier("conv_preds")


def _v2(plan: _Plan) -> None:
    alpha = plan.spec.alpha
    plan.conv("Conv1", "conv", divisible(32 * alpha), kernel=3, stride=2, activation="relu6")
    strided = ((row, row.stride if n == 0 else 1) for row in V2 for n in range(row.repeat))
    for i, (row, stride) in enumerate(strided):
        prefix = f"block_{i}_" if i else "expanded_conv_"
        residual, channels = plan.last, plan.shape.channels
        if row.expansion > 1:
            plan.conv(f"{prefix}expand", "pointwise", row.expansion * channels, activation="relu6")
        plan.depthwise(f"{prefix}depthwise", 3, stride, "relu6")
        out = divisible(int(row.out * alpha))
        plan.conv(f"{prefix}project", "pointwise", out)
        if stride == 1 and channels == out:
            plan.add(f"{prefix}add", residual)
    head = divisible(1280 * alpha) if alpha > 1 else 1280
    plan.conv("Conv_1", "pointwise", head, activation="relu6")
    plan.pool("global_average_pooling2d")
    plan.classifier("predictions")


def _v3(plan: _Plan) -> None:
    alpha, minimal = plan.spec.alpha, plan.spec.variant == "minimalistic"
    table = V3_SMALL if plan.spec.family == "mobilenet_v3_small" else V3_LARGE
    swish: Activation = "relu" if minimal else "hard_swish"
    plan.conv("conv", "conv", V3_STEM, kernel=3, stride=2, activation=swish)
    published_in = V3_STEM
    for i, row in enumerate(table):
        prefix = f"expanded_conv_{i}_" if i else "expanded_conv_"
        activation: Activation = swish if row.activation == "hard_swish" else row.activation
        residual, channels = plan.last, plan.shape.channels
        if i:
            # The published expansion is a ratio of the block's input, so that it scales with alpha.
            expanded = divisible(channels * (row.expanded / published_in))
            plan.conv(f"{prefix}expand", "pointwise", expanded, activation=activation)
        plan.depthwise(f"{prefix}depthwise", 3 if minimal else row.kernel, row.stride, activation)
        if row.squeeze_excite and not minimal:
            plan.squeeze_excite(prefix)
        out = divisible(row.out * alpha)
        plan.conv(f"{prefix}project", "pointwise", out)
        if row.stride == 1 and channels == out:
            plan.add(f"{prefix}add", residual)
        published_in = row.out
    plan.conv("conv_1", "pointwise", divisible(plan.shape.channels * 6), activation=swish)
    plan.pool("global_average_pooling2d")
    head = V3_HEAD[plan.spec.family]
    plan.conv(
        "conv_2",
        "pointwise",
        divisible(head * alpha) if alpha > 1 else head,
        activation=swish,
        batch_norm=False,
    )
    plan.classifier("logits")
