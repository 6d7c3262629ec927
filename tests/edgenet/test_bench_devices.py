"""`edgenet bench` on several devices in one call: this machine, a real sshd, and a phone behind the real adb."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from devices import registry
from devices.bench import NativeBench, open_bench
from devices.latency import Repetition, measure
from devices.runtimes.timing import Schedule
from edgenet.results.kept import recent
from tests.devices.peers import comes
from tests.devices.tiny_models import tiny_tflite, write

from .command_line import BRIEFLY, Edgenet
from .conftest import Desk
from .symbols_files import INT8

SHORT = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=3, cap_s=5, repetitions=1)


@pytest.mark.slow
def test_three_devices_in_one_call_give_one_answer(desk: Desk, edgenet: Edgenet, made: Path) -> None:
    paths = [made / "symbols_int8.tflite", made / "symbols_float32.tflite", made / "symbols_int8.onnx"]
    devices = [word for name in desk.names for word in ("--device", name)]
    ran = edgenet("bench", *paths, *devices, "--repetitions", 2, "--json", "-o", desk.folder / "results")
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = ran.document["rows"]
    assert [(row["device"], Path(row["path"]).name) for row in rows] == [
        (name, file.name) for name in desk.names for file in paths
    ]
    for file in paths:
        hashes = {row["output_hash"] for row in rows if row["path"] == str(file)}
        assert len(hashes) == 1, f"{file.name} answers differently on {hashes}"
    assert [row["runner"] for row in rows] == ["python"] * 3 + ["native"] * 6
    assert all(len(row["repetitions"]) == 2 for row in rows)
    gained = [row["gain"] for row in rows if row["path"].endswith("int8.tflite")]
    assert all(gain["ratio"]["value"] > 0 for gain in gained)
    assert [row["gain"] for row in rows if "float32" in row["path"]] == [None] * 3
    (saved,) = (desk.folder / "results").glob("bench-*.json")
    assert saved.read_text() == ran.out
    listed = edgenet("results", "--json").document
    assert sorted((one["device"], one["file"], one["started_at"]) for one in listed) == sorted(
        (row["device"], Path(row["path"]).name, row["started_at"]) for row in rows
    )
    assert len({row["started_at"] for row in rows}) == 3
    assert edgenet("compare", saved, saved).code == 0


def test_what_is_there_is_not_pushed_again(desk: Desk) -> None:
    for name in desk.names[1:]:
        moved = []
        for _ in range(2):
            with open_bench(registry.find(name)) as bench:
                assert isinstance(bench, NativeBench)
                bench.time(INT8, 1, SHORT)
                moved.append(bench.pushed_bytes)
        assert moved[1] == 0


def test_a_device_that_is_away_spoils_no_other(desk: Desk, edgenet: Edgenet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = f"nobody@127.0.0.1:{free.getsockname()[1]}"
        free.close()
        devices = ("--device", away, "--device", "local")
        ran = edgenet("bench", INT8, *devices, "--repetitions", 1, "--json")
    assert ran.code == 1
    assert [row["device"] for row in ran.document["rows"]] == ["local"]
    assert "Traceback" not in ran.err
    assert away in ran.err.splitlines()[-1]


def test_a_corrupt_model_ends_in_one_line_there_too(desk: Desk, edgenet: Edgenet, tmp_path: Path) -> None:
    broken = bytearray(INT8.read_bytes())
    broken[8:4000] = os.urandom(3992)
    (tmp_path / "broken.tflite").write_bytes(broken)
    ran = edgenet("bench", tmp_path / "broken.tflite", "--device", "pi", "--repetitions", 1)
    assert (ran.code, ran.out) == (1, "")
    assert "Traceback" not in ran.err
    assert "broken.tflite" in ran.err.splitlines()[-1]


@pytest.mark.parametrize("runner", ["python", "native"])
def test_a_file_that_crashes_costs_no_other_row(desk: Desk, edgenet: Edgenet, tmp_path: Path, runner: str) -> None:
    crashing = write(tmp_path, "crashing.tflite", tiny_tflite(beside="segfaults"))
    options = ("--repetitions", 1, "--threads", "1,2", "--runner", runner, "--json")
    ran = edgenet("bench", crashing, INT8, *options)
    assert ran.code == 1
    assert [(Path(row["path"]).name, row["threads"]) for row in ran.document["rows"]] == [
        (INT8.name, 1),
        (INT8.name, 2),
    ]
    assert len(ran.document["failures"]) == 1  # once, with however many threads
    assert ran.err.splitlines()[-1].startswith("edgenet: ")
    assert "crashing.tflite" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


def test_operators_that_cannot_be_timed_cost_no_row(desk: Desk, tmp_path: Path) -> None:
    """A file that was measured and is gone when its operators' turn comes."""
    file = tmp_path / "a.tflite"
    shutil.copy(INT8, file)
    script = (
        "import os, sys; from devices import latency; from edgenet.__main__ import main\n"
        "after = latency._state_after\n"
        "latency._state_after = lambda *all: (os.unlink(sys.argv[2]), after(*all))[1]\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "bench", str(file), "--repetitions", "1", "--profile-ops"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a.tflite" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("edgenet: operators of a.tflite: ")
    assert "Traceback" not in done.stderr


def test_names_reach_no_shell(desk: Desk, edgenet: Edgenet, tmp_path: Path) -> None:
    odd = tmp_path / "it's $(touch owned); `touch owned` \"ü\n.tflite"
    shutil.copy(INT8, odd)
    for name in desk.names[1:]:
        ran = edgenet("bench", odd, "--device", name, "--repetitions", 1, "--json", cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert ran.document["rows"][0]["path"] == str(odd)
    for device in ("pi; touch owned", "-oProxyCommand=touch owned", "android:$(touch owned)", "a\nb"):
        refused = edgenet("bench", odd, "--device", device, cwd=tmp_path)
        assert refused.code in (1, 2)
        assert "Traceback" not in refused.err
    assert not list(tmp_path.glob("owned*"))
    assert not list(desk.folder.rglob("owned*")) + list(desk.server.home.rglob("owned*"))


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize(
    ("place", "how"),
    [(0, signal.SIGINT), (1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGHUP)],
)
def test_ctrl_c_leaves_nothing_running_and_keeps_what_was_measured(desk: Desk, place: int, how: int) -> None:
    before = len(recent(1000))
    command = [*BRIEFLY, "bench", str(INT8), "--repetitions", "100"]
    bench = subprocess.Popen([*command, "--device", desk.names[place]], stderr=subprocess.PIPE, text=True)
    assert comes(lambda: len(recent(1000)) > before and len(recent(1)[0].repetitions) > 0, 60)
    bench.send_signal(how)
    _, said = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert "Traceback" not in said
    assert re.fullmatch(r"edgenet: interrupted; \d+ repetitions? kept: edgenet results", said.splitlines()[-1])
    assert comes(lambda: not desk.running())
    kept = recent(1000)
    assert len(kept) == before + 1
    assert (kept[0].verdict, kept[0].device) == ("unfinished", desk.names[place])
    assert len(kept[0].repetitions) >= 1


@pytest.mark.parametrize("moment", ["between repetitions", "in the middle of one", "away when the next one starts"])
def test_a_board_that_restarts_goes_on_where_it_was(desk: Desk, moment: str) -> None:
    schedule = dataclasses.replace(SHORT, warmup_s=0.5, repetitions=3)
    restarts: list[threading.Thread] = []

    def restart() -> None:
        if moment != "away when the next one starts":
            desk.server.stop()
        desk.server.start()

    def keep(_path: Path, _threads: int, one: Repetition) -> None:
        if restarts:
            return
        delays_s = {"between repetitions": 0.0, "in the middle of one": 0.3, "away when the next one starts": 3.0}
        restarts.append(threading.Timer(delays_s[moment], restart))
        if moment == "away when the next one starts":
            desk.server.stop()
        restarts[0].start()
        if moment == "between repetitions":
            restarts[0].join()

    with open_bench(registry.find("pi")) as bench:
        (result,) = measure([INT8], schedule=schedule, bench=bench, keep=keep)
        restarts[0].join()
        assert comes(lambda: not desk.running()), "what ran as the connection broke still runs"
    assert [one.round for one in result.repetitions] == [0, 1, 2]
    assert [one.after_gap for one in result.repetitions] == [False, True, False]


def test_two_at_once_take_turns(desk: Desk, edgenet: Edgenet) -> None:
    with open_bench(registry.find("pi")):
        held = edgenet("bench", INT8, "--device", "pi", "--repetitions", 1, "--wait", 0)
    assert held.code == 1
    assert "pi is held by" in held.err
    free = edgenet("bench", INT8, "--device", "pi", "--repetitions", 1, "--wait", 0)
    assert free.code == 0, free.err
