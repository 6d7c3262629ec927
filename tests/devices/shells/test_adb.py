"""A phone through the real adb binary, against a daemon that speaks its protocol and misbehaves on request."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices import registry
from devices.errors import (
    CommandTimeout,
    DeviceFull,
    DeviceLost,
    DeviceRefused,
    DeviceUnfit,
    DeviceUnreachable,
    RuntimeMissing,
    ShellError,
)
from devices.shells import adb
from devices.shells.adb import AdbShell, find_adb, phones
from tests.devices.adbd import Adbd

ADBD = Path(__file__).parents[1] / "adbd.py"
REPOSITORY = Path(__file__).resolve().parents[3]
ODD = ["two words", "it's", 'a"b', "$(touch owned)", "`touch owned`", "a\nb", "ünï-漢字", "-n", "*", "a\\b", ";#", "~"]
UNREADABLE = os.fsdecode(b"\xff\xfe")  # no UTF-8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An adb server of our own, with keys of its own; give the path of adb."""
    tool = shutil.which("adb")
    if tool is None:
        pytest.skip("adb is not installed: apt install adb")
    with socket.create_server(("127.0.0.1", 0)) as free, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("log")))
        patch.delenv("ANDROID_SERIAL", raising=False)
        free.close()
        yield tool
        subprocess.run([tool, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def phone(server: str) -> Iterator[Adbd]:
    with Adbd() as daemon:
        yield daemon
        subprocess.run([server, "disconnect"], capture_output=True, check=False)


@pytest.fixture
def shell(phone: Adbd, tmp_path: Path) -> Iterator[AdbShell]:
    with AdbShell(phone.serial, root=str(tmp_path / "edgenet")) as opened:
        yield opened


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what will not come."""
    monkeypatch.setattr(adb, "_SETTLE_S", 0.0)
    monkeypatch.setattr(adb, "_RETURN_S", 0.0)
    monkeypatch.setattr(adb, "_DIAL_S", 0.5)


def lasting() -> tuple[str, str]:
    """A command that would outlast the tests and can be told from all others."""
    return ("sleep", f"3000.{secrets.randbelow(10**9)}")


def running(command: tuple[str, ...], there: bool, wait_s: float = 5.0) -> bool:
    """Whether any process has this in its command line, as soon as that is `there`."""
    until = time.monotonic() + wait_s
    while True:
        found = False
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found = found or command[-1].encode() in path.read_bytes()
            except OSError:  # it has just ended
                continue
        if found is there or time.monotonic() > until:
            return found
        time.sleep(0.02)


def refusal(shell: AdbShell, error: type[Exception]) -> str:
    """Use a phone that cannot be used; give the error's one line."""
    with pytest.raises(error) as caught:
        shell.run(("true",))
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("status", [0, 1, 2, 127, 255])
def test_status(shell: AdbShell, status: int) -> None:
    ended = shell.run(("sh", "-c", 'printf out; printf err >&2; exit "$1"', "sh", str(status)))
    assert (ended.status, ended.stdout, ended.stderr) == (status, b"out", b"err")


def test_a_program_that_is_not_there(shell: AdbShell) -> None:
    assert shell.run(("no-such-program",)).status == 127


def test_all_bytes_both_ways_and_apart(shell: AdbShell, tmp_path: Path) -> None:
    every = bytes(range(256)) + b"\r\n\n"
    ended = shell.run(("sh", "-c", 'tee "$1"; cat "$1" >&2', "sh", str(tmp_path / "copy")), stdin=every)
    assert (ended.stdout, ended.stderr) == (every, every)


def test_without_stdin_ours_is_left_alone(shell: AdbShell) -> None:
    assert shell.run(("cat",)).stdout == b""


def test_ten_megabytes(shell: AdbShell, tmp_path: Path) -> None:
    data = os.urandom(10_000_000)
    (tmp_path / "big").write_bytes(data)
    assert shell.pull(str(tmp_path / "big")) == data


def test_arguments_arrive_as_they_are(shell: AdbShell) -> None:
    arguments = [*ODD, UNREADABLE, ""]
    ended = shell.run(("sh", "-c", 'printf "%s\\0" "$@"', "sh", *arguments))
    assert ended.stdout == b"".join(os.fsencode(text) + b"\0" for text in arguments)


def test_arguments_longer_than_adb_carries(shell: AdbShell) -> None:
    assert shell.run(("true", "x" * 50_000)).status == 0
    with pytest.raises(ShellError, match="push a file"):
        shell.run(("true", "x" * 70_000))


def test_files_there_and_back(shell: AdbShell, tmp_path: Path) -> None:
    files = {}
    for number, name in enumerate(ODD):
        files[f"in {name}/{name}"] = tmp_path / f"{number}"
        files[f"in {name}/{name}"].write_bytes(os.urandom(1000 + number))
    files["tool"] = tmp_path / "tool"
    files["tool"].write_text("#!/bin/sh\necho works\n")
    files["tool"].chmod(0o755)
    folder = f"{shell.root}/files of it's"
    assert shell.push(files, folder) > sum(path.stat().st_size for path in files.values())
    assert shell.push({"one more": tmp_path / "0"}, folder) > 1000
    for name, path in files.items():
        assert shell.pull(f"{folder}/{name}") == path.read_bytes()
    assert shell.pull(f"{folder}/one more") == (tmp_path / "0").read_bytes()
    assert shell.run((f"{folder}/tool",)).stdout == b"works\n"
    assert not list(Path(shell.root, "incoming").iterdir())
    with pytest.raises(ShellError, match="No such file"):
        shell.pull(f"{folder}/missing")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed: apt install util-linux")
def test_no_room(server: str, tmp_path: Path) -> None:
    """On a phone with 2 MB: what does not fit leaves nothing behind, what fits comes after it."""
    (tmp_path / "disk").mkdir()
    small = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m none "$0" && exec "$@"', str(tmp_path / "disk"))
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    (tmp_path / "small").write_bytes(os.urandom(1_000_000))
    pipe = subprocess.PIPE
    with subprocess.Popen([*small, sys.executable, str(ADBD)], stdin=pipe, stdout=pipe, stderr=pipe) as daemon:
        assert daemon.stdout
        assert daemon.stderr
        port = daemon.stdout.readline().strip().decode()
        if not port:
            pytest.skip(f"no private mounts here: {daemon.stderr.read().decode()}")
        with AdbShell(f"127.0.0.1:{port}", root=str(tmp_path / "disk/edgenet")) as shell:
            with pytest.raises(DeviceFull, match=r"no room on .* for 4\.0 MB"):
                shell.push({"a": tmp_path / "small", "b": tmp_path / "big"}, f"{shell.root}/files")
            assert shell.run(("find", f"{shell.root}/files", f"{shell.root}/incoming", "-type", "f")).stdout == b""
            shell.push({"a": tmp_path / "small"}, f"{shell.root}/files")
            assert shell.pull(f"{shell.root}/files/a") == (tmp_path / "small").read_bytes()
            shell.run(("sh", "-c", 'cat /dev/zero >"$1"', "sh", f"{shell.root}/rest"))
            with pytest.raises(DeviceFull):
                shell.push({"c": tmp_path / "small"}, f"{shell.root}/files")
        subprocess.run([server, "disconnect"], capture_output=True, check=False)


def test_phones(phone: Adbd, server: str) -> None:
    assert phones() == ()
    with Adbd(model="SM_A536B", unauthorized=True) as other:
        for daemon in (phone, other):
            subprocess.run([server, "connect", daemon.serial], capture_output=True, check=False)
        seen = {found.serial: found for found in phones()}
        assert set(seen) == {phone.serial, other.serial}
        ready, locked = seen[phone.serial], seen[other.serial]
        assert (ready.state, ready.model, ready.advice) == ("device", "Pixel 7a", "")
        assert locked.state == "unauthorized"
        assert "accept the question on the phone's screen" in locked.advice


@pytest.mark.usefixtures("hasty")
def test_which_phone(phone: Adbd, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path / "edgenet")
    assert "there is no phone: plug one in" in refusal(AdbShell(root=root), DeviceUnreachable)
    subprocess.run([server, "connect", phone.serial], capture_output=True, check=False)
    monkeypatch.setenv("EDGENET_ADB_ROOT", f"{tmp_path}/as the environment says")
    with AdbShell() as only:
        assert only.name == f"android:{phone.serial}"
        assert only.root == f"{tmp_path}/as the environment says"
    with Adbd() as other:
        subprocess.run([server, "connect", other.serial], capture_output=True, check=False)
        said = refusal(AdbShell(root=root), DeviceUnreachable)
        assert "there are 2 phones" in said
        assert phone.serial in said
        assert other.serial in said
        monkeypatch.setenv("ANDROID_SERIAL", other.serial)
        monkeypatch.setenv("EDGENET_ADB_ROOT", root)
        monkeypatch.setenv("EDGENET_CONFIG_HOME", root)
        with registry.open_shell(registry.find("android")) as named:
            assert named.name == f"android:{other.serial}"
        with AdbShell(phone.serial, root=root, name="mine") as given:
            assert given.name == "mine"
            phone.model = "gone"
            other.drop()  # of no concern to the other one
            assert given.run(("true",)).status == 0


def test_two_phones_at_once(phone: Adbd, tmp_path: Path) -> None:
    with Adbd() as other, ThreadPoolExecutor(2) as pool:
        one = AdbShell(phone.serial, root=str(tmp_path / "one"))
        two = AdbShell(other.serial, root=str(tmp_path / "two"))
        with one, two:
            meet = 'touch "$1/here"; until [ -e "$2/here" ]; do sleep 0.02; done; printf %s "$1"'
            both = ((one, two), (two, one))
            calls = ((here, ("sh", "-c", meet, "sh", here.root, there.root)) for here, there in both)
            said = list(pool.map(lambda call: call[0].run(call[1], 10).stdout, calls))
        assert said == [one.root.encode(), two.root.encode()]
        assert (one.root, two.root) == (str(tmp_path / "one"), str(tmp_path / "two"))


@pytest.mark.usefixtures("hasty", "phone")
@pytest.mark.parametrize("serial", [*ODD, UNREADABLE, "usb:1-1", "nul\0", "$(id):5555", "-s:5555", "unheard.invalid:1"])
def test_a_serial_that_no_phone_has(serial: str, tmp_path: Path) -> None:
    said = refusal(AdbShell(serial, root=str(tmp_path / "edgenet")), DeviceUnreachable)
    assert said.startswith("there is no phone ")
    assert said.isprintable()


@pytest.mark.usefixtures("hasty")
def test_unauthorized(phone: Adbd, tmp_path: Path) -> None:
    phone.unauthorized = True
    shell = AdbShell(phone.serial, root=str(tmp_path / "edgenet"))
    assert "accept the question on the phone's screen" in refusal(shell, DeviceRefused)
    phone.allow()
    time.sleep(0.2)  # for adb to hear of it
    assert shell.run(("true",)).status == 0


@pytest.mark.usefixtures("hasty")
def test_offline(phone: Adbd, shell: AdbShell) -> None:
    phone.mute = True
    phone.drop()
    assert "it is offline: plug it in again" in refusal(shell, DeviceUnreachable)
    assert [found.state for found in phones()] == ["offline"]
    phone.mute = False
    assert shell.run(("true",)).status == 0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("mode", ["recovery", "sideload", "bootloader", "host"])
def test_not_android(phone: Adbd, mode: str) -> None:
    phone.mode = mode
    assert f"mode {mode!r}: start Android on it" in refusal(AdbShell(phone.serial), DeviceUnreachable)


def test_no_shell_v2(phone: Adbd) -> None:
    phone.features = ("cmd",)
    assert "Android 7 or newer is needed" in refusal(AdbShell(phone.serial), DeviceUnfit)


def test_no_folder(phone: Adbd, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(AdbShell(phone.serial, root=f"{tmp_path}/file/edgenet"), DeviceUnfit)
    assert f"cannot make {tmp_path}/file/edgenet on " in said


def test_lost_in_the_middle_of_a_push(phone: Adbd, shell: AdbShell, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(5_000_000))
    phone.drop_input_after = 2_000_000
    with pytest.raises(DeviceLost, match="check its cable"):
        shell.push({"model": tmp_path / "model"}, f"{shell.root}/files")
    assert shell.run(("find", f"{shell.root}/files", f"{shell.root}/incoming", "-type", "f")).stdout == b""
    shell.push({"model": tmp_path / "model"}, f"{shell.root}/files")
    assert shell.pull(f"{shell.root}/files/model") == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("after", ["the next command", "close"])
def test_lost_in_the_middle_of_a_command(phone: Adbd, shell: AdbShell, after: str) -> None:
    """Not the status 0 that adb gives; and what outlived the connection is ended by the next one."""
    command = lasting()
    phone.drop_output_after = 100_000
    with pytest.raises(DeviceLost, match="was lost while 'sh' ran there"):
        shell.run(("sh", "-c", 'head -c 100000 /dev/zero; exec "$@"', "sh", *command))
    assert running(command, there=True)
    if after == "close":
        shell.close()
    else:
        assert shell.run(("echo", "back")).stdout == b"back\n"
    assert not running(command, there=False)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_dead_phone_left_behind(phone: Adbd, shell: AdbShell, restarted: bool) -> None:
    """Its files go. The process id in them is ours only if the phone has not been restarted since."""
    mine = shell.run(("ls", f"{shell.root}/run")).stdout.decode().split("-")[0]
    command = lasting()
    with subprocess.Popen(command, start_new_session=True) as other:
        Path(shell.root, f"run/{mine}-left.pid").write_text(f"{other.pid}\n")
        Path(shell.root, f"incoming/{mine}-left").mkdir()
        Path(shell.root, "incoming/another's").mkdir()
        if restarted:
            shell._boot = "another boot"
        phone.drop()
        assert shell.run(("true",)).status == 0
        assert running(command, there=restarted, wait_s=1) is restarted
        other.kill()
    assert [path.name for path in Path(shell.root, "incoming").iterdir()] == ["another's"]
    assert not list(Path(shell.root, "run").iterdir())


def test_what_lies_there_for_a_day_is_swept_away(phone: Adbd, tmp_path: Path) -> None:
    for folder in ("incoming", "run"):
        for age_h in (48, 23):
            path = tmp_path / "edgenet" / folder / f"{age_h} hours"
            path.mkdir(parents=True)
            os.utime(path, (time.time() - 3600 * age_h,) * 2)
    with AdbShell(phone.serial, root=str(tmp_path / "edgenet")):
        left = [path.name for folder in ("incoming", "run") for path in (tmp_path / "edgenet" / folder).iterdir()]
    assert left == ["23 hours"] * 2


def test_lost_between_commands(phone: Adbd, shell: AdbShell) -> None:
    phone.drop()
    ended = shell.run(("cat",), stdin=b"as if nothing had been")
    assert (ended.stdout, ended.stderr) == (b"as if nothing had been", b"")


def test_waits_for_a_phone_that_restarts(phone: Adbd, shell: AdbShell, server: str) -> None:
    subprocess.run([server, "-s", phone.serial, "reboot"], capture_output=True, check=True)
    start = time.monotonic()
    assert shell.run(("echo", "back")).stdout == b"back\n"
    assert time.monotonic() - start > 0.5


@pytest.mark.usefixtures("hasty")
def test_gone_for_good(phone: Adbd, shell: AdbShell) -> None:
    phone.switch_off()
    assert "Connection refused" in refusal(shell, DeviceUnreachable)
    shell.close()
    shell.close()
    phone.switch_on()
    assert shell.run(("true",)).status == 0


@pytest.mark.parametrize("how", ["kill-server", "SIGKILL"])
def test_adb_server_killed_between_commands(shell: AdbShell, server: str, how: str, tmp_path: Path) -> None:
    kill_server(server, how)
    try:
        ended = shell.run(("echo", "back"))
    except DeviceLost:  # what took the command was still dying: it may have run, so that only the caller can repeat it
        ended = shell.run(("echo", "back"))
    assert (ended.stdout, ended.stderr) == (b"back\n", b"")
    kill_server(server, how)
    assert phones() == ()  # a fresh one does not know the phones of the old one
    (tmp_path / "model").write_bytes(os.urandom(1_000_000))
    shell.push({"model": tmp_path / "model"}, f"{shell.root}/files")
    assert shell.pull(f"{shell.root}/files/model") == (tmp_path / "model").read_bytes()


def test_adb_server_killed_in_the_middle(shell: AdbShell, server: str) -> None:
    command = lasting()
    killer = threading.Timer(0.5, kill_server, (server, "SIGKILL"))
    killer.start()
    with pytest.raises(DeviceLost):
        shell.run(command)
    killer.join()
    assert shell.run(("echo", "back")).stdout == b"back\n"
    assert not running(command, there=False)


def kill_server(tool: str, how: str) -> None:
    if how == "kill-server":
        subprocess.run([tool, "kill-server"], capture_output=True, check=True)
        return
    port = os.environ["ANDROID_ADB_SERVER_PORT"]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"fork-server" in words and any(word.endswith(f":{port}".encode()) for word in words):
            os.kill(int(path.parent.name), signal.SIGKILL)
            return
    raise AssertionError("no adb server runs")


def test_timeout_ends_it_on_the_phone(shell: AdbShell) -> None:
    command = lasting()
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"gave no answer in 0\.4 s and was killed there"):
        shell.run(("sh", "-c", '"$@" & wait', "sh", *command), timeout_s=0.4)
    assert time.monotonic() - start < 2
    assert not running(command, there=False)
    assert not list(Path(shell.root, "run").glob("*.pid"))
    assert shell.run(("echo", "on")).stdout == b"on\n"


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_it_on_the_phone(phone: Adbd, tmp_path: Path, presses: int) -> None:
    command = lasting()
    program = (
        "import sys; from devices.shells.adb import AdbShell\n"
        "with AdbShell(sys.argv[1], root=sys.argv[2]) as shell: shell.run(sys.argv[3:], 600)\n"
    )
    arguments = [sys.executable, "-c", program, phone.serial, str(tmp_path / "edgenet"), *command]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stderr=subprocess.PIPE, start_new_session=True) as process:
        pids = tmp_path / "edgenet/run"
        while not (pids.exists() and any(path.read_bytes() for path in pids.glob("*.pid"))):
            time.sleep(0.02)
        for _ in range(presses):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.01)
        said = process.communicate(timeout=20)[1]
    assert b"KeyboardInterrupt" in said
    assert not running(command, there=False)
    assert not list(pids.glob("*.pid"))


def stub(folder: Path, text: str) -> Path:
    """An adb that says what no phone can be made to say here."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "adb"
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)
    return tool


def test_a_listing_from_usb(tmp_path: Path) -> None:
    listing = """List of devices attached
28161FDH2000AB         device usb:1-2 product:lynx model:Pixel_7a device:lynx transport_id:3
my old phone           offline usb:1-4 transport_id:5
0123456789ABCDEF       no permissions (user in plugdev group; are your udev rules wrong?); see [http://x.y/] usb:1-3
R58M12ABCDE            authorizing usb:1-5 transport_id:6
"""
    text = f"echo '* daemon started successfully' >&2; cat <<'END'\n{listing}\nEND"
    found = phones(stub(tmp_path, text))
    assert [(one.serial, one.state, one.model) for one in found] == [
        ("28161FDH2000AB", "device", "Pixel 7a"),
        ("my old phone", "offline", ""),
        ("0123456789ABCDEF", "no permissions", ""),
        ("R58M12ABCDE", "authorizing", ""),
    ]
    assert [bool(one.advice) for one in found] == [False, True, True, True]
    assert "apt install android-sdk-platform-tools-common" in found[2].advice


def test_adb_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceUnreachable, match=r"adb does not work \(cannot bind\)"):
        phones(stub(tmp_path, "echo cannot bind >&2; exit 1"))
    assert phones(stub(tmp_path, 'mkdir "$0.once" 2>/dev/null && exit 1; echo List of devices attached')) == ()
    monkeypatch.setattr(adb, "_ADB_S", 0.1)
    with pytest.raises(DeviceUnreachable, match=r"no answer in 0\.1 s"):
        phones(stub(tmp_path, "sleep 60"))
    with pytest.raises(ShellError, match="cannot run"):
        phones(tmp_path / "missing")


def test_where_adb_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(RuntimeMissing, match=r'apt install adb, or pip install "edgenet\[adb\]"'):
        find_adb()
    (tmp_path / "site/adbutils").mkdir(parents=True)
    (tmp_path / "site/adbutils/__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for folder in ("site/adbutils/binaries", "ANDROID_SDK_ROOT/platform-tools", "ANDROID_HOME/platform-tools", "PATH"):
        tool = stub(tmp_path / folder, "true")
        assert find_adb() == tool
