"""Benchmark results that were kept (edgenet.results.recorder), found again."""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.runtimes.model_file import SUFFIXES, sha256
from devices.statistics import bootstrap_ci95
from edgenet.errors import EdgenetError, UsageError
from edgenet.results.database import opened, results_file, storable


@dataclass(frozen=True, slots=True)
class Kept:
    """One repetition: its round, its median, and why it does not count ("" where it does)."""

    round: int
    median_ms: float
    fault: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """One file on one device with one number of threads, as it was kept.

    Attributes:
        id: what `edgenet results` calls it; None where it was read from a JSON document.
        started_at: of its benchmark, UTC, ISO 8601; "" where unknown.
        call: the same for files that were timed in turns.
        board: of the device; "" where unknown.
        runner: what timed it, "python" or "native"; "" where unknown.
        runtime: "LiteRT 2.3.0"; "" where the benchmark did not come to its end.
        path: of the file when it was timed; file: its name.
        verdict: "valid", "throttled", "unstable"; "unfinished" where the benchmark was cut short, or still runs.
        repetitions: those that do not count, too.
        complete: the benchmark came to its end.
        delegate: what ran it within the runtime: "XNNPACK", "none"; "" where the runtime or nobody tells.
    """

    id: int | None
    started_at: str
    call: str
    device: str
    board: str
    runner: str
    runtime: str
    path: str
    file: str
    sha256: str
    precision: str
    threads: int
    median_ms: float
    ci95: tuple[float, float] | None
    verdict: str
    why: str
    repetitions: tuple[Kept, ...]
    complete: bool
    delegate: str = ""

    @property
    def counted(self) -> tuple[Kept, ...]:
        """The repetitions without a fault."""
        return tuple(one for one in self.repetitions if not one.fault)


def recent(limit: int, device: str | None = None, file: str | None = None) -> tuple[Recorded, ...]:
    """List results, the newest first.

    Args:
        limit: how many at most.
        device: only of this one.
        file: only of this file: of its contents, where it is there, and of any that is called so.

    Raises:
        EdgenetError: the database cannot be read.
    """
    where, values = ["1"], []
    if device is not None:
        where.append("device = ?")
        values.append(storable(device))
    if file is not None:
        where.append("(file = ? OR sha256 = ?)")
        values += [storable(Path(file).name), sha256(Path(file)) if Path(file).is_file() else "-"]
    return _read(" AND ".join(where), (*values, limit))


def find(reference: str) -> tuple[Recorded, ...]:
    """Find results by what a user calls them.

    Args:
        reference: a result's number; a model file: its last result on each device with each number of threads, one
            whose benchmark was cut short only where there is no other; or a JSON document of `edgenet bench`.

    Raises:
        UsageError: there is no such result.
        EdgenetError: the database cannot be read, or the document is none of edgenet bench.
    """
    path = Path(reference)
    if reference.isdecimal() and len(reference) < 19:  # what SQLite's integers hold
        found = _read("r.id = ?", (int(reference), 1))
        wrong = f"there is no result {reference}: edgenet results lists them"
    elif not path.is_file():
        found = ()
        wrong = f"{reference} is no result's number, and no model file or JSON document that is there: edgenet results"
    elif path.suffix.lower() in SUFFIXES:
        found = _read(_LAST_OF_A_FILE, (sha256(path), -1))
        wrong = f"{reference} has no result yet: edgenet bench {reference}"
    else:
        found = _document(path)
        wrong = f"{reference} holds no result: edgenet bench --json writes them"
    if not found:
        raise UsageError(wrong)
    return found


def samples(result: int) -> tuple[NDArray[np.int64], ...]:
    """Read every sample of a result: int64 [runs] nanoseconds for each repetition, in order."""
    with opened(create=False) as database:
        rows = database.execute("SELECT samples FROM repetitions WHERE result_id = ? ORDER BY number", (result,))
        return tuple(np.frombuffer(zlib.decompress(blob), "<i8").astype(np.int64) for (blob,) in rows)


_LAST_OF_A_FILE = """r.id IN (SELECT id FROM (
    SELECT r.id, ROW_NUMBER() OVER (PARTITION BY device, threads ORDER BY finished_at IS NULL, r.id DESC) AS place
    FROM results r JOIN calls c ON c.id = call_id WHERE sha256 = ?) WHERE place = 1)"""


def _read(where: str, values: tuple[Any, ...]) -> tuple[Recorded, ...]:
    """Read the results that fit a condition, the newest first; the last of the values is how many at most."""
    if not results_file().exists():
        return ()
    with opened(create=False) as database:
        rows = database.execute(
            f"""SELECT r.*, c.token, c.started_at, c.device, c.runner, c.info FROM results r
            JOIN calls c ON c.id = call_id WHERE {where} ORDER BY r.id DESC LIMIT ?""",
            values,
        )
        return tuple(_recorded(database, row) for row in rows)


def _recorded(database: sqlite3.Connection, row: sqlite3.Row) -> Recorded:
    rows = database.execute(
        "SELECT round, median_ms, fault FROM repetitions WHERE result_id = ? ORDER BY number", (row["id"],)
    )
    repetitions = tuple(Kept(*one) for one in rows)
    median_ms, low, high = row["median_ms"], row["ci_low_ms"], row["ci_high_ms"]
    complete = row["finished_at"] is not None
    if not complete:
        counted = [one for one in repetitions if not one.fault] or repetitions
        medians = np.array([one.median_ms for one in counted])
        median_ms = float(np.median(medians))
        low, high = bootstrap_ci95(medians) if len(medians) > 1 else (None, None)
    return Recorded(
        id=row["id"],
        started_at=row["started_at"],
        call=row["call"] or row["token"],
        device=row["device"],
        board=json.loads(row["info"]).get("board", ""),
        runner=row["runner"],
        runtime=row["runtime"] or "",
        path=row["path"],
        file=row["file"],
        sha256=row["sha256"],
        precision=row["precision"],
        threads=row["threads"],
        median_ms=median_ms,
        ci95=None if low is None else (low, high),
        verdict=row["verdict"] if complete else "unfinished",
        why=row["why"] or "",
        repetitions=repetitions,
        complete=complete,
        delegate=row["delegate"] or "",
    )


def _document(path: Path) -> tuple[Recorded, ...]:
    try:
        return tuple(_from_json(row) for row in _rows(json.loads(path.read_bytes())))
    except KeyError as exc:
        raise EdgenetError(f"{path} is no JSON of edgenet bench: a result in it has no {exc}") from exc
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as exc:
        raise EdgenetError(f"{path} is no JSON of edgenet bench: {exc}") from exc


def _rows(document: Any) -> list[Any]:
    rows = document.get("rows") if isinstance(document, Mapping) else document
    if not isinstance(rows, list):
        raise TypeError("it is no list of results")
    return rows


def _from_json(document: Any) -> Recorded:
    """Read a result as `edgenet bench --json` writes it, or `edgenet results --json`; numbers are checked."""
    if not isinstance(document, Mapping):
        raise TypeError("a result in it is no object")
    interval = document.get("ci95_ms")
    path = Path(document["path"] if "path" in document else document["file"])
    return Recorded(
        id=None,
        started_at=str(document.get("started_at", "")),
        call=str(document["call"]),
        device=str(document["device"]),
        board=str(document.get("board", "")),
        runner=str(document.get("runner", "")),
        runtime=str(document.get("runtime", "")),
        path=str(path),
        file=path.name,
        sha256=str(document["sha256"]),
        precision=str(document.get("precision", "")),
        threads=int(document["threads"]),
        median_ms=_positive(document["median_ms"]),
        ci95=(_positive(interval[0]), _positive(interval[1])) if interval else None,
        verdict=str(document["verdict"]),
        why=str(document.get("why", "")),
        repetitions=tuple(_kept(one) for one in document["repetitions"]),
        complete=document["verdict"] != "unfinished",
        delegate=str(document.get("delegate", "")),
    )


def _kept(document: Any) -> Kept:
    if "median_ms" in document:
        median_ms = _positive(document["median_ms"])
    else:
        times = document["run"]["samples_ns"] or [0]
        median_ms = _positive(np.median(np.array(times, np.float64)) / 1e6)
    return Kept(int(document["round"]), median_ms, str(document["fault"]))


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"a time in it is {number:g} ms")
    return number
