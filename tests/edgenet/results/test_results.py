"""Kept results: nothing finished is lost, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.bench import Facts, Timed
from devices.device import DeviceState
from devices.latency import Latency, Repetition, measure
from devices.runtimes.timing import Run, Schedule
from edgenet.errors import EdgenetError, UsageError
from edgenet.reports.results import recorded_json
from edgenet.results import database
from edgenet.results.kept import find, recent, samples
from edgenet.results.recorder import Recorder
from tests.edgenet.conftest import Edgenet

STATE = DeviceState(0.5, "performance", "cppc_cpufreq", 1_500_000, 45.5, 0)
HOT = dataclasses.replace(STATE, throttled=4)
MODEL = b"\0\0\0\0TFL3" + b"\0" * 56


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own; nothing in it, and it is not made yet."""
    folder = tmp_path / "data"
    monkeypatch.setenv("EDGENET_DATA_HOME", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(MODEL)
    return path


def run_of(ms: float, runs: int = 20, end: DeviceState = STATE) -> Run:
    noise = np.random.default_rng(int(ms * 1e6)).integers(-1000, 1000, runs)
    return Run((ms * 1e6 + noise).astype(np.int64), 6, 2.5, 1.5, 64 << 20, "00000000deadbeef", STATE, end)


class Board:
    """A device whose times a test chooses; any device answers just so, some of them later."""

    runner, isa, info, board = "native", (), None, None

    def __init__(self, times: Iterator[float], device: str = "pi4", throttles: int = 0) -> None:
        self.device, self.times, self.throttles = device, times, throttles

    def state(self) -> DeviceState:
        return STATE

    def time(self, path: Path, threads: int, schedule: Schedule) -> Timed:
        self.throttles -= 1
        end = HOT if self.throttles >= 0 else STATE
        return Timed(run_of(next(self.times), end=end), Facts("LiteRT 2.3.0", "XNNPACK", "", 66, 64))


def record(
    paths: list[Path], board: Board, repetitions: int = 5, threads: tuple[int, ...] = (1,)
) -> tuple[list[Latency], list[str]]:
    """Measure and record as edgenet bench does; the results and the warnings."""
    warnings: list[str] = []
    with Recorder("edgenet bench", warn=warnings.append, tools={"edgenet": "1"}) as recorder:
        keep = recorder.keeper(board.device, "ssh", "native")
        made = measure(paths, threads, Schedule(repetitions=repetitions), bench=board, keep=keep)  # type: ignore[arg-type]
        recorder.finished(made)
    return made, warnings


def sql(home: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(home / "results.sqlite3")) as database:
        return database.execute(statement).fetchall()


def test_a_result_is_found_again_with_every_sample_and_state(home: Path, model: Path) -> None:
    assert recent(10) == ()
    assert not home.exists()  # looking makes nothing
    (made,), warnings = record([model], Board(iter([5.0, 9.0, 5.2, 5.1, 5.3, 5.0]), throttles=0), 5)
    assert warnings == []
    (one,) = recent(10)
    assert one.id == 1
    assert (one.device, one.runner, one.runtime, one.file) == ("pi4", "native", "LiteRT 2.3.0", "model.tflite")
    assert one.delegate == "XNNPACK"
    assert (one.sha256, one.threads) == (hashlib.sha256(MODEL).hexdigest(), 1)
    assert (one.median_ms, one.ci95) == (made.median_ms, made.ci95_ms)
    assert (one.verdict, one.why, one.complete) == (made.verdict, made.why, True)
    assert one.started_at.endswith("+00:00")
    assert [kept.median_ms for kept in one.repetitions] == list(made.medians_ms)
    assert [kept.round for kept in one.repetitions] == [0, 1, 2, 3, 4]
    stored = samples(1)
    assert all(array.dtype == np.int64 for array in stored)
    assert np.array_equal(np.concatenate(stored), made.samples_ns)
    assert one.call == made.call
    ((before, warm, tools),) = sql(
        home,
        "SELECT state_before, state_warm, tools FROM results r JOIN repetitions ON result_id = r.id "
        "JOIN calls c ON c.id = call_id LIMIT 1",
    )
    assert json.loads(str(before)) == json.loads(str(warm)) == dataclasses.asdict(STATE)
    assert json.loads(str(tools)) == {"edgenet": "1"}
    assert sql(home, "PRAGMA user_version") == [(len(database.MIGRATIONS),)]
    assert sorted(path.name for path in home.iterdir()) == ["results.sqlite3"]


def test_a_throttled_repetition_is_kept_and_does_not_count(model: Path) -> None:
    (made,), _ = record([model], Board(itertools.chain([9.0], itertools.repeat(5.0)), throttles=1))
    (one,) = recent(1)
    assert [bool(kept.fault) for kept in one.repetitions] == [True, *[False] * 5]
    assert len(one.counted) == 5
    assert one.median_ms == made.median_ms < 6
    with pytest.raises(StopIteration):  # cut short
        record([model], Board(iter([9.0, 5.0, 5.1]), throttles=1))
    (one,) = recent(1)
    assert one.median_ms == pytest.approx(5.05, rel=1e-3)
    assert one.ci95 == pytest.approx((5.0, 5.1), rel=1e-3)


def test_what_is_listed(tmp_path: Path, model: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"onnx, as far as anybody looks")
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(MODEL)
    record([model, other], Board(itertools.repeat(5.0)), threads=(1, 2))
    record([copy], Board(itertools.repeat(6.0), device="phone"))
    assert [one.id for one in recent(99)] == [5, 4, 3, 2, 1]
    assert [one.id for one in recent(2)] == [5, 4]
    assert {one.file for one in recent(99, device="pi4")} == {"model.tflite", "other.onnx"}
    assert {one.file for one in recent(99, file=str(model))} == {"model.tflite", "copy.tflite"}  # the same contents
    assert {one.file for one in recent(99, file="other.onnx")} == {"other.onnx"}  # not there: by its name
    assert recent(99, device="phone", file="other.onnx") == ()


def test_what_a_user_may_call_a_result(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="no result yet: edgenet bench"):
        find(str(model))
    record([model], Board(itertools.repeat(5.0)), threads=(1, 2))
    record([model], Board(itertools.repeat(4.0)))
    record([model], Board(itertools.repeat(9.0), device="phone"))
    assert [one.id for one in find("2")] == [2]
    last = {(one.device, one.threads): one.median_ms for one in find(str(model))}
    assert {at: round(ms) for at, ms in last.items()} == {("pi4", 1): 4, ("pi4", 2): 5, ("phone", 1): 9}
    for reference in ("77", "9" * 30, "missing.tflite", "no such thing", str(tmp_path), "", "-1"):
        with pytest.raises(UsageError) as caught:
            find(reference)
        assert "\n" not in str(caught.value)


def test_names_that_are_no_utf8_and_hold_quotes(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b'it\'s "$(x)" \xff;--.tflite')
    odd.write_bytes(MODEL)
    _, warnings = record([odd], Board(itertools.repeat(5.0), device="android:'; DROP TABLE results"))
    assert warnings == []
    (one,) = recent(9, device="android:'; DROP TABLE results", file=str(odd))
    assert one.file == 'it\'s "$(x)" \\udcff;--.tflite'
    assert [found.id for found in find(str(odd))] == [one.id]


BENCHMARK = """
import sys
from pathlib import Path
import numpy as np
from devices.bench import Facts, Timed
from devices.device import DeviceState
from devices.latency import measure
from devices.runtimes.timing import Run, Schedule
from edgenet.results.recorder import Recorder

STATE = DeviceState(None, None, None, None, None, None)
RUN = Run(np.arange(5_000_000, 5_001_000), 5, 2.5, 1.5, 1 << 20, "deadbeef", STATE, STATE)

class Board:
    device, runner, isa, info, board = "pi4", "native", (), None, None
    def state(self): return STATE
    def time(self, path, threads, schedule): return Timed(RUN, Facts("LiteRT 2.3.0"))

model, repetitions = Path(sys.argv[1]), int(sys.argv[2])
with Recorder("edgenet bench", warn=print) as recorder:
    keep = recorder.keeper("pi4", "ssh", "native")
    def told(path, threads, one):
        keep(path, threads, one)
        print("kept", flush=True)
    measure([model], (1, 2), Schedule(repetitions=repetitions), bench=Board(), keep=told)
print("over")
"""


def benchmark(model: Path, repetitions: int) -> subprocess.Popen[str]:
    """A process that measures and records as fast as it can, and says so after each repetition."""
    command = [sys.executable, "-c", BENCHMARK, str(model), str(repetitions)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 4, 25, 61])
def test_sigkill_loses_no_finished_repetition(home: Path, model: Path, after: int) -> None:
    with benchmark(model, 10_000) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    assert set(told) == {"kept\n"}
    found = recent(10)
    assert all((one.verdict, one.complete) == ("unfinished", False) for one in found)
    counts = sum(len(one.repetitions) for one in found)
    assert counts in (len(told), len(told) + 1)  # one may have been committed and not been told of
    assert sum(len(samples(one.id or 0)) for one in found) == counts
    assert sql(home, "PRAGMA integrity_check") == [("ok",)]
    record([model], Board(itertools.repeat(5.0)))  # and what follows is kept, too
    assert recent(1)[0].complete


def test_a_benchmark_that_was_cut_short_hides_no_complete_one(model: Path) -> None:
    record([model], Board(itertools.repeat(5.0)))
    with pytest.raises(StopIteration):  # stands for whatever ends a benchmark
        record([model], Board(iter([6.0] * 3)), threads=(1, 2))
    assert {(one.threads, one.complete) for one in recent(9)} == {(1, True), (1, False), (2, False)}
    assert {(one.threads, one.complete) for one in find(str(model))} == {(1, True), (2, False)}


def test_a_benchmark_that_was_cut_short_is_judged_by_what_counts(model: Path) -> None:
    with pytest.raises(StopIteration):
        record([model], Board(iter([9.0, 5.0, 5.2, 6.0]), throttles=1))
    (one,) = recent(9)
    assert (one.verdict, one.complete, len(one.counted)) == ("unfinished", False, 3)
    assert one.median_ms == pytest.approx(5.2, abs=1e-3)
    assert one.ci95 == pytest.approx((5.0, 6.0), abs=1e-3)
    document = model.with_name("listed.json")
    document.write_text(json.dumps([recorded_json(one)]))
    assert find(str(document)) == (dataclasses.replace(one, id=None),)


def test_a_kill_in_the_middle_of_a_transaction_undoes_it(home: Path, model: Path) -> None:
    record([model], Board(itertools.repeat(5.0)))
    code = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # what is not committed reaches the file, too
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE repetitions SET median_ms = 0, samples = zeroblob(100000)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    file = home / "results.sqlite3"
    whole = file.read_bytes()
    subprocess.run([sys.executable, "-c", code, file], check=False)
    assert file.read_bytes() != whole
    assert (home / "results.sqlite3-journal").exists()
    (one,) = recent(9)
    assert min(kept.median_ms for kept in one.repetitions) > 4
    assert file.read_bytes() == whole


def test_several_processes_write_at_once(home: Path, model: Path) -> None:
    processes = [benchmark(model, 15) for _ in range(4)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert said == ["kept\n" * 30 + "over\n"] * 4  # no warning
    assert [len(one.repetitions) for one in recent(99)] == [15] * 8
    assert len({one.call for one in recent(99)}) == 4
    assert sql(home, "PRAGMA integrity_check") == [("ok",)]


def corrupt(home: Path) -> None:
    home.mkdir()
    (home / "results.sqlite3").write_bytes(b"no database " * 1000)


def newer(home: Path) -> None:
    home.mkdir()
    sql(home, "PRAGMA user_version = 99")


def not_a_folder(home: Path) -> None:
    home.write_text("a file where the folder should be")


def a_folder_itself(home: Path) -> None:
    (home / "results.sqlite3").mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (corrupt, "file is not a database; it is damaged: move it away"),
        (newer, "is of schema 99, written by a newer edgenet; this one knows 2: upgrade edgenet"),
        (not_a_folder, "check its folder's permissions, or set EDGENET_DATA_HOME"),
        (a_folder_itself, "unable to open database file; check its folder's permissions"),
    ],
)
def test_a_database_that_cannot_be_used_costs_one_warning_and_no_result(
    home: Path, model: Path, spoil: object, says: str
) -> None:
    spoil(home)  # type: ignore[operator]
    before = (home / "results.sqlite3").read_bytes() if (home / "results.sqlite3").is_file() else None
    (made,), warnings = record([model], Board(itertools.repeat(5.0)))
    assert len(made.repetitions) == 5
    assert len(warnings) == 1
    assert warnings[0].startswith("results are shown and not recorded: ")
    assert says in warnings[0]
    assert str(home) in warnings[0]
    assert "\n" not in warnings[0]
    if before is not None:
        assert (home / "results.sqlite3").read_bytes() == before
        with pytest.raises(EdgenetError) as caught:
            recent(9)
        assert says in str(caught.value)


def test_a_user_without_a_home_folder_gets_results_all_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGENET_DATA_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    (made,), warnings = record([model], Board(itertools.repeat(5.0)))
    assert made.median_ms > 0
    assert len(warnings) == 1
    assert "set EDGENET_DATA_HOME" in warnings[0]


def test_a_full_disk_that_gets_room_again_costs_nothing(home: Path, model: Path) -> None:
    resource = pytest.importorskip("resource")
    record([model], Board(itertools.repeat(5.0)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def times() -> Iterator[float]:
        for number in range(5):
            size = 1000 if number in (1, 2) else limits[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            yield 5.0

    try:
        made, warnings = record([model], Board(times()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(warnings) == 1
    assert "not recorded" in warnings[0]
    assert len(made[0].repetitions) == len(recent(1)[0].repetitions) == 5
    assert [kept.round for kept in recent(1)[0].repetitions] == [0, 1, 2, 3, 4]
    assert recent(1)[0].complete
    assert sql(home, "PRAGMA integrity_check") == [("ok",)]


def test_another_program_that_holds_the_database(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    record([model], Board(itertools.repeat(5.0)))
    with contextlib.closing(sqlite3.connect(home / "results.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        _, warnings = record([model], Board(itertools.repeat(5.0)), 1)
        assert len(warnings) == 1
        assert "another program holds it" in warnings[0]
        with pytest.raises(EdgenetError, match="locked"):
            recent(9)
    assert len(recent(9)) == 1


def test_what_could_not_be_written_is_written_at_the_end(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    warnings: list[str] = []
    with Recorder("edgenet bench", warn=warnings.append) as recorder:
        keep = recorder.keeper("pi4", "ssh", "native")
        keep(model, 1, Repetition(0, run_of(5.0), "", False, hot=True))
        with contextlib.closing(sqlite3.connect(home / "results.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            keep(model, 1, Repetition(1, run_of(5.0), "", True))
    (one,) = recent(9)
    assert len(warnings) == 1
    assert [kept.round for kept in one.repetitions] == [0, 1]
    assert sql(home, "SELECT after_gap, hot, warmup_runs FROM repetitions ORDER BY number") == [(0, 1, 6), (1, 0, 6)]


def test_an_interrupt_as_a_transaction_ends_doubles_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    real = database.opened
    with Recorder("edgenet bench", warn=warnings.append) as recorder:
        keep = recorder.keeper("pi4", "ssh", "native")

        @contextlib.contextmanager
        def interrupted(create: bool) -> Iterator[sqlite3.Connection]:
            with real(create) as database:
                yield database
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("edgenet.results.recorder.opened", interrupted)
            with pytest.raises(KeyboardInterrupt):
                keep(model, 1, Repetition(0, run_of(5.0), "", False))
    (one,) = recent(9)
    assert len(one.repetitions) == 1
    assert warnings == []


def test_an_older_database_is_led_to_the_newest_schema(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record([model], Board(itertools.repeat(5.0)))
    known = database.MIGRATIONS
    step = ("ALTER TABLE results ADD COLUMN note TEXT NOT NULL DEFAULT ''", "CREATE TABLE extra (id INTEGER)")
    monkeypatch.setattr(database, "MIGRATIONS", [*known, (*step, "no SQL")])
    with pytest.raises(EdgenetError):
        recent(9)
    assert sql(home, "PRAGMA user_version") == [(len(known),)]  # half a step is none
    assert sql(home, "SELECT name FROM sqlite_master WHERE name = 'extra'") == []
    monkeypatch.setattr(database, "MIGRATIONS", [*known, step])
    record([model], Board(itertools.repeat(5.0)))
    assert [len(one.repetitions) for one in recent(9)] == [5, 5]
    assert sql(home, "PRAGMA user_version") == [(len(known) + 1,)]


def test_a_database_of_the_first_schema_goes_on(home: Path, model: Path) -> None:
    record([model], Board(itertools.repeat(5.0)))
    sql(home, "ALTER TABLE repetitions DROP COLUMN hot")
    sql(home, "PRAGMA user_version = 1")
    record([model], Board(itertools.repeat(5.0)))
    assert [len(one.repetitions) for one in recent(9)] == [5, 5]
    assert sql(home, "SELECT DISTINCT hot FROM repetitions") == [(0,)]


def test_a_file_that_was_only_just_begun_holds_no_result(home: Path, model: Path) -> None:
    home.mkdir()
    (home / "results.sqlite3").touch()  # killed before the schema was committed
    assert recent(9) == ()
    assert record([model], Board(itertools.repeat(5.0)))[1] == []


def test_the_verb_lists_a_table_or_json(edgenet: Edgenet, model: Path) -> None:
    empty = edgenet("results", "--json")
    assert (empty.code, empty.document) == (0, [])
    assert "edgenet bench FILE keeps what it measures" in empty.err
    record([model], Board(itertools.repeat(5.0)))
    long = model.with_name(f"{'long_' * 30}model.tflite")
    long.write_bytes(MODEL)
    record([long], Board(itertools.repeat(6.0), device="phone"))
    listed = edgenet("results")
    assert (listed.code, listed.err) == (0, "")
    assert long.name in listed.out
    lines = [line for line in listed.out.splitlines() if "model.tflite" in line]
    assert ["phone" in line for line in lines] == [True, False]
    assert "5.00 ms" in lines[1]
    assert "valid" in lines[1]
    newest = edgenet("results", "--limit", 1, "--json")
    assert [one["device"] for one in newest.document] == ["phone"]
    assert "there are older ones than the 1 shown: give --limit" in newest.err
    assert edgenet("results", "--limit", 2).err == ""
    document = edgenet("results", "--device", "pi4", "--file", model, "--limit", 5, "--json").document
    assert [(one["id"], one["device"], one["threads"], len(one["repetitions"])) for one in document] == [
        (1, "pi4", 1, 5)
    ]
    assert document[0]["ci95_ms"][0] <= document[0]["median_ms"] <= document[0]["ci95_ms"][1]


def test_the_verb_says_in_a_line_what_is_wrong_with_the_database(home: Path, edgenet: Edgenet) -> None:
    corrupt(home)
    ran = edgenet("results")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert "damaged: move it away" in ran.err
