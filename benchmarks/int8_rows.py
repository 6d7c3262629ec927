"""Rows of benchmarks/int8.py's table: what was measured of one file, and the goals that edgenet's files must reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from edgenet.proof.agreement import agree

LOSS = 0.3  # points of top-1
FAST_SECONDS, FAST_MB = 60.0, 2000.0  # over plain
BEST_SECONDS = 600.0
NOISE = 1.96  # standard errors
HELD_TO_GOALS = ("edgenet fast", "edgenet best")


@dataclass(frozen=True, slots=True)
class Goals:
    """What edgenet's files of one network must reach beside the loss and the cost that hold for all. None: not asked.

    Attributes:
        agreement: with the float network, 0..1.
        sqnr_db: of the logits.
        speed: how many times faster than stock TFLite int8, of the TFLite file.
        formats_agree: the .onnx with the .tflite of the same run, 0..1.
        noise_excuses: a loss within the noise of the images is none.
    """

    agreement: float | None = None
    sqnr_db: float | None = None
    speed: float | None = None
    formats_agree: float | None = None
    noise_excuses: bool = True


@dataclass(frozen=True, slots=True)
class Answers:
    """How one file answers.

    Attributes:
        top1: 0..1.
        loss: points of top-1 that the float network has more.
        loss_error: its standard error, of the paired differences.
        agreement: share of images with the float network's first class, 0..1.
        sqnr_db: of the centred logits; None where they are the float network's own.
    """

    top1: float
    loss: float
    loss_error: float
    agreement: float
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One file of one network. None: not measured, or it does not apply.

    Attributes:
        network: its title.
        method: what made the file.
        format: "keras", "tflite" or "onnx".
        failure: why there is no file; "" where there is one.
        answers: how it answers.
        formats_agree: share of images on which edgenet's .onnx and .tflite of one run agree, 0..1.
        seconds: to make it, imports included; edgenet's two files together.
        peak_mb: of the largest process that took part.
        median_ms: latency at 1 thread.
        speed: how many times faster than stock TFLite int8.
    """

    network: str
    method: str
    format: str
    failure: str = ""
    answers: Answers | None = None
    formats_agree: float | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    median_ms: float | None = None
    speed: float | None = None


def compare(reference: np.ndarray, scores: np.ndarray, truth: np.ndarray, name: str) -> Answers:
    """Hold probabilities [images, classes] against the float network's and against the truth, int64 [images].

    The error is that of the paired difference: images on which both are right, or both wrong, add no noise.
    """
    agreement = agree(reference, scores, name=name)
    right, was_right = scores.argmax(axis=1) == truth, reference.argmax(axis=1) == truth
    lost = was_right.astype(np.float64) - right
    return Answers(
        top1=float(right.mean()),
        loss=float(100 * lost.mean()),
        loss_error=float(100 * lost.std() / math.sqrt(len(lost))),
        agreement=agreement.top1_agreement,
        sqnr_db=agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else None,
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of float [n, classes], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def missed(rows: Sequence[Row], goals: Goals) -> list[str]:
    """Name what edgenet's files of one network do not reach."""
    plain = next((row for row in rows if row.method == "edgenet plain" and row.seconds is not None), None)
    found: list[str] = []
    for row in rows:
        if row.method not in HELD_TO_GOALS:
            continue
        reasons = ["no answers"] if row.failure else [*_accuracy(row, goals), *_cost(row, plain)]
        found += [f"{row.network}, {row.method} {row.format}: {reason}" for reason in reasons]
    return found


def _accuracy(row: Row, goals: Goals) -> list[str]:
    reasons = []
    if (answers := row.answers) is not None:
        if answers.loss > max(LOSS, NOISE * answers.loss_error if goals.noise_excuses else 0):
            reasons.append(f"loses {answers.loss:.2f} ± {answers.loss_error:.2f} points of top-1; <= {LOSS:g}")
        if _below(answers.agreement, goals.agreement):
            reasons.append(f"agrees in {answers.agreement:.1%}; >= {goals.agreement:.0%}")
        if _below(answers.sqnr_db, goals.sqnr_db):
            reasons.append(f"SQNR {answers.sqnr_db:.1f} dB; >= {goals.sqnr_db:g} dB")
    if _below(row.formats_agree, goals.formats_agree):
        reasons.append(f".onnx and .tflite agree in {row.formats_agree:.1%}; >= {goals.formats_agree:.0%}")
    if row.format == "tflite" and _below(row.speed, goals.speed):
        reasons.append(f"{row.speed:.2f} times as fast as stock TFLite int8; >= {goals.speed:.2f}")
    return reasons


def _below(value: float | None, goal: float | None) -> bool:
    return value is not None and goal is not None and value < goal


def _cost(row: Row, plain: Row | None) -> list[str]:
    """Judge time and memory; without a plain run beside it, "fast" is judged by all that it takes."""
    assert row.seconds is not None  # a file was made
    assert row.peak_mb is not None
    if row.method == "edgenet best":
        return [f"takes {row.seconds:.0f} s; <= {BEST_SECONDS:.0f} s"] if row.seconds > BEST_SECONDS else []
    seconds = row.seconds - ((plain and plain.seconds) or 0)
    megabytes = row.peak_mb - ((plain and plain.peak_mb) or 0)
    over = " over plain" if plain else ""
    reasons = []
    if seconds > FAST_SECONDS:
        reasons.append(f"takes {seconds:.0f} s{over}; <= {FAST_SECONDS:.0f} s")
    if megabytes > FAST_MB:
        reasons.append(f"takes {megabytes:.0f} MB{over}; <= {FAST_MB:.0f} MB")
    return reasons


def table(images: str) -> Table:
    """Return the empty table."""
    empty = Table(
        title=f"int8 methods side by side, {images}",
        caption="loss: top-1 points against float Keras, ± standard error of the paired difference; formats agree: "
        "edgenet's .onnx and .tflite of one run; made in: processes from start to end, edgenet's two files together; "
        "times stock: how many times faster than stock TFLite int8, 1 thread",
    )
    left = ("network", "method", "format")
    right = ("top-1 %", "loss", "agrees %", "SQNR dB", "formats agree %", "made in s", "MB", "ms", "times stock")
    for column in left:
        empty.add_column(column)
    for column in right:
        empty.add_column(column, justify="right")
    return empty


def add(to: Table, row: Row) -> None:
    """Print one row into the table."""
    answers = row.answers
    if answers is None:
        cells = ["no answers" if row.failure else "", "", "", ""]
    elif row.format == "keras":
        cells = [f"{100 * answers.top1:.2f}", "", "", ""]
    else:
        cells = [
            f"{100 * answers.top1:.2f}",
            f"{answers.loss:+.2f} ± {answers.loss_error:.2f}",
            f"{100 * answers.agreement:.1f}",
            "" if answers.sqnr_db is None else f"{answers.sqnr_db:.1f}",
        ]
    twin = None if row.formats_agree is None else 100 * row.formats_agree
    figures = ((twin, ".1f"), (row.seconds, ".1f"), (row.peak_mb, ".0f"), (row.median_ms, ".3f"), (row.speed, ".2f"))
    cells += ["" if figure is None else format(figure, how) for figure, how in figures]
    to.add_row(row.network, row.method, row.format, *cells)
