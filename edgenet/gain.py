"""How many times faster a smaller file is than its float sibling, and why where it hardly is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devices.latency import Latency, speedup
from devices.machine import INT8_FEATURES
from devices.statistics import Ratio
from edgenet.artifact import same_network

if TYPE_CHECKING:
    from devices.native.runner import OperatorTime
    from edgenet.artifact import Manifest

GAINS = 1.05
"""A file is called faster than its float sibling from here on."""

_MATTERS = 0.05  # share of the time, of operators outside of the delegate, that explains something
_NAMED = 3  # kinds of operators

Operators = Callable[[], "Sequence[OperatorTime]"]


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times faster an integer file is than its float sibling; why: where it is hardly faster, else ""."""

    ratio: Ratio
    why: str


def gain_of(
    one: Latency,
    results: Sequence[Latency],
    manifests: Mapping[Path, Manifest | None],
    features: Sequence[str] | None,
    operators: Operators = lambda: (),
) -> Gain | None:
    """Compare with the float32 file of the same network and format, timed in the same call; None where there is none.

    Args:
        one: the smaller file's latency.
        results: of all files of the call.
        manifests: of each of them.
        features: of machine.ISA_FEATURES, those of the processor; None where nobody knows.
        operators: times one's operators; asked only where it is hardly faster. () where that cannot be had.
    """
    manifest = manifests[one.path]
    if manifest is None or manifest.precision not in ("int8", "int16x8", "dynamic", "float16"):
        return None
    for other in results:
        sibling = manifests[other.path]
        if sibling is None or sibling.precision != "float32" or other.threads != one.threads:
            continue
        if sibling.format == manifest.format and same_network(sibling, manifest):
            with contextlib.suppress(ValueError):  # one of them was throttled whenever the other was not
                ratio = speedup(other, one)
                return Gain(ratio, "" if ratio.value > GAINS else why(one, manifest, features, operators))
    return None


def why(one: Latency, manifest: Manifest, features: Sequence[str] | None, operators: Operators = lambda: ()) -> str:
    """Say in a sentence why a file is hardly faster than its float sibling; arguments are gain_of's."""
    if one.delegate == "none":
        return f"no delegate: {one.delegate_note or 'the reference kernels run it'}"
    if manifest.precision == "int16x8":
        return "LiteRT has no fast int16 kernels"
    if manifest.precision == "float16":
        return "float16 is smaller, not faster: it is unpacked to float32 where the processor computes"
    if one.ops and one.delegated_ops is not None and one.delegated_ops < one.ops:
        return f"{one.ops - one.delegated_ops} of {one.ops} operators run outside of {one.delegate}"
    fallen = outside(operators(), one.delegate)
    if fallen:
        return fallen
    # The softmax at the end is always float, and of a few numbers.
    floats = manifest.quantization.kept_float if manifest.quantization else ()
    kept = [one for one in floats if not one.lower().startswith("softmax")]
    reasons = []
    if kept:
        reasons.append(f"stayed float: {', '.join(kept)}")
    if features is not None and not any(name in INT8_FEATURES for name in features):
        reasons.append("the processor has no int8 dot product")
    return "; ".join(reasons) or "its operators are too small to gain"


def outside(operators: Sequence[OperatorTime], delegate: str) -> str:
    """Name the kinds of operators outside of the delegate that take longest, with their shares; "" where few do."""
    whole = sum(one.us for one in operators)
    kinds: dict[str, float] = {}
    for one in operators:
        if not one.delegate:
            kinds[one.name] = kinds.get(one.name, 0.0) + one.us
    if not whole or sum(kinds.values()) < _MATTERS * whole:
        return ""
    slowest = sorted(kinds.items(), key=lambda kind: -kind[1])[:_NAMED]
    named = ", ".join(f"{name} {us / whole:.0%}" for name, us in slowest)
    return f"outside of {delegate or 'the delegate'} run {named} of its time"
