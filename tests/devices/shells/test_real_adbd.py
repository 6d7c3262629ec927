"""A shell over adb to Debian's adbd: what every shell does, and what the daemon of our own cannot vouch for."""

from __future__ import annotations

import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import DeviceLost
from devices.shells.adb import AdbShell, phones
from tests.devices.peers import comes, running
from tests.devices.real_adbd import RealAdbd

from .test_shell import (  # noqa: F401  (they run on the shell below)
    test_a_command_without_stdin_sees_its_end,
    test_a_full_disk_leaves_nothing_half_written,
    test_a_killer_that_overtakes_its_command,
    test_a_program_that_does_not_exist,
    test_a_push_replaces_what_was_there,
    test_a_timeout_kills_the_command_and_its_grandchildren,
    test_a_torn_archive_is_noticed,
    test_arguments_arrive_as_they_are,
    test_closing_twice_and_going_on,
    test_death_by_a_signal_is_128_and_its_number,
    test_exit_status,
    test_files_of_any_name_go_there_and_back,
    test_output_ends_as_it_does,
    test_several_commands_at_once,
    test_stdin_that_nobody_reads,
    test_stdout_and_stderr_are_apart_and_binary,
    test_ten_megabytes_of_output,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbd]:
    folder = tmp_path_factory.mktemp("adbd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("log")))
        patch.delenv("ANDROID_SERIAL", raising=False)
        patch.delenv("ANDROID_ADB_SERVER_PORT", raising=False)  # the whole network is its own
        with RealAdbd(folder) as daemon:
            yield daemon


@pytest.fixture(scope="module")
def shell(adbd: RealAdbd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbShell]:
    root = tmp_path_factory.mktemp("phone") / "edgenet"
    with AdbShell(adbd.serial, adb=adbd.bin / "adb", root=str(root)) as opened:
        yield opened


def test_it_is_the_real_one_and_reached_by_nobody_else(adbd: RealAdbd, shell: AdbShell) -> None:
    (phone,) = phones(adbd.bin / "adb")
    assert (phone.serial, phone.state, phone.advice) == (adbd.serial, "device", "")
    asked = (str(adbd.bin / "adb"), "-s", adbd.serial, "features")
    features = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert {"shell_v2", "abb_exec", "remount_shell"} <= set(features)  # the last two our own daemon does not have
    host, port = adbd.serial.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 1)


def test_an_adbd_that_dies_loses_its_command_and_nothing_else(adbd: RealAdbd, shell: AdbShell) -> None:
    marker = f"7{secrets.randbelow(10**8):08}"

    def die() -> None:
        begun = comes(lambda: any(f": sleep {marker}" in line for line in running(marker)), 30)
        adbd.kill()
        assert begun

    killer = threading.Thread(target=die)
    killer.start()
    with pytest.raises(DeviceLost, match="was lost while 'sleep' ran there"):
        shell.run(("sleep", marker), 60)
    killer.join()
    adbd.start()
    assert shell.run(("echo", "on")).stdout == b"on\n"
    assert comes(lambda: not running(marker)), "what ran as the connection broke still runs"


def test_an_adb_server_that_was_ended_is_started_again(adbd: RealAdbd, shell: AdbShell) -> None:
    subprocess.run((str(adbd.bin / "adb"), "kill-server"), check=True)
    assert shell.run(("echo", "on")).stdout == b"on\n"


def test_what_it_is_told_to_push_twice_arrives_whole(shell: AdbShell, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(secrets.token_bytes(30_000_000))
    for _ in range(2):
        shell.push({"model": model}, f"{shell.root}/files")
        assert shell.pull(f"{shell.root}/files/model") == model.read_bytes()
