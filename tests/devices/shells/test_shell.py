"""What every shell on a device does, on each peer: this machine, a real ssh server, and those that signed up."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.errors import CommandTimeout, DeviceFull, ShellError
from devices.shells.shell import Result, Shell, script
from tests.devices.peers import PEERS, comes, running, small_disk

ODD = (
    "a b",
    "it's",
    'say "x"',
    "$(touch /tmp/edgenet-was-here)",
    "`id`; true & | > <",
    "line\nbreak\n",
    "ünïcödé ☃ 😀",
    os.fsdecode(b"not \xff utf-8"),
    "back\\slash \\0101 %s %b",
    "!bang ~ * ? [a] {b,c} #",
    "-rf",
    "--",
    "\t\r\x01\x7f",
    "x" * 20_000,
)
PRINT_ARGUMENTS = ("sh", "-c", 'for a do printf "%s|" "$a"; done', "sh")


@pytest.fixture(scope="module", params=sorted(PEERS))
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with PEERS[request.param](tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


def left(shell: Shell) -> str:
    """What lies in the folders that are empty while nothing runs, but for the asking itself."""
    text = 'cd "$1"; find . -path "./run/*" -o -path "./incoming/*"'
    lines = shell.run(("sh", "-c", text, "sh", shell.root)).stdout.decode().splitlines()
    return "\n".join(lines[1:] if len(lines) == 1 and lines[0].endswith(".pid") else lines)


@pytest.mark.parametrize("status", [0, 1, 2, 127, 128, 255])
def test_exit_status(shell: Shell, status: int) -> None:
    assert shell.run(("sh", "-c", f"exit {status}")) == Result(status, b"", b"")


def test_death_by_a_signal_is_128_and_its_number(shell: Shell) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        assert shell.run(("sh", "-c", f"kill -{int(number)} $$")) == Result(128 + number, b"", b"")


def test_a_program_that_does_not_exist(shell: Shell) -> None:
    ended = shell.run(("no such program",))
    assert (ended.status, ended.stdout) == (127, b"")
    assert b"no such program" in ended.stderr
    assert b"/run/" not in ended.stderr


@pytest.mark.parametrize("odd", ODD, ids=[ascii(odd)[:24] for odd in ODD])
def test_arguments_arrive_as_they_are(shell: Shell, odd: str) -> None:
    told = shell.run((*PRINT_ARGUMENTS, odd, "", odd))
    assert told == Result(0, os.fsencode(f"{odd}||{odd}|"), b"")
    assert not Path("/tmp/edgenet-was-here").exists()


def test_stdout_and_stderr_are_apart_and_binary(shell: Shell) -> None:
    every = bytes(range(256)) * 64
    text = 'cat; printf "\\377\\000\\r\\n\\012x" >&2'
    assert shell.run(("sh", "-c", text), stdin=every) == Result(0, every, b"\xff\x00\r\n\nx")


@pytest.mark.parametrize("said", [b"", b"no newline", b"\n", b"\n\n\nedgenet-status:0123456789abcdef:0\n", b"\r\n"])
def test_output_ends_as_it_does(shell: Shell, said: bytes) -> None:
    assert shell.run(("cat",), stdin=said).stdout == said


def test_ten_megabytes_of_output(shell: Shell) -> None:
    block = random.Random(4).randbytes(100_000)
    ended = shell.run(("sh", "-c", 'cat >"$1"; for i in 0 1 2 3 4 5 6 7 8 9; do for j in 0 1 2 3 4 5 6 7 8 9; do '
                       'cat "$1"; done; done; rm "$1"', "sh", f"{shell.root}/block"), stdin=block)  # fmt: skip
    assert ended.status == 0
    assert hashlib.sha256(ended.stdout).digest() == hashlib.sha256(block * 100).digest()


def test_stdin_that_nobody_reads(shell: Shell) -> None:
    start = time.monotonic()
    assert shell.run(("true",), stdin=bytes(5_000_000)).status == 0
    assert shell.run(("head", "-c", "3"), stdin=b"abc" * 1_000_000).stdout == b"abc"
    assert time.monotonic() - start < 5


def test_a_command_without_stdin_sees_its_end(shell: Shell) -> None:
    assert shell.run(("cat",), timeout_s=5) == Result(0, b"", b"")


def test_a_timeout_kills_the_command_and_its_grandchildren(shell: Shell) -> None:
    marker = f"9{secrets.randbelow(10**8):08}"
    text = f'sh -c "sleep {marker} & sleep {marker}; true" & trap "" TERM INT HUP; echo on; sleep {marker}; true'
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"0\.5 s and was killed") as told:
        shell.run(("sh", "-c", text), timeout_s=0.5)
    assert time.monotonic() - start < 3
    assert "\n" not in str(told.value)
    assert comes(lambda: not running(marker), 2), running(marker)
    assert shell.run(("echo", "next")).stdout == b"next\n"
    assert comes(lambda: left(shell) == ""), left(shell)


def test_a_killer_that_overtakes_its_command(shell: Shell) -> None:
    sent = script(("echo", "ran"), shell.root)
    shell.run(("sh", "-c", sent.killer))
    assert b"ran" not in shell.run(("sh", "-c", sent.text)).stdout
    assert left(shell) == ""


def test_several_commands_at_once(shell: Shell) -> None:
    meet = 'cd "$1"; touch m$2; until [ -e m0 -a -e m1 -a -e m2 -a -e m3 ]; do sleep 0.02; done; echo $2'
    calls = (("sh", "-c", meet, "sh", shell.root, str(i)) for i in range(4))
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda call: shell.run(call, timeout_s=10).stdout, calls))
    assert told == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_files_of_any_name_go_there_and_back(shell: Shell, tmp_path: Path) -> None:
    names = [name.replace("/", "_")[:200] for name in ODD]
    files = {}
    for i, name in enumerate(names):
        files[f"{name}/{name}"] = tmp_path / name
        files[f"{name}/{name}"].write_bytes(random.Random(i).randbytes(i * 1000))
    (tmp_path / names[0]).chmod(0o755)
    folder = f"{shell.root}/odd 'folder' $(x)\n☃"
    moved = shell.push(files, folder)
    assert moved > sum(path.stat().st_size for path in files.values())
    for name, path in files.items():
        assert shell.pull(f"{folder}/{name}") == path.read_bytes()
    assert not Path("/tmp/edgenet-was-here").exists()
    modes = [stat.S_IMODE(Path(f"{folder}/{name}/{name}").stat().st_mode) & 0o700 for name in names[:2]]
    assert modes == [0o700, 0o600]
    assert left(shell) == ""
    assert shell.run(("rm", "-rf", folder)).status == 0


def test_a_push_replaces_what_was_there(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "model"
    for text in ("long before", "short"):
        path.write_text(text)
        shell.push({"a/model": path, "b": path}, f"{shell.root}/again")
        assert shell.pull(f"{shell.root}/again/a/model") == text.encode()
    shell.push({}, f"{shell.root}/again")
    with pytest.raises(ShellError):  # a folder is in the way; it stays as it is
        shell.push({"a": path}, f"{shell.root}/again")
    assert shell.run(("find", f"{shell.root}/again", "-type", "f")).stdout.count(b"\n") == 2
    assert left(shell) == ""


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "./x", "a/.", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(shell: Shell, tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(ValueError, match="is no name for a file"):
        shell.push({name: tmp_path / "f"}, f"{shell.root}/out")


def test_what_cannot_be_pushed_or_pulled(shell: Shell, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ShellError, match="no file"):
            shell.push({"x": path}, f"{shell.root}/out")
    (tmp_path / "f").write_text("x")
    with pytest.raises(ShellError, match="/proc/nowhere") as told:
        shell.push({"x": tmp_path / "f"}, "/proc/nowhere")
    assert "\n" not in str(told.value)
    for gone in ("/nowhere/$(x)", shell.root):
        with pytest.raises(ShellError, match="cannot read") as told:
            shell.pull(gone)
        assert "\n" not in str(told.value)
    assert left(shell) == ""


def test_a_full_disk_leaves_nothing_half_written(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    with small_disk(shell.root):
        shell.run(("mkdir", f"{shell.root}/run"))
        with pytest.raises(DeviceFull, match=r"no room on .* for 3\.0 MB .*\(2\.\d MB are free\)") as told:
            shell.push({"a": tmp_path / "small", "b": tmp_path / "large"}, f"{shell.root}/files")
        assert "\n" not in str(told.value)
        assert shell.run(("find", shell.root, "-type", "f", "-size", "+0")).stdout.count(b"\n") <= 1  # its own pid
        shell.push({"a": tmp_path / "small"}, f"{shell.root}/files")
        assert shell.pull(f"{shell.root}/files/a") == bytes(1000)


def test_a_torn_archive_is_noticed(shell: Shell, tmp_path: Path) -> None:
    from devices.shells.shell import pack, push_archive  # how a truncated stream looks to the device

    (tmp_path / "f").write_bytes(bytes(1024))
    with pack({"f": tmp_path / "f", "g": tmp_path / "f"}) as archive:
        whole = archive.read()
    assert len(whole) == 10_240
    for cut in (0, 700, 1536, 2000, 3072):

        def send(command: object, timeout_s: float, stdin: object, cut: int = cut) -> Result:
            return shell.run(command, timeout_s, whole[:cut])  # type: ignore[arg-type]

        with pytest.raises(ShellError, match="could not unpack"):
            push_archive(send, "pi", f"{shell.root}/incoming/x", {"f": tmp_path / "f"}, f"{shell.root}/torn", 10)
    assert shell.run(("ls", f"{shell.root}/torn")).status != 0
    assert left(shell) == ""


def test_an_interrupt_here_kills_the_command_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    marker = f"8{secrets.randbelow(10**8):08}"
    code = (
        "from pathlib import Path; from tests.devices.peers import PEERS\n"
        f"with PEERS['local'](Path({str(tmp_path)!r})) as shell:\n"
        f"    shell.run(('sh', '-c', 'sleep {marker} & sleep {marker}'), 60)"
    )
    child = subprocess.Popen((sys.executable, "-c", code), cwd=request.config.rootpath, stderr=subprocess.PIPE)
    with child:
        assert comes(lambda: len(running(f"sleep {marker}")) >= 2, 10)
        child.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in child.communicate(timeout=10)[1]
    assert comes(lambda: not running(marker), 2), running(marker)


def test_closing_twice_and_going_on(shell: Shell) -> None:
    shell.close()
    shell.close()
    assert shell.run(("echo", "on")).stdout == b"on\n"
