"""Benchmark results, written: every repetition with all its samples is committed as it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.errors import DeviceError
from devices.latency import Latency, Repetition
from devices.runtimes.model_file import sha256
from edgenet import artifact
from edgenet.errors import EdgenetError
from edgenet.results.database import insert, opened, transaction, update

if TYPE_CHECKING:
    from devices.device import DeviceInfo

Step = Callable[[sqlite3.Connection], None]

_SUMMARY = (
    *("call", "runtime", "delegate", "delegate_note", "ops", "delegated_ops", "cold_start_ms", "median_ms", "p90_ms"),
    *("p99_ms", "mad_ms", "cv", "peak_rss_bytes", "output_hash", "verdict", "why"),
)

_TOOLS = ("edgenet", "numpy", "ai-edge-litert", "tflite-runtime", "onnxruntime")


class Recorder:
    """Keeps what one command measures. A context manager.

    A database that cannot be written never ends a benchmark: `warn` is told once; what was not written is tried again
    with each repetition, and at the end.

    Attributes:
        kept: how many repetitions are in the database.
        started_at: of the call that `keeper` began last, UTC, ISO 8601; "" before.
        tools: versions of what measures here, by its name.
    """

    def __init__(self, command: str, *, warn: Callable[[str], None], tools: Mapping[str, str] | None = None) -> None:
        self._warn = warn
        self.started_at = ""
        self.tools: Mapping[str, str] = _tools() if tools is None else tools
        self._command = {"command": command, "tools": json.dumps(dict(self.tools))}
        self._pending: list[Step] = []
        self._warned = False
        self._call: _Call | None = None
        self._unwritten = 0
        self.kept = 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pending:
            self._flush()

    def keeper(
        self, device: str, kind: str, runner: str, info: DeviceInfo | None = None
    ) -> Callable[[Path, int, Repetition], None]:
        """Begin a call of `measure`; the answer is its `keep`.

        Args:
            device: as the user calls it.
            kind: how it is reached: "local", "ssh", "adb".
            runner: what times files there: "python", "native".
            info: what the device is, where it was asked.
        """
        what = {"device": device, "kind": kind, "runner": runner, "info": _json(info) if info else "{}"}
        self.started_at = _now()
        row = {"token": secrets.token_hex(8), "started_at": self.started_at, **self._command, **what}
        self._call = call = _Call(row)

        def keep(path: Path, threads: int, one: Repetition) -> None:
            self._unwritten += 1
            self._write(call.repetition(path, threads, one))

        return keep

    def finished(self, latencies: Sequence[Latency]) -> None:
        """Add the summaries of the call that `keeper` began last."""
        if self._call is not None:
            self._write(self._call.summaries(latencies))

    def _write(self, step: Step) -> None:
        self._pending.append(step)
        self._flush()

    def _flush(self) -> None:
        try:
            with opened(create=True) as database, transaction(database):
                for step in self._pending:
                    step(database)
            self._pending.clear()
            self.kept += self._unwritten
            self._unwritten = 0
        except (EdgenetError, DeviceError) as exc:
            if not self._warned:
                self._warn(f"results are shown and not recorded: {exc}")
            self._warned = True


class _Call:
    """Rows of one call of `measure`.

    Each step finds the rows above its own by name: it can be done again whole after a transaction that failed, or one
    that was interrupted as it ended.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row
        self._files: dict[Path, dict[str, Any]] = {}
        self._numbers: Counter[tuple[Path, int]] = Counter()

    def repetition(self, path: Path, threads: int, one: Repetition) -> Step:
        row = {"number": self._numbers[path, threads], **_repetition(one)}
        self._numbers[path, threads] += 1

        def step(database: sqlite3.Connection) -> None:
            insert(database, "repetitions", {"result_id": self._result(database, path, threads), **row}, keys=2)

        return step

    def summaries(self, results: Sequence[Latency]) -> Step:
        finished_at = _now()

        def step(database: sqlite3.Connection) -> None:
            for one in results:
                low, high = one.ci95_ms or (None, None)
                row = {name: getattr(one, name) for name in _SUMMARY}
                row |= {"finished_at": finished_at, "ci_low_ms": low, "ci_high_ms": high}
                row |= {"state_before": _json(one.before), "state_after": _json(one.after)}
                update(database, "results", self._result(database, one.path, one.threads), row)

        return step

    def _result(self, database: sqlite3.Connection, path: Path, threads: int) -> int:
        if path not in self._files:
            self._files[path] = _file(path)
        call = insert(database, "calls", self._row, keys=1)
        row = {"call_id": call, "path": str(path.absolute()), "threads": threads, **self._files[path]}
        return insert(database, "results", row, keys=3)


def _repetition(one: Repetition) -> dict[str, Any]:
    run = one.run
    return {
        "round": one.round,
        "ended_at": _now(),
        "fault": one.fault,
        "after_gap": one.after_gap,
        "hot": one.hot,
        "warmup_runs": run.warmup_runs,
        "load_ms": run.load_ms,
        "first_ms": run.first_ms,
        "peak_rss_bytes": run.peak_rss_bytes,
        "output_hash": run.output_hash,
        "state_warm": _json(run.warm),
        "state_end": _json(run.end),
        "median_ms": float(np.median(run.samples_ns)) / 1e6,
        "samples": zlib.compress(run.samples_ns.astype("<i8").tobytes()),
    }


def _file(path: Path) -> dict[str, Any]:
    row = {"file": path.name, "sha256": "", "file_bytes": 0, "precision": ""}
    with contextlib.suppress(OSError):  # gone by now, and measured all the same
        row |= {"sha256": sha256(path), "file_bytes": path.stat().st_size}
    with contextlib.suppress(EdgenetError):  # a damaged manifest: whoever measures says so
        known = artifact.load(path)
        row["precision"] = known.manifest.precision if known else ""
    return row


def _tools() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _json(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
