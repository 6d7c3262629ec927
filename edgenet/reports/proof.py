"""What files answered: made, verified, evaluated, and the demo's all of it; for the terminal and for --json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from edgenet.reports import benchmarks
from edgenet.reports.figures import figure, megabytes
from edgenet.reports.short_names import short_names

if TYPE_CHECKING:
    from edgenet.artifact import Artifact
    from edgenet.demo import Demo
    from edgenet.proof.agreement import Verdict
    from edgenet.proof.evaluation import Evaluation
    from edgenet.proof.verification import Verification


def artifact_json(made: Artifact) -> dict[str, Any]:
    """Lay an artifact out for JSON: its path and its whole manifest."""
    return {"path": str(made.path), "manifest": dataclasses.asdict(made.manifest)}


def artifact_table(made: Sequence[Artifact]) -> Table:
    """Draw the files that a verb made."""
    table = Table()
    for column in ("file", "precision", "size", "input", "classes", "stayed float"):
        table.add_column(column, justify="right" if column in ("size", "classes") else "left", overflow="fold")
    for one in made:
        manifest = one.manifest
        eats = f"{manifest.input.dtype} {manifest.input.height}x{manifest.input.width}x3"
        quantization = manifest.quantization
        kept = ", ".join(quantization.kept_float) if quantization else ""
        table.add_row(
            str(one.path), manifest.precision, megabytes(manifest.file_bytes), eats, str(manifest.output.classes), kept
        )
    return table


def verification_json(one: Verification) -> dict[str, Any]:
    """Lay a verification out for JSON."""
    agreement = dataclasses.asdict(one.agreement)
    if not math.isfinite(one.agreement.sqnr_db):
        agreement["sqnr_db"] = None  # JSON has no infinity
    verdict = {"passed": one.verdict.passed, "reasons": list(one.verdict.reasons)}
    return {
        "path": str(one.file),
        "sha256": one.sha256,
        "precision": one.precision,
        **agreement,
        "one_answer": one.one_answer,
        "verdict": verdict,
    }


def verification_table(results: Sequence[Verification]) -> Table:
    """Draw how files agree with their float networks."""
    images = max(one.agreement.images for one in results)
    table = Table(caption=f"against the float Keras network, on {images} images")
    columns = (
        "file",
        "precision",
        "max error",
        "mean error",
        "cosine",
        "SQNR",
        "top-1 agree",
        "top-5 agree",
        "verdict",
    )
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in ("file", "precision", "verdict") else "right"
        table.add_column(column, justify=justify, overflow="fold")
    names = short_names(one.file for one in results)
    for one in results:
        a = one.agreement
        table.add_row(
            names[one.file],
            one.precision,
            f"{a.max_abs:.1e}",
            f"{a.mean_abs:.1e}",
            f"{a.cosine:.5f}",
            _decibels(a.sqnr_db),
            f"{a.top1_agreement:.1%}",
            f"{a.top5_agreement:.1%}",
            _verdict(one.verdict),
        )
    return table


def _verdict(verdict: Verdict) -> Text:
    return Text("passed", style="green") if verdict.passed else Text("; ".join(verdict.reasons), style="red")


def _decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f} dB"


def evaluation_json(one: Evaluation) -> dict[str, Any]:
    """Lay an evaluation out for JSON."""
    a = one.accuracy
    return {
        "model": one.model,
        "sha256": one.sha256,
        "precision": one.precision,
        "runtime": one.runtime,
        "delegate": one.delegate,
        "note": one.note,
        "images": a.images,
        "top1": a.top1,
        "top1_interval": list(a.top1_interval),
        "top5": a.top5,
        "top5_interval": list(a.top5_interval),
        "images_per_s": a.images_per_s,
    }


def evaluation_table(results: Sequence[Evaluation]) -> Table:
    """Draw how often models are right."""
    table = Table(caption=f"{results[0].accuracy.images} images; 95 % intervals (Wilson)")
    for column in ("model", "precision", "top-1", "interval", "top-5", "interval", "images/s", "runs on"):
        justify: Literal["left", "right"] = "left" if column in ("model", "precision", "runs on") else "right"
        table.add_column(column, justify=justify, overflow="fold")
    names = short_names(Path(one.model) for one in results)
    for one in results:
        a = one.accuracy
        low, high = a.top1_interval
        low5, high5 = a.top5_interval
        table.add_row(
            names[Path(one.model)],
            one.precision,
            f"{a.top1:.1%}",
            f"{low:.1%} .. {high:.1%}",
            f"{a.top5:.1%}",
            f"{low5:.1%} .. {high5:.1%}",
            f"{a.images_per_s:.0f}",
            one.delegate,
        )
    return table


def demo_json(result: Demo) -> dict[str, Any]:
    """Lay the demo out for JSON."""
    return {
        "folder": str(result.folder),
        "keras": {"top1": result.keras.top1, "top5": result.keras.top5, "images": result.keras.images},
        "files": [
            {
                **artifact_json(row.artifact),
                "verification": verification_json(row.verification),
                "top1": row.accuracy.top1,
                "top5": row.accuracy.top5,
                "images": row.accuracy.images,
                "latency": benchmarks.row_json(row.speed),
            }
            for row in result.rows
        ],
    }


def demo_table(result: Demo) -> Table:
    """Draw the demo: one row a file."""
    keras = result.keras
    table = Table(
        title="symbols: mobilenet_v2_0.35_96",
        caption=(
            f"top-1 of the float Keras network: {keras.top1:.2%} on {keras.images} generated images it has not seen; "
            f"files and images are in {result.folder}"
        ),
    )
    columns = ("file", "precision", "size", "top-1", "agrees", "SQNR", "latency", "speed-up", "verdict")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in ("file", "precision", "verdict") else "right"
        table.add_column(column, justify=justify, overflow="fold")
    for row in result.rows:
        a, manifest, gain = row.verification.agreement, row.artifact.manifest, row.speed.gain
        table.add_row(
            row.artifact.path.name,
            manifest.precision,
            megabytes(manifest.file_bytes),
            f"{row.accuracy.top1:.2%}",
            f"{a.top1_agreement:.1%}",
            _decibels(a.sqnr_db),
            f"{figure(row.speed.latency.median_ms)} ms",
            "1.00x" if manifest.precision == "float32" else f"{figure(gain.ratio.value)}x" if gain else "",
            _verdict(row.verification.verdict),
        )
    return table
