"""`edgenet bench` on arm64: a Raspberry Pi over ssh and a phone over adb whose programs qemu runs, and a whole machine.

How fast they are says nothing; that they answer what this machine answers, and what edgenet makes of their state, does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from devices import registry
from devices.bench import open_bench
from devices.errors import BundleError
from devices.folders import cache_folder
from devices.latency import Repetition, measure
from devices.native.bundle import assemble
from devices.runtimes.timing import Schedule
from tests.devices import arm64
from tests.devices.adbd import Adbd
from tests.devices.peers import comes, running
from tests.devices.sshd import Sshd
from tests.devices.virtual_machine import CORES, PROCESSOR, VirtualMachine

from .conftest import Edgenet

GETPROP = """#!/bin/sh
echo '[ro.build.version.sdk]: [34]'
echo '[ro.build.version.release]: [14]'
echo '[ro.product.manufacturer]: [Nobody]'
echo '[ro.product.model]: [Phone 1]'
"""
# It answers, and then notes that it was asked.
VCGENCMD = '#!/bin/sh\necho "throttled=$(cat /run/throttled)"\necho >>/run/asked\n'
CMD = '#!/bin/sh\necho "$@" >>/run/cmd\n'
THROTTLES, UNDER_VOLTAGE_AND_THROTTLES = "0x4\n", "0x50005\n"


@dataclass(frozen=True, slots=True)
class Desk:
    """A board reached over ssh, called pi, and a phone."""

    pi: Path  # the board's root file system
    phone: Path  # likewise
    serial: str

    @property
    def names(self) -> tuple[str, ...]:
        return ("local", "pi", f"android:{self.serial}")

    def running(self) -> list[str]:
        """Command lines of the runners on the board and on the phone: other tests run some elsewhere."""
        roots = {self.pi, self.phone}
        found = []
        for line in running("edgenet-runner"):
            with suppress(OSError):
                if Path("/proc", line.partition(":")[0], "root").readlink() in roots:
                    found.append(line)
        return found


@contextmanager
def settings(folder: Path, programs: Path) -> Iterator[None]:
    """Settings, results and an adb server of our own; what was downloaded before is used. programs: first on PATH."""
    adb = shutil.which("adb")
    if adb is None:
        pytest.skip("adb is not installed: apt install adb")
    try:
        assemble("aarch64")
    except BundleError as exc:
        pytest.skip(f"the bundle for aarch64 cannot be assembled here: {exc}")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as free:
        patch.setenv("EDGENET_CACHE_HOME", str(cache_folder()))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        patch.delenv("EDGENET_ADB_ROOT", raising=False)
        for kind in ("CONFIG", "DATA"):
            patch.setenv(f"EDGENET_{kind}_HOME", str(folder / kind.lower()))
        free.close()
        yield
        subprocess.run([adb, "kill-server"], capture_output=True, check=False)


def entrance(filesystem: Path, program: Path) -> Path:
    """Write a program that takes `sh -c SCRIPT` and runs the script in an arm64 root file system."""
    arm64.Arm64Shell(filesystem)  # skips where that cannot be
    environment = ("env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root", f"QEMU_CPU={arm64.PROCESSOR}")
    inside = shlex.join((*environment, *arm64.OWN_NAMESPACE, arm64.qemu(), str(filesystem)))
    program.write_text(f'#!/bin/sh\nexec {inside} "$3"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    pi = arm64.root_filesystem(folder / "pi")
    phone = arm64.root_filesystem(folder / "phone")
    (pi / "usr/bin/vcgencmd").write_text(VCGENCMD)
    (phone / "usr/bin/vcgencmd").unlink()
    (phone / "sys/firmware/devicetree/base/model").unlink()
    (phone / "usr/bin/getprop").write_text(GETPROP)
    (phone / "usr/bin/cmd").write_text(CMD)
    for program in ("getprop", "cmd"):
        (phone / "usr/bin" / program).chmod(0o755)
    (phone / "data/local/tmp").mkdir(parents=True)
    forced = f'ForceCommand {entrance(pi, folder / "enter-pi")} sh -c "$SSH_ORIGINAL_COMMAND"'
    with (
        Sshd(tmp_path_factory.mktemp("board"), (forced,)) as server,
        settings(folder, server.bin),
        Adbd(prefix=(str(entrance(phone, folder / "enter-phone")),)) as daemon,
    ):
        registry.add(registry.addressed("pi", server.address, key=server.key))
        yield Desk(pi, phone, daemon.serial)


@pytest.fixture(scope="module")
def files(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """An int8 file of each format; the .tflite file answers its logits.

    What XNNPACK makes of them then, a softmax in float32, differs in its last bits from one processor to another.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((made / "symbols_int8.tflite").read_bytes(), 0))
    graph = model.subgraphs[0]
    softmax = graph.operators.pop()
    assert model.operatorCodes[softmax.opcodeIndex].builtinCode == schema.BuiltinOperator.SOFTMAX
    graph.outputs = graph.operators[-1].outputs
    model.signatureDefs = None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    scores = tmp_path_factory.mktemp("scores") / "scores_int8.tflite"
    scores.write_bytes(builder.Output())
    return scores, made / "symbols_int8.onnx"


def same_answers(edgenet: Edgenet, files: tuple[Path, ...], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Time files on all devices in one call; see that they answer alike, and give the rows."""
    devices = [word for name in names for word in ("--device", name)]
    ran = edgenet("bench", *files, *devices, "--repetitions", 1, "--json")
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = ran.document["rows"]
    assert [(row["device"], row["path"]) for row in rows] == [(name, str(file)) for name in names for file in files]
    for file in files:
        hashes = {row["device"]: row["output_hash"] for row in rows if row["path"] == str(file)}
        assert set(hashes.values()) == {hashes["local"]}, f"{file.name}: {hashes}"
    assert [row["runner"] for row in rows] == ["python"] * 2 + ["native"] * 4
    assert all(row["samples_ns"] and row["verdict"] == "valid" for row in rows)
    return rows


def test_a_pi_and_a_phone_answer_what_this_machine_answers(
    desk: Desk, edgenet: Edgenet, files: tuple[Path, ...]
) -> None:
    rows = same_answers(edgenet, files, desk.names)
    (desk.phone / "run/cmd").unlink()
    assert [row["board"] for row in rows[2:]] == ["Raspberry Pi 4 Model B Rev 1.4"] * 2 + ["Nobody Phone 1"] * 2
    pi, phone = (edgenet("devices", "check", name, "--json").document for name in desk.names[1:])
    assert (pi["profile"], phone["profile"]) == ("raspberry-pi-4b", "generic-arm64-android")
    assert pi["fit"], pi["checks"]
    assert phone["fit"], phone["checks"]
    for info in (pi["info"], phone["info"]):
        assert (info["arch"], info["bits"]) == ("aarch64", 64)
        (cluster,) = info["clusters"]
        assert (cluster["cpus"], cluster["part"], cluster["max_khz"]) == ([0, 1, 2, 3], "cortex-a72", 1800000)
    assert pi["info"]["state"]["temperature_c"] == 48.686
    assert phone["info"]["android"]["api_level"] == 34
    assert not desk.running()


def test_clocks_are_held_meanwhile_and_let_go(desk: Desk) -> None:
    def governors() -> set[str]:
        return {path.read_text() for path in desk.pi.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}

    assert governors() == {"ondemand\n"}
    with open_bench(registry.find("pi")) as bench:
        assert governors() == {"performance\n"}
        assert bench.state().governor == "performance"
    assert governors() == {"ondemand\n"}
    with open_bench(registry.find(f"android:{desk.serial}")):
        assert (desk.phone / "run/cmd").read_text() == "power set-fixed-performance-mode-enabled true\n"
    assert (desk.phone / "run/cmd").read_text().split()[2::3] == ["true", "false"]


def test_a_repetition_that_throttles_is_measured_again(desk: Desk, made: Path) -> None:
    throttled, asked = desk.pi / "run/throttled", desk.pi / "run/asked"
    # Before the first, and before each; then as it starts, as it is warm, and as it ends.
    warm = 4

    def heat() -> None:
        if comes(lambda: asked.exists() and len(asked.read_text().splitlines()) >= warm, 60):
            throttled.write_text(THROTTLES)

    def keep(_path: Path, _threads: int, one: Repetition) -> None:
        throttled.write_text("0x0\n")

    schedule = Schedule(warmup_s=0, warmup_runs=1, duration_s=1.5, min_runs=3, cap_s=10, repetitions=2)
    heater = threading.Thread(target=heat)
    with open_bench(registry.find("pi")) as bench:
        asked.unlink()  # the probe asked, too
        heater.start()
        (result,) = measure([made / "symbols_int8.tflite"], schedule=schedule, bench=bench, keep=keep)
    heater.join()
    assert [(one.round, one.fault) for one in result.repetitions] == [(0, "it throttles"), (0, ""), (1, "")]
    first = result.repetitions[0].run
    assert (first.warm.throttled, first.end.throttled) == (0, 4)
    assert result.verdict != "throttled"
    assert sum(one.run.samples_ns.size for one in result.repetitions[1:]) == result.samples_ns.size


def test_a_pi_that_stays_throttled_is_called_so(desk: Desk, edgenet: Edgenet, made: Path) -> None:
    (desk.pi / "run/throttled").write_text(UNDER_VOLTAGE_AND_THROTTLES)
    ran = edgenet("bench", made / "symbols_int8.tflite", "--device", "pi", "--repetitions", 1, "--json")
    gated = edgenet(
        "bench", made / "symbols_int8.tflite", "--device", "pi", "--repetitions", 1, "--max-ms", 1e6, "--json"
    )
    (desk.pi / "run/throttled").write_text("0x0\n")
    assert gated.code == 1
    assert "--max-ms: no repetition counts, so nothing is proven of symbols_int8.tflite" in gated.err
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    assert (row["verdict"], len(row["repetitions"])) == ("throttled", 3)
    assert all(one["fault"] == "under-voltage, it throttles" for one in row["repetitions"])
    assert "throttled: 1 of 1 repetitions, each tried 3 times: under-voltage, it throttles" in ran.err
    assert edgenet("results", "--json").document[0]["verdict"] == "throttled"


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    folder = tmp_path_factory.mktemp("machine")
    with VirtualMachine(folder) as booted, settings(tmp_path_factory.mktemp("settings"), booted.bin):
        registry.add(registry.addressed("vm", booted.address, key=booted.key))
        yield booted


@pytest.mark.slow
def test_a_whole_machine_answers_over_ssh_and_over_adb(
    machine: VirtualMachine, edgenet: Edgenet, files: tuple[Path, ...]
) -> None:
    names = ("local", "vm", f"android:{machine.serial}")
    rows = same_answers(edgenet, files, names)
    assert {row["board"] for row in rows[2:]} == {"linux,dummy-virt"}
    for name in names[1:]:
        seen = edgenet("devices", "check", name, "--json").document
        assert seen["fit"], seen["checks"]
        assert seen["profile"] == "generic-arm64-linux"
        info = seen["info"]
        assert (info["arch"], info["bits"], info["page_bytes"]) == ("aarch64", 64, 4096)
        assert info["clusters"] == [{"cpus": list(range(CORES)), "part": PROCESSOR, "max_khz": None}]
        with registry.open_shell(registry.find(name)) as shell:
            assert b"edgenet-runner" not in shell.run(("ps",)).stdout
            assert b"aarch64" in shell.run(("uname", "-m")).stdout
