"""Bundles, assembled from the network or the cache: on an emulated Raspberry Pi without Python, and on this machine."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devices.errors import BundleError, DeviceUnfit, ModelCrashed, ModelTimeout, RuntimeMissing
from devices.native.bundle import assemble, runner_path
from devices.native.runner import ENGINES, Place, bundle_place, local_place, native_measure, native_profile
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule
from devices.shells.local import LocalShell
from devices.shells.store import Store
from tests.devices import arm64
from tests.devices.tiny_models import endless_onnx, tiny_onnx, tiny_tflite, write

QUICK = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=5, cap_s=2, repetitions=1)


@pytest.fixture(scope="session")
def here() -> Place:
    try:
        place = local_place()
    except RuntimeMissing as exc:
        pytest.skip(str(exc))
    for engine in ENGINES.values():
        if engine not in place.libraries:
            pytest.skip(f"the Python package of {engine} is not installed here")
    return place


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "device")


@pytest.fixture(scope="session")
def archive() -> Path:
    arm64.qemu()
    try:
        return assemble("aarch64")
    except BundleError as exc:
        pytest.skip(f"the bundle for aarch64 cannot be assembled here: {exc}")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    """The bundle, unpacked here."""
    return unpacked(archive, tmp_path_factory.mktemp("bundle"))


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as files:
        for member in files:
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = files.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())
            target.chmod(member.mode)
    return folder


@pytest.mark.parametrize("name", ["uint8.tflite", "int8.tflite", "refused.tflite", "a.onnx"])
def test_the_arm64_bundle_answers_what_x86_answers(
    tmp_path: Path, here: Place, shell: LocalShell, bundle: Path, name: str
) -> None:
    files = {"uint8.tflite": tiny_tflite(), "int8.tflite": tiny_tflite(int8=True), "a.onnx": tiny_onnx()}
    path = write(tmp_path, name, files.get(name) or tiny_tflite(beside="refused"))
    _same_answer(tmp_path, here, shell, bundle, path)


def test_real_int8_files_answer_the_same_on_arm64(
    tmp_path: Path, here: Place, shell: LocalShell, bundle: Path, data: Path
) -> None:
    for path in sorted((data / "foreign").glob("*.tflite"))[:2]:
        _same_answer(tmp_path, here, shell, bundle, path)


def _same_answer(tmp_path: Path, here: Place, shell: LocalShell, bundle: Path, path: Path) -> None:
    inside = bundle_place(str(bundle))
    pi = replace(inside, command=(*arm64.emulated(arm64.raspberry_pi(tmp_path / "pi")), *inside.command))
    schedule = replace(QUICK, min_runs=2, cap_s=10)
    there = native_measure(shell, pi, str(path), ENGINES[path.suffix], 1, schedule)
    expected = native_measure(shell, here, str(path), ENGINES[path.suffix], 1, schedule)
    assert there.run.output_hash == expected.run.output_hash, path.name
    assert there.delegate == expected.delegate
    assert there.runtime == expected.runtime  # the versions tested are the ones that are shipped
    assert there.run.warm.temperature_c == 48.686


@dataclass(frozen=True)
class Pi:
    """An emulated Raspberry Pi that the bundle was pushed to."""

    shell: arm64.Arm64Shell
    place: Place
    filesystem: Path  # where its files lie here

    def put(self, path: Path) -> str:
        return Store(self.shell).put([path]).paths[path]


@pytest.fixture(scope="session")
def pi(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Pi:
    filesystem = arm64.root_filesystem(tmp_path_factory.mktemp("pi"))
    shell = arm64.Arm64Shell(filesystem)
    folder, _ = Store(shell).put_bundle(archive)
    return Pi(shell, bundle_place(folder), filesystem)


def test_a_raspberry_pi_without_python_times_a_model(tmp_path: Path, pi: Pi) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())
    there = pi.put(path)
    (pi.filesystem / "run/throttled").write_text("0x50005\n")
    native = native_measure(pi.shell, pi.place, there, "litert", 1, QUICK, cpus="0")
    with ModelProcess(path) as process:
        assert native.run.output_hash == process.measure(QUICK).output_hash
    assert native.cpus == "0"
    warm = native.run.warm
    assert (warm.governor, warm.frequency_khz, warm.temperature_c) == ("ondemand", 1800000, 48.686)
    assert warm.throttled == 0x50005
    for engine, model in (("litert", there), ("ort", pi.put(write(tmp_path, "a.onnx", tiny_onnx())))):
        assert len(native_profile(pi.shell, pi.place, model, engine, 1, QUICK)) >= 3
    assert list((pi.filesystem / pi.shell.root.lstrip("/") / "run").iterdir()) == []  # nothing is left behind


def test_a_model_that_kills_the_runtime_on_the_pi_is_one_error(tmp_path: Path, pi: Pi) -> None:
    bad = pi.put(write(tmp_path, "bad.tflite", tiny_tflite(beside="aborts")))
    with pytest.raises(ModelCrashed, match="died of SIGABRT on emulated-pi"):
        native_measure(pi.shell, pi.place, bad, "litert", 1, QUICK)
    with pytest.raises(DeviceUnfit, match="the native runner does not start on emulated-pi"):
        native_measure(pi.shell, bundle_place("/nowhere"), bad, "litert", 1, QUICK)


def test_an_endless_model_is_ended_on_the_pi(tmp_path: Path, pi: Pi) -> None:
    endless = pi.put(write(tmp_path, "endless.onnx", endless_onnx()))
    with pytest.raises(ModelTimeout):
        native_measure(pi.shell, pi.place, endless, "ort", 1, replace(QUICK, cap_s=0.5), timeout_s=3)
    assert endless.encode() not in pi.shell.run(("ps",)).stdout


def test_the_runner_for_arm64_that_gcc_makes_answers_the_same(
    tmp_path: Path, here: Place, shell: LocalShell, bundle: Path
) -> None:
    compiler = "aarch64-linux-gnu-gcc"
    if shutil.which(compiler) is None or shutil.which("make") is None:
        pytest.skip(f"{compiler} or make is missing: apt-get install gcc-aarch64-linux-gnu make")
    made = tmp_path / "made"
    sources = str(runner_path("aarch64").parents[1])
    target = str(made / "edgenet-runner-aarch64")
    subprocess.run(
        ["make", "-s", "-C", sources, f"CC_aarch64={compiler}", f"OUT={made}", target], check=True, capture_output=True
    )
    inside = bundle_place(str(bundle))
    emulator = arm64.emulated(arm64.raspberry_pi(tmp_path / "pi"))
    path = str(write(tmp_path, "a.tflite", tiny_tflite(int8=True)))
    expected = native_measure(shell, here, path, "litert", 1, QUICK)
    place = replace(inside, command=(*emulator, *inside.command[:-1], target))
    assert native_measure(shell, place, path, "litert", 1, QUICK).run.output_hash == expected.run.output_hash


def test_the_bundle_for_x86_64_answers_what_the_installed_packages_answer(
    tmp_path: Path, here: Place, shell: LocalShell
) -> None:
    try:
        bundle = unpacked(assemble("x86_64"), tmp_path / "bundle")
    except BundleError as exc:
        pytest.skip(f"the bundle for x86_64 cannot be assembled here: {exc}")
    for path in (write(tmp_path, "a.tflite", tiny_tflite(int8=True)), write(tmp_path, "a.onnx", tiny_onnx())):
        engine = ENGINES[path.suffix]
        there = native_measure(shell, bundle_place(str(bundle), "x86_64"), str(path), engine, 1, QUICK)
        expected = native_measure(shell, here, str(path), engine, 1, QUICK)
        assert (there.run.output_hash, there.runtime) == (expected.run.output_hash, expected.runtime)
