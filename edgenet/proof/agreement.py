"""Does a model file answer what the float Keras model answers? Agreement of two score arrays, and the gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgenet.errors import EdgenetError

_Doubles: TypeAlias = npt.NDArray[np.float64]
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a candidate's probabilities are to the reference's, over all images."""

    images: int
    max_abs: float  # largest difference of any probability
    mean_abs: float
    cosine: float  # mean over the images
    sqnr_db: float  # infinite if equal
    sqnr_of: Literal["logits", "probabilities"]
    top1_agreement: float  # share of images with the same first class, 0..1
    top5_agreement: float  # mean share of the first five classes in common, in any order, 0..1


@dataclass(frozen=True, slots=True)
class Gate:
    """What a file of one precision must reach. None: not asked."""

    precision: str
    top1_agreement: float  # at least, 0..1
    max_abs: float | None  # at most
    why: str


GATES = (
    Gate("float32", 1.0, 1e-4, "the same function; only the order of float additions differs"),
    Gate("float16", 0.98, 5e-2, "weights rounded to 11 bits move near-ties, nothing else"),
    Gate("int16x8", 0.97, None, "8-bit weights alone; activations are as good as float"),
    Gate(
        "int8",
        0.90,
        None,
        "8-bit weights and activations: V1 and V2 at full width reach 96 %, a network that lost much 75 % or less",
    ),
    Gate("unknown", 0.90, None, "somebody else's file: whatever it is, nine answers in ten must be its network's"),
    Gate("dynamic", 0.85, None, "8-bit weights without calibration or bias correction: V1-0.25 reaches 77 to 86 %"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a file passes the gate of its precision, and the figures that say no."""

    passed: bool
    precision: str
    reasons: tuple[str, ...]  # such as "top-1 agreement 47.9 % < 90 %"; empty if passed


def agree(
    reference: npt.NDArray[np.floating[Any]],
    candidate: npt.NDArray[np.floating[Any]],
    *,
    name: str,
    sqnr_of: Literal["logits", "probabilities"] = "logits",
) -> Agreement:
    """Compare probabilities float [images, classes] of a candidate with those of a reference.

    The SQNR is 10 log10(sum r^2 / sum (r - c)^2) over all images. r and c are logits recovered as centred
    log-probabilities, log p - mean(log p), which softmax leaves intact but for a shift; p is clipped below at
    float32's smallest normal number. sqnr_of="probabilities" compares p itself: for files whose output is quantised,
    where small p are 0 and have no logarithm worth the name. Equal scores rank by lower index. All in float64. name:
    the candidate's file, for messages. Raises EdgenetError for other shapes, NaN, infinity, or values outside 0..1.
    """
    if reference.shape != candidate.shape or reference.ndim != 2 or 0 in reference.shape:
        raise EdgenetError(
            f"{name}: answers {list(candidate.shape)} where the reference answers {list(reference.shape)} (images, "
            "classes); verify it against the model it was made from"
        )
    ours, theirs = _probabilities(reference, "the reference"), _probabilities(candidate, name)
    difference = np.abs(ours - theirs)
    signal, noise = (ours, ours - theirs)
    if sqnr_of == "logits":
        signal = _centred_logs(ours)
        noise = signal - _centred_logs(theirs)
    top_ours, top_theirs = _top(ours), _top(theirs)
    common = (top_ours[:, :, None] == top_theirs[:, None, :]).any(axis=2)
    return Agreement(
        images=len(ours),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        cosine=float(_cosines(ours, theirs).mean()),
        sqnr_db=_decibels(float(np.square(signal).sum()), float(np.square(noise).sum())),
        sqnr_of=sqnr_of,
        top1_agreement=float((top_ours[:, 0] == top_theirs[:, 0]).mean()),
        top5_agreement=float(common.mean()),
    )


def judge(agreement: Agreement, precision: str) -> Verdict:
    """Hold an agreement against the gate of a precision. Raises EdgenetError for a precision without a gate."""
    gates = {gate.precision: gate for gate in GATES}
    if precision not in gates:
        raise EdgenetError(f"no gate for precision {precision!r}; known are {', '.join(gates)}")
    gate = gates[precision]
    reasons = []
    if gate.max_abs is not None and not agreement.max_abs <= gate.max_abs:
        reasons.append(f"max abs error {agreement.max_abs:.6g} > {gate.max_abs:g}")
    if not agreement.top1_agreement >= gate.top1_agreement:
        # Rounded down: 89.96 % must not read as "90.0 % < 90 %".
        percent = math.floor(agreement.top1_agreement * 1000) / 10
        reasons.append(f"top-1 agreement {percent:.1f} % < {gate.top1_agreement * 100:g} %")
    return Verdict(not reasons, precision, tuple(reasons))


def one_answer(reference: npt.NDArray[np.floating[Any]]) -> float:
    """Return the share of images that have the commonest first class, 0..1: who always says that agrees on as many."""
    return float(np.bincount(_top(reference.astype(np.float64))[:, 0]).max() / len(reference))


def proves_little(one_answer: float, precision: str) -> bool:
    """Say whether what always names one class would pass the gate of a precision, too."""
    gate = next(gate for gate in GATES if gate.precision == precision)
    return gate.max_abs is None and one_answer >= gate.top1_agreement


def _probabilities(scores: npt.NDArray[np.floating[Any]], name: str) -> _Doubles:
    doubles: _Doubles = scores.astype(np.float64)
    if not np.isfinite(doubles).all():
        raise EdgenetError(f"{name}: answers NaN or infinity; convert the model again")
    low, high = float(doubles.min()), float(doubles.max())
    if low < -1e-3 or high > 1 + 1e-3:  # a float16 softmax may overshoot by 5e-4
        raise EdgenetError(
            f"{name}: answers values from {low:.4g} to {high:.4g}, no probabilities; end the model with a softmax"
        )
    return doubles


def _centred_logs(probabilities: _Doubles) -> _Doubles:
    logs = np.log(np.maximum(probabilities, _TINY))
    centred: _Doubles = logs - logs.mean(axis=1, keepdims=True)
    return centred


def _cosines(a: _Doubles, b: _Doubles) -> _Doubles:
    """Return the cosine of each row pair; of a row of zeros (a quantised output may be one) 1 with another, else 0."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~(a.any(axis=1) | b.any(axis=1))
    cosines: _Doubles = np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), both_zero)
    return cosines


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _top(scores: _Doubles) -> npt.NDArray[np.int64]:
    """Return the five highest classes of each row (all, if fewer), highest first; of equal ones the lower index."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :5].astype(np.int64)
