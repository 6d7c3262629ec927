"""ModelSpec: which network, how wide, how large its input, how many classes; and the names the field gives them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, get_args

from edgenet.errors import UsageError

Family = Literal["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]
FAMILIES: tuple[Family, ...] = get_args(Family)

Variant = Literal["", "minimalistic", "standard", "shallow"]
VARIANTS: dict[Family, tuple[Variant, ...]] = {
    "mobilenet_v1": ("standard", "shallow"),
    "mobilenet_v2": (),
    "mobilenet_v3_small": ("minimalistic",),
    "mobilenet_v3_large": ("minimalistic",),
}

PUBLISHED_ALPHAS: dict[Family, tuple[float, ...]] = {
    "mobilenet_v1": (0.25, 0.5, 0.75, 1.0),
    "mobilenet_v2": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    "mobilenet_v3_small": (0.75, 1.0),
    "mobilenet_v3_large": (0.75, 1.0),
}
PUBLISHED_SIZES: dict[Family, tuple[int, ...]] = {
    "mobilenet_v1": (128, 160, 192, 224),
    "mobilenet_v2": (96, 128, 160, 192, 224),
    "mobilenet_v3_small": (224,),
    "mobilenet_v3_large": (224,),
}

_NAME = re.compile(
    r"mobilenet_?(?P<family>v1|v2|v3_?small|v3_?large)"
    r"(?:_(?P<variant>[a-z]+))?(?:_(?P<alpha>\d+(?:\.\d+)?))?(?:_(?P<size>\d+))?"
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network: family x variant x alpha x input size x classes.

    Attributes:
        family: which published block table.
        variant: "" | "minimalistic" (V3: no squeeze-excite, no h-swish, no 5x5) | "standard" (V1: full 3x3
            convolutions) | "shallow" (V1: without the five 14x14x512 blocks).
        alpha: width multiplier, in (0, 2].
        size: input height and width in pixels, at least 32.
        classes: how many probabilities the network answers.
    """

    family: Family
    alpha: float = 1.0
    size: int = 224
    variant: Variant = ""
    classes: int = 1000

    def __post_init__(self) -> None:
        """Refuse what no network can be built from.

        Raises:
            UsageError: alpha, size, classes or variant is out of range.
        """
        if not 0 < self.alpha <= 2:
            raise UsageError(f"alpha is {self.alpha:g}: the width multiplier must be in (0, 2]")
        if self.size < 32:
            raise UsageError(f"input size is {self.size}: a MobileNet halves it five times, so it must be at least 32")
        if self.classes < 2:
            raise UsageError(f"{self.classes} classes: a classifier needs at least 2")
        if self.variant and self.variant not in VARIANTS[self.family]:
            known = ", ".join(VARIANTS[self.family]) or "none"
            raise UsageError(f"{self.family} has no variant {self.variant!r}; its variants: {known}")

    @property
    def name(self) -> str:
        """The canonical name, such as mobilenet_v3_large_minimalistic_1.0_224."""
        middle = f"_{self.variant}" if self.variant else ""
        return f"{self.family}{middle}_{_alpha_text(self.alpha)}_{self.size}"

    @classmethod
    def parse(cls, text: str, classes: int = 1000) -> ModelSpec:
        """Read a name such as mobilenet_v1_0.25_128, mobilenet_v2 (alpha 1.0, 224) or mobilenet_v3_small_1.0_224.

        Case, dashes and a missing underscore (MobileNetV2) do not matter.

        Raises:
            UsageError: no such network; the message names the nearest ones.
        """
        match = _NAME.fullmatch(text.strip().lower().replace("-", "_"))
        variant = (match["variant"] or "") if match else ""
        if match is None or variant not in get_args(Variant):
            raise UsageError(f"no network is called {text!r}; did you mean {' or '.join(_nearest(text))}?")
        number = match["family"].replace("_", "").replace("v3", "v3_")
        family = next(f for f in FAMILIES if f == f"mobilenet_{number}")
        return cls(
            family,
            alpha=float(match["alpha"] or 1.0),
            size=int(match["size"] or 224),
            variant=next(v for v in get_args(Variant) if v == variant),
            classes=classes,
        )


def is_spec(text: str) -> bool:
    """Say whether the text looks like a network's name rather than a file's."""
    return _NAME.fullmatch(text.strip().lower().replace("-", "_")) is not None


def published() -> tuple[ModelSpec, ...]:
    """Every network with published weights or figures: families x variants x alphas x sizes, in the papers' order."""
    plain = [
        ModelSpec(family, alpha, size)
        for family in FAMILIES
        for alpha in sorted(PUBLISHED_ALPHAS[family], reverse=True)
        for size in sorted(PUBLISHED_SIZES[family], reverse=True)
        if alpha <= 1 or size == 224
    ]
    minimalistic = [ModelSpec(f, 1.0, 224, "minimalistic") for f in FAMILIES if "minimalistic" in VARIANTS[f]]
    return (*plain, *minimalistic)


def _alpha_text(alpha: float) -> str:
    text = f"{alpha:.6f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _nearest(text: str) -> list[str]:
    names = [*FAMILIES, *(spec.name for spec in published())]
    wanted = text.strip().lower().replace("-", "_")
    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or list(FAMILIES)
