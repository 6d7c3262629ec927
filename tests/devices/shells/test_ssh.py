"""What goes wrong between here and a device, with a real OpenSSH server; what every shell does is in test_shell."""

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.errors import (
    CommandTimeout,
    DeviceLost,
    DeviceRefused,
    DeviceUnfit,
    DeviceUnreachable,
    ShellError,
    UnknownDevice,
)
from devices.shells.shell import Result
from devices.shells.ssh import SshShell
from devices.shells.ssh_link import any_shell
from devices.shells.ssh_peer import Address
from tests.devices.peers import comes, running
from tests.devices.sshd import Sshd, free_port, new_key


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that tests leave as they found it."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    """A server to break."""
    with Sshd(tmp_path) as server:
        yield server


def marker() -> str:
    return f"7{secrets.randbelow(10**8):08}"


def refusal(shell: SshShell, kind: type[ShellError]) -> str:
    """The message with which a device does not connect: one line, within some seconds, and nothing left behind."""
    start = time.monotonic()
    with pytest.raises(kind) as told:
        shell.run(("true",))
    assert type(told.value) is kind
    assert time.monotonic() - start < 6
    assert "\n" not in str(told.value)
    assert shell._link is None
    return str(told.value)


# ---- addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pi4", Address("pi4")),
        ("pi@raspberrypi.local", Address("raspberrypi.local", "pi")),
        ("pi@10.0.0.2:2222", Address("10.0.0.2", "pi", 2222)),
        ("ssh://pi@host:22/", Address("host", "pi", 22)),
        ("ssh://host", Address("host")),
        ("fe80::1%eth0", Address("fe80::1%eth0")),
        ("pi@[fe80::1%eth0]:2222", Address("fe80::1%eth0", "pi", 2222)),
        ("a@b@host", Address("host", "a@b")),
        ("büro-pi", Address("büro-pi")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


NO_ADDRESSES = (
    *("", "@", "pi@", "@host", "-oProxyCommand=touch x", "pi@-oProxyCommand=x", "-l@host", "host:", "host:x", "host:0"),
    *("host:65536", "ho st", "$(id)@host", "host;id", "host\n", "`id`", "a'b", 'a"b', "ssh://", "[::1", "host:1:x]"),
)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UnknownDevice, match="is no address for ssh") as told:
        SshShell(text)
    assert "\n" not in str(told.value)


# ---- who does not answer

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here: install openssh-client")


def test_a_closed_port(shared: Sshd) -> None:
    said = refusal(SshShell(f"{shared.user}@127.0.0.1:{free_port()}", shared.key, "pi", 2), DeviceUnreachable)
    assert "pi is there and takes no ssh connections" in said
    assert f"Try: ssh -i {shared.key} -p " in said


@needs_ssh
def test_a_name_that_nobody_has() -> None:
    said = refusal(SshShell("pi@no-such-device.invalid", options=("-F", "/dev/null")), DeviceUnreachable)
    assert said.endswith("no-such-device.invalid: is it spelt so? Try: ssh pi@no-such-device.invalid true")


@pytest.mark.parametrize(
    ("host", "way", "says"),
    [
        ("no-such-device.invalid", "way", "the machine on the way to pi does not reach it: "),
        ("127.0.0.1\n Port 9", "way", "the machine on the way to pi does not reach it: Connection refused."),
        ("127.0.0.1", "no-such-way.invalid", "no machine answers to the name no-such-way.invalid:"),
    ],
)
def test_a_machine_on_the_way(shared: Sshd, tmp_path: Path, host: str, way: str, says: str) -> None:
    (tmp_path / "config").write_text(
        f"UserKnownHostsFile {shared.known_hosts}\nIdentityAgent none\nIdentityFile {shared.key}\n"
        f"Host way\n HostName 127.0.0.1\n Port {shared.port}\nHost far\n HostName {host}\n ProxyJump {way}\n"
    )
    shell = SshShell("far", name="pi", options=("-F", str(tmp_path / "config")))
    assert refusal(shell, DeviceUnreachable).startswith(says)


@contextmanager
def listener(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
                    answer(held[-1])
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


@needs_ssh
def test_a_host_that_accepts_and_never_answers() -> None:
    with listener(lambda connection: None) as port:
        start = time.monotonic()
        said = refusal(SshShell(f"pi@127.0.0.1:{port}", None, "pi", 1, ("-F", "/dev/null")), DeviceUnreachable)
    assert said == f"no answer from pi in 1 s. Is it on? Try: ssh -p {port} pi@127.0.0.1 true"
    assert time.monotonic() - start < 3


@needs_ssh
def test_a_host_that_says_hello_and_no_more() -> None:
    with listener(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        said = refusal(SshShell(f"127.0.0.1:{port}", None, "pi", 1, ("-F", "/dev/null")), DeviceUnreachable)
    assert "no answer from pi in 1 s" in said


@needs_ssh
def test_a_host_that_hangs_up_at_once() -> None:
    with listener(lambda connection: connection.close()) as port:
        said = refusal(SshShell(f"127.0.0.1:{port}", None, "pi", 2, ("-F", "/dev/null")), DeviceUnreachable)
    assert "pi hung up before anyone could log in" in said


# ---- who does not let us in


def test_a_wrong_key(shared: Sshd, tmp_path: Path) -> None:
    said = refusal(shared.shell(new_key(tmp_path / "other")), DeviceRefused)
    assert "pi does not accept our key" in said
    assert "Permission denied (publickey)" in said


def test_no_key_file_and_one_that_others_can_read(shared: Sshd, tmp_path: Path) -> None:
    assert "there is no key file" in refusal(shared.shell(tmp_path / "none"), DeviceRefused)
    shutil.copy(shared.key, tmp_path / "it's open")
    (tmp_path / "it's open").chmod(0o644)
    said = refusal(shared.shell(tmp_path / "it's open"), DeviceRefused)
    assert said.endswith("chmod 600 '" + str(tmp_path) + "/it'\"'\"'s open'")


@pytest.mark.parametrize("name", ["100% mine", "%h", "${HOME}", "a ${nothing} b", "it's %%"])
def test_a_key_whose_path_ssh_would_expand(shared: Sshd, tmp_path: Path, name: str) -> None:
    shutil.copy(shared.key, tmp_path / name)
    with shared.shell(tmp_path / name) as shell:
        assert shell.run(("echo", "in")).stdout == b"in\n"


def test_an_unknown_host_key(server: Sshd) -> None:
    server.known_hosts.write_text("")
    said = refusal(server.shell(), DeviceRefused)
    assert "unknown here. Look at it and accept it once: ssh -i" in said
    assert said.endswith(f"-p {server.port} {server.user}@127.0.0.1 true")
    assert server.known_hosts.read_text() == ""


def test_a_changed_host_key(server: Sshd) -> None:
    with server.shell() as shell:
        server.stop()
        server.new_host_key()
        server.start()
        said = refusal(shell, DeviceRefused)
        assert "is not the one known here" in said
        assert f"[127.0.0.1]:{server.port}" in said.partition("ssh-keygen ")[2]
        server.trust()
        assert shell.run(("echo", "on")).stdout == b"on\n"


@pytest.mark.parametrize("forced", ["internal-sftp", "echo 'This account is currently not available.'", "exit 1"])
def test_a_server_that_runs_no_commands(tmp_path: Path, forced: str) -> None:
    with Sshd(tmp_path, (f"ForceCommand {forced}",)) as server:
        said = refusal(server.shell(wait_s=1), DeviceRefused)
        assert "pi lets us in but runs no commands for us" in said
        assert ("not available" in said) == ("not available" in forced)


def test_a_server_with_too_few_sessions(tmp_path: Path) -> None:
    with (
        Sshd(tmp_path, ("MaxSessions 1",)) as server,
        server.shell() as shell,
        pytest.raises(DeviceRefused, match="raise MaxSessions"),
    ):
        shell.run(("true",))


def test_no_place_for_our_folder(server: Sshd) -> None:
    (server.home / ".cache").write_text("a file")
    assert "cannot make our folder on pi: mkdir" in refusal(server.shell(), DeviceUnfit)


def test_no_ssh_client(shared: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install the OpenSSH client" in refusal(shared.shell(), DeviceUnreachable)


# ---- what the user's own configuration may hold


def test_the_users_configuration_is_used_and_cannot_hurt(shared: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    touched = tmp_path / "touched"
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that forwarding it, here or there, fails
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(
            f"Host my-pi\n HostName 127.0.0.1\n Port {shared.port}\n User {shared.user}\n IdentityFile {shared.key}\n"
            f" UserKnownHostsFile {shared.known_hosts}\n"
            f"Host *\n RequestTTY force\n RemoteCommand echo no\n LogLevel QUIET\n ForwardX11 yes\n ForwardAgent yes\n"
            f" PermitLocalCommand yes\n LocalCommand touch {touched}\n LocalForward {port} 127.0.0.1:9\n"
            f" RemoteForward {port} 127.0.0.1:9\n ExitOnForwardFailure yes\n"
            f" ControlMaster auto\n ControlPath {tmp_path}/own\n ControlPersist 60\n"
        )
        with SshShell("my-pi", options=("-F", str(config))) as shell:
            assert shell.run(("tty",)).stdout == b"not a tty\n"
            assert shell.run(("sh", "-c", 'echo "$DISPLAY$SSH_AUTH_SOCK"')).stdout == b"\n"
            assert shell.name == "my-pi"
    assert not touched.exists()
    assert not (tmp_path / "own").exists()
    config.write_text(config.read_text().replace(str(shared.key), str(new_key(tmp_path / "wrong"))))
    said = refusal(SshShell("my-pi", options=("-F", str(config))), DeviceRefused)
    assert "does not accept our key" in said  # LogLevel QUIET or not


@pytest.fixture
def agent(shared: Sshd, tmp_path: Path) -> Iterator[str]:
    """An agent that holds the key of the shared server; give ssh's option for it."""
    path = tmp_path / "agent"
    with subprocess.Popen(("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL) as process:
        try:
            assert comes(path.exists)
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(("ssh-add", "-q", str(shared.key)), env=environment, check=True)
            yield f"-oIdentityAgent={path}"
        finally:
            process.terminate()


def test_where_a_key_is_named_the_agents_are_not_tried(shared: Sshd, tmp_path: Path, agent: str) -> None:
    options = (agent, *shared.options)
    with SshShell(shared.address, None, "pi", 5.0, options) as shell:
        assert shell.run(("echo", "in")).stdout == b"in\n"
    said = refusal(SshShell(shared.address, new_key(tmp_path / "other"), "pi", 5.0, options), DeviceRefused)
    assert "pi does not accept our key" in said


def test_the_users_agent_stays_here(tmp_path: Path, agent: str) -> None:
    (tmp_path / "sshd").mkdir()
    said = tmp_path / "said"
    force = f'ForceCommand env >>{said}; exec sh -c "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "sshd", (force,)) as server:
        options = (agent, "-oForwardAgent=yes", *server.options)
        with SshShell(server.address, server.key, "pi", 5.0, options) as shell:
            shell.run(("true",))
    heard = said.read_text()
    assert heard.count("SSH_CONNECTION=") == 2  # the watch's session, too
    assert "SSH_AUTH_SOCK" not in heard


def test_our_folders_there_are_nobody_elses(server: Sshd) -> None:
    with server.shell():
        ours = (server.root, server.root / "run", server.root / "incoming")
        assert [path.stat().st_mode & 0o777 for path in ours] == [0o700] * 3


def test_what_a_command_says_is_not_taken_for_ssh(shared: Sshd) -> None:
    with shared.shell() as shell:
        for text in ("Session open refused by peer", "edgenet-no-master", "Permission denied"):
            assert shell.run(("sh", "-c", 'echo "$1" >&2; exit 255', "sh", text)) == Result(
                255, b"", text.encode() + b"\n"
            )


def test_start_up_files_that_talk(server: Sshd) -> None:
    (server.home / ".bashrc").write_text("echo hello; printf 'no newline'\n")
    with server.shell() as shell:
        assert shell.run(("echo", "x")) == Result(0, b"x\n", b"")
        assert shell.root == str(server.root)


@pytest.mark.parametrize("name", ["sh", "bash", "zsh", "fish", "tcsh", "mksh", "busybox"])
def test_any_login_shell_takes_a_script(name: str, tmp_path: Path) -> None:
    if not shutil.which(name):
        pytest.skip(f"no {name} here: install {name}")
    text = "printf '%s|' \"it's\" '$(id) `id`' '!x' \"back\\\\slash \\\\0101\" '\nline ü 😀' ~ '*' '%s'"
    plain = subprocess.run(("sh", "-c", text), capture_output=True, check=True)
    argv = (name, "sh", "-c") if name == "busybox" else (name, "-c")
    coded = subprocess.run(
        (*argv, any_shell(text)), capture_output=True, check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert coded.stdout.replace(bytes(tmp_path), bytes(Path.home())) == plain.stdout


# ---- who goes away


def test_a_connection_that_breaks_while_nothing_runs(server: Sshd) -> None:
    with server.shell() as shell:
        shell.run(("true",))
        link = shell._link
        server.hang_up()
        assert link
        assert comes(lambda: not link.open)
        assert shell.run(("echo", "again")).stdout == b"again\n"
        assert shell._link is not link


def test_a_connection_that_ends_unnoticed(server: Sshd) -> None:
    with server.shell() as shell:
        assert shell._link
        (shell._link._folder / "s").unlink()  # what a client sees when the master has just gone
        assert shell.run(("echo", "again")).stdout == b"again\n"


def test_a_server_that_dies_while_a_command_runs(server: Sshd) -> None:
    mark = marker()
    with server.shell() as shell:
        threading.Timer(0.5, server.stop).start()
        start = time.monotonic()
        with pytest.raises(DeviceLost, match="pi was lost while 'sh' ran there") as told:
            shell.run(("sh", "-c", f"sleep {mark} & sleep {mark}"))
        assert time.monotonic() - start < 3
        assert "\n" not in str(told.value)
        assert comes(lambda: not running(f"sleep {mark}")), running(mark)  # the watch there saw to it
        assert "takes no ssh connections" in refusal(shell, DeviceUnreachable)
        server.start()
        assert shell.run(("echo", "back")).stdout == b"back\n"


def test_a_server_that_dies_during_a_push(server: Sshd, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300_000_000)
    with server.shell() as shell:
        incoming = server.root / "incoming"

        def pull_the_plug() -> None:
            comes(lambda: sum(path.stat().st_size for path in incoming.glob("*/*")) > 1_000_000)
            server.hang_up()

        thread = threading.Thread(target=pull_the_plug)
        thread.start()
        with pytest.raises(DeviceLost):
            shell.push({"m": big}, f"{shell.root}/files")
        thread.join()
        big.write_bytes(b"small")
        assert shell.push({"m": big}, f"{shell.root}/files") > 0
        assert shell.pull(f"{shell.root}/files/m") == b"small"
        assert comes(lambda: list(incoming.iterdir()) == [])


def test_a_device_that_freezes_while_a_command_runs(server: Sshd) -> None:
    mark = marker()
    with server.shell() as shell:
        threading.Timer(0.3, server.freeze).start()
        start = time.monotonic()
        with pytest.raises(CommandTimeout):
            shell.run(("sleep", mark), timeout_s=0.6)
        assert time.monotonic() - start < 5
        assert running(f"sleep {mark}")
        server.freeze(False)
        assert comes(lambda: not running(f"sleep {mark}")), running(mark)
        assert shell.run(("echo", "back")).stdout == b"back\n"


@pytest.mark.slow
def test_a_device_that_is_gone_is_noticed(server: Sshd) -> None:
    with server.shell() as shell:
        threading.Timer(0.3, server.freeze).start()
        start = time.monotonic()
        with pytest.raises(DeviceLost):
            shell.run(("sleep", "60"), timeout_s=60)
        assert time.monotonic() - start < 15


def test_the_watch_of_a_lost_connection_leaves_the_next_one_alone(server: Sshd) -> None:
    with server.shell() as shell:
        shell.run(("true",))
        old = shell._link
        assert old
        server.freeze(server=False)
        shell._drop(old)  # for us it is over; the device hears of that later
        with ThreadPoolExecutor(1) as thread:
            told = thread.submit(shell.run, ("sh", "-c", "sleep 2; echo whole"))
            assert comes(lambda: bool(list((server.root / "run").iterdir())))
            server.freeze(False)
            assert told.result() == Result(0, b"whole\n", b"")


def test_what_lies_there_for_a_day_is_swept_away(server: Sshd) -> None:
    for folder in ("incoming", "run"):
        for age_h in (48, 23):
            path = server.root / folder / f"{age_h} hours"
            path.mkdir(parents=True)
            os.utime(path, (time.time() - 3600 * age_h,) * 2)
    with server.shell():
        left = [path.name for folder in ("incoming", "run") for path in (server.root / folder).iterdir()]
    assert left == ["23 hours"] * 2


def test_another_boot_has_other_peoples_pids(shared: Sshd) -> None:
    with shared.shell() as shell, subprocess.Popen(("sleep", "60"), start_new_session=True) as sleeper:
        for known, survives in (("of another day", True), (shell._boot, False)):
            again = shared.shell()  # as after a lost connection, in place of which another one is made
            again._boot, again._lost = known, ["earlier-"]
            (shared.root / "run" / "earlier-x.pid").write_text(f"{sleeper.pid}\n")
            with again:
                assert again._boot == shell._boot
                assert not list((shared.root / "run").glob("earlier-*"))
                assert comes(lambda: sleeper.poll() is not None, 0.3 if survives else 5) != survives
        assert sleeper.wait(5) == -signal.SIGKILL


# ---- who stops here


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_there_when_we_end_here(
    shared: Sshd, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    mark = marker()
    code = (
        "from pathlib import Path; from devices.shells.ssh import SshShell\n"
        f"with SshShell({shared.address!r}, Path({str(shared.key)!r}), options={shared.options!r}) as shell:\n"
        f"    print(shell._link._folder, flush=True)\n"
        f"    shell.run(('sh', '-c', 'sleep {mark} & sleep {mark}'), 60)"
    )
    argv = (sys.executable, "-c", code)
    with subprocess.Popen(argv, cwd=request.config.rootpath, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        folder = child.stdout.readline().decode().strip()
        assert comes(lambda: len(running(f"sleep {mark}")) >= 2, 10)
        child.send_signal(number)
        complaint = child.communicate(timeout=10)[1]
    assert (b"KeyboardInterrupt" in complaint) == (number == signal.SIGINT)
    assert comes(lambda: not running(mark)), running(mark)
    assert comes(lambda: not running(folder)), running(folder)
    if number == signal.SIGINT:
        assert not Path(folder).exists()
        assert list((shared.root / "run").iterdir()) == []
    shutil.rmtree(folder, ignore_errors=True)


def test_closing_ends_what_runs_there(shared: Sshd) -> None:
    mark = marker()
    ended: list[object] = []
    with shared.shell() as shell:
        thread = threading.Thread(target=lambda: ended.append(outcome(shell, mark)))
        thread.start()
        assert comes(lambda: bool(running(f"sleep {mark}")))
    assert comes(lambda: not running(mark)), running(mark)
    thread.join(5)
    assert ended in (["lost"], [137])  # whichever of the two was faster


def outcome(shell: SshShell, mark: str) -> object:
    try:
        return shell.run(("sleep", mark)).status
    except DeviceLost:
        return "lost"


def test_one_connection_for_all_commands(shared: Sshd) -> None:
    with shared.shell() as shell:
        link = shell._link
        assert link
        took = []
        for _ in range(20):
            start = time.monotonic()
            shell.run(("true",))
            took.append(time.monotonic() - start)
        assert shell._link is link
        assert sorted(took)[10] < 0.2  # 0.02 on a quiet machine
        folder = link._folder
        assert folder.stat().st_mode & 0o77 == 0
    assert not folder.exists()
    assert not running(str(folder))
    assert comes(lambda: list((shared.root / "run").iterdir()) == [])
