"""The native runner against the Python runtimes: the same answers and schedule, and one line for what is broken."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.errors import BundleError, RuntimeMissing
from devices.native.bundle import runner_path
from devices.native.bundle_parts import Part, fetch, read_part
from devices.native.place import local_place
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.runtime import TensorInfo, example_input, output_hash
from devices.runtimes.timing import Schedule

from . import arm64
from .tiny_models import endless_onnx, petabyte_onnx, tiny_onnx, tiny_tflite, write

SOURCES = runner_path("x86_64").parents[1]
QUICK = ("--warmup-s", "0", "--warmup-runs", "1", "--duration-s", "0", "--min-runs", "3", "--cap-s", "5")
RUNNERS = ("shipped", "compiled")
ZIG = "0.13.0"
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


@dataclass(frozen=True)
class Ended:
    status: int
    lines: list[dict[str, Any]]
    stderr: str

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (line,) = self.all(kind)
        return line


def run(model: Path, *options: str, runner: Path | None = None, env: dict[str, str] | None = None) -> Ended:
    place = installed()
    engine = "ort" if model.suffix == ".onnx" else "litert"
    if engine not in place.libraries:
        pytest.skip(f"the Python package of {engine} is not installed here")
    command = [str(runner or runner_path("x86_64")), "--engine", engine, "--lib", place.libraries[engine]]
    command += ["--model", str(model), *(options or QUICK)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=env)
    return Ended(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode())


@functools.cache
def installed():
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("this is for Linux on x86-64")
    try:
        return local_place()
    except RuntimeMissing as exc:
        pytest.skip(str(exc))


@functools.cache
def compiled(compiler: str, arch: str, folder: Path) -> Path:
    """Build the runner with the distribution's own compiler, warnings being errors."""
    if shutil.which(compiler) is None or shutil.which("make") is None:
        pytest.skip(f"{compiler} or make is missing: apt-get install {compiler.removesuffix('-gcc')} make")
    target = folder / f"edgenet-runner-{arch}"
    build = ["make", "-s", "-C", str(SOURCES), f"CC_{arch}={compiler}", f"OUT={folder}", str(target)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    return target


@pytest.fixture(scope="session", params=RUNNERS)
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner that is shipped, and the one that gcc makes of the same sources: they must behave alike."""
    if request.param == "shipped":
        return runner_path("x86_64")
    return compiled("gcc", "x86_64", tmp_path_factory.mktemp("gcc"))


def python_hash(path: Path) -> str:
    with ModelProcess(path) as process:
        return process.measure(Schedule(0, 1, 0, 1, 5, 1)).output_hash


@pytest.mark.parametrize(
    "name", ["uint8.tflite", "int8.tflite", "bare.tflite", "refused.tflite", "tiny.onnx", "batch.onnx"]
)
def test_it_answers_what_the_python_runtime_answers(tmp_path: Path, runner: Path, name: str) -> None:
    files = {
        "uint8.tflite": tiny_tflite,
        "int8.tflite": lambda: tiny_tflite(int8=True),
        "bare.tflite": lambda: tiny_tflite(bare=True),
        "refused.tflite": lambda: tiny_tflite(beside="refused"),
        "tiny.onnx": tiny_onnx,
        "batch.onnx": lambda: tiny_onnx(batch="n"),
    }
    path = write(tmp_path, name, files[name]())
    ended = run(path, runner=runner)
    assert ended.status == 0, ended
    model = ended.one("model")
    assert model["output_hash"] == python_hash(path)
    assert [line["at"] for line in ended.all("state")] == ["start", "warm", "end"]
    assert sum(len(line["ns"]) for line in ended.all("samples")) >= 3
    assert all(0 < sample < 1e9 for line in ended.all("samples") for sample in line["ns"])
    assert 5 << 20 < ended.one("end")["peak_rss_bytes"] < 200 << 20
    assert ended.lines[-1]["kind"] == "end"
    refused = name == "refused.tflite"
    assert model["delegate"] == ("none" if refused else "CPUExecutionProvider" if path.suffix == ".onnx" else "XNNPACK")
    assert bool(model["delegate_note"]) == refused


def test_real_int8_files_answer_what_they_answer_in_python(data: Path) -> None:
    paths = sorted((data / "foreign").glob("*.tflite"))
    assert paths
    for path in paths:
        assert run(path).one("model")["output_hash"] == python_hash(path), path.name


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"],
)
def test_the_noise_is_example_input_in_every_type(tmp_path: Path, dtype: str) -> None:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = [1, 5, 7, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ended = run(write(tmp_path, "same.onnx", model.SerializeToString()))
    noise = example_input(TensorInfo("x", tuple(shape), dtype, 0.0, 0))
    assert ended.one("model")["output_hash"] == output_hash(noise)


def two_outputs(swapped: bool) -> bytes:
    """A file of two answers, whose signature lists them in the graph's order or in the other."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    model = s.ModelT.InitFromObj(s.Model.GetRootAs(tiny_tflite(), 0))
    graph = model.subgraphs[0]
    names = {tensor.name: i for i, tensor in enumerate(graph.tensors)}
    graph.outputs = [names[b"scores"], names[b"means"]]

    def entry(name: str, index: int) -> Any:
        one = s.TensorMapT()
        one.name, one.tensorIndex = name, index
        return one

    signature = s.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [entry("image", graph.inputs[0])]
    listed = [entry("a", names[b"scores"]), entry("b", names[b"means"])]
    signature.outputs = listed[::-1] if swapped else listed
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("swapped", [False, True])
def test_the_first_output_is_the_graphs_first(tmp_path: Path, swapped: bool) -> None:
    path = write(tmp_path, "two.tflite", two_outputs(swapped))
    expected = run(write(tmp_path, "one.tflite", tiny_tflite())).one("model")["output_hash"]
    assert run(path).one("model")["output_hash"] == python_hash(path) == expected


def test_the_schedule_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())

    def counts(warmup_s: str, warmup_runs: str, duration_s: str, min_runs: str, cap_s: str) -> tuple[int, int, float]:
        timed = ("--warmup-s", warmup_s, "--warmup-runs", warmup_runs, "--duration-s", duration_s)
        ended = run(path, *timed, "--min-runs", min_runs, "--cap-s", cap_s)
        samples = [sample for line in ended.all("samples") for sample in line["ns"]]
        return ended.one("end")["warmup_runs"], len(samples), sum(samples) / 1e9

    # One more run warms up after the state was read between the warm-up and the measuring.
    assert counts("0", "7", "0", "11", "5")[:2] == (8, 11)
    warmed, measured, seconds = counts("0.2", "1", "0.3", "1", "5")
    assert warmed > 100
    assert measured > 1000
    assert 0.1 < seconds <= 0.35
    warmed, measured, seconds = counts("60", "1000000000", "60", "1000000000", "0.2")  # the cap ends both
    assert warmed > 100
    assert measured > 100
    assert seconds <= 0.3


def test_it_stays_on_the_processors_it_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())
    mine = sorted(os.sched_getaffinity(0))
    assert run(path, "--cpus", str(mine[-1]), *QUICK).one("end")["cpus"] == str(mine[-1])
    everything = ",".join(map(str, mine))
    cpus = run(path, "--cpus", everything, *QUICK).one("end")["cpus"]
    assert _expand(cpus) == mine == _expand(run(path).one("end")["cpus"])
    for missing in ("1023", f"{mine[0]},1023"):
        ended = run(path, "--cpus", missing, *QUICK)
        assert (ended.status, ended.lines[-1]["cause"]) == (2, "device"), missing
    for wrong in ("x", "0-", "3-1", "", "0,", "1024", "-1", "0 ", "99999999999999999999"):
        ended = run(path, "--cpus", wrong, *QUICK)
        assert (ended.status, ended.lines[-1]["cause"]) == (2, "usage"), wrong


def _expand(cpus: str) -> list[int]:
    ranges = (part.partition("-") for part in cpus.split(","))
    return [cpu for low, _, high in ranges for cpu in range(int(low), int(high or low) + 1)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--frobnicate", "1"), "--frobnicate: unknown option"),
        (("--threads",), "--threads: unknown, or it lacks its value"),
        (("--threads", "0"), "--threads takes a number between 1 and 1024, not 0"),
        (("--cap-s", "nan"), "--cap-s takes seconds between 0 and 86400, not nan"),
        (("--duration-s", "1s"), "--duration-s takes seconds between 0 and 86400, not 1s"),
        (("--engine", "tflite"), "--engine is litert or ort"),
        (("--zones", "("), "--zones takes an extended regular expression"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    ended = run(write(tmp_path, "a.tflite", tiny_tflite()), *options)
    assert ended.status == 2
    (line,) = ended.lines
    assert (line["kind"], line["cause"]) == ("error", "usage")
    assert line["message"].startswith(said)


def test_a_library_that_is_none_of_ours_is_said_so(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())
    for library, said in {
        "/nowhere/libLiteRt.so": "cannot open shared object",
        "libm.so.6": "it is not LiteRT",
    }.items():
        command = [runner_path("x86_64"), "--engine", "litert", "--lib", library, "--model", path]
        installed()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        error = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, error["cause"]) == (2, "runtime")
        assert said in error["message"]


def test_sizes_that_are_open_or_absurd_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    def reshaped(shape: list[int]) -> bytes:
        model = s.ModelT.InitFromObj(s.Model.GetRootAs(tiny_tflite(), 0))
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape = shape
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    huge = [1, 1 << 30, 1 << 30, 3]
    cases = {
        "open.onnx": (tiny_onnx(size="n"), "[1, ?, ?, 3]: export it with a fixed size"),
        "huge.onnx": (tiny_onnx(size=1 << 40), "an absurd size"),
        "huge.tflite": (reshaped(huge), "[1, 1073741824, 1073741824, 3]: an absurd size"),
        "none.tflite": (reshaped([1, 0, 8, 3]), "[1, 0, 8, 3]: export it with a fixed size"),
        "petabyte.onnx": (petabyte_onnx(), "Failed to allocate memory"),
    }
    for name, (content, said) in cases.items():
        ended = run(write(tmp_path, name, content))
        assert (ended.status, ended.lines[-1]["cause"]) == (2, "model"), name
        assert said in ended.lines[-1]["message"], name


@pytest.mark.parametrize("beside", ["aborts", "segfaults"])
def test_a_library_that_dies_takes_nothing_else_with_it(tmp_path: Path, beside: str) -> None:
    ended = run(write(tmp_path, "a.tflite", tiny_tflite(beside=beside)))
    assert ended.status == {"aborts": -6, "segfaults": -11}[beside]
    assert [line["kind"] for line in ended.lines] == ["state"]  # what was said before stays readable


def test_an_inference_without_end_ends_at_the_alarm(tmp_path: Path) -> None:
    ended = run(write(tmp_path, "a.onnx", endless_onnx()), *QUICK, "--timeout-s", "0.7")
    assert ended.status == -14
    assert ended.all("end") == []


@pytest.mark.parametrize("name", ["a.tflite", "a.onnx"])
def test_broken_files_end_in_one_error_and_never_hang(tmp_path: Path, name: str) -> None:
    whole = tiny_tflite() if name == "a.tflite" else tiny_onnx()
    rng = np.random.default_rng(5)
    broken = [whole[: int(length)] for length in rng.integers(0, len(whole), 12)]
    for at in rng.integers(0, len(whole), 36):
        flipped = bytearray(whole)
        flipped[int(at)] ^= 1 << int(rng.integers(8))
        broken.append(bytes(flipped))
    seen = set()
    for content in broken:
        ended = run(write(tmp_path, name, content), *QUICK, "--timeout-s", "10")
        kinds = [line["kind"] for line in ended.lines]
        assert kinds.count("error") == (1 if ended.status == 2 else 0), (ended, content)
        assert ended.status in (0, 2, -4, -6, -7, -8, -11), (ended, content)
        assert (kinds[-1] == "end") == (ended.status == 0)
        seen.add(ended.status == 0)
    assert seen == {True, False}  # both some that still run, and some that do not


def test_what_a_library_prints_is_kept_out_of_the_answers(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tflite", tiny_tflite())
    ended = run(path)
    assert "XNNPACK" in ended.stderr  # LiteRT does talk
    command = [runner_path("x86_64"), "--engine", "litert", "--lib", installed().libraries["litert"], "--model", path]

    def without(stream: str) -> int:
        closing = ["sh", "-c", f'exec "$@" {stream}', "sh", *command, *QUICK]
        return subprocess.run(closing, capture_output=True, check=False, timeout=20).returncode

    assert without("2>&-") == 0
    assert without(">&-") == 2  # nobody listens: it does not run on


@pytest.mark.parametrize("place", ["on PATH", "/opt/vc/bin"])
def test_throttle_bits_are_asked_wherever_vcgencmd_lies(tmp_path: Path, runner: Path, place: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "vcgencmd").write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    (folder / "vcgencmd").chmod(0o755)
    path = write(tmp_path, "a.tflite", tiny_tflite())
    if place == "on PATH":
        ended = run(path, runner=runner, env={"PATH": f"{folder}:{os.environ['PATH']}"})
    else:
        if (
            not Path("/opt").is_dir()
            or not shutil.which(OWN_MOUNTS[0])
            or subprocess.run([*OWN_MOUNTS, "true"], check=False, capture_output=True).returncode
        ):
            pytest.skip("a user cannot mount anything of his own here")
        script = 'mount -t tmpfs none /opt && mkdir /opt/vc && cp -r "$1" /opt/vc/ && shift && exec "$@"'
        shim = tmp_path / "shim"
        inner = shlex.join([*OWN_MOUNTS, "sh", "-c", script, "sh", str(folder), str(runner)])
        shim.write_text(f'#!/bin/sh\nexec {inner} "$@"\n')
        shim.chmod(0o755)
        ended = run(path, runner=shim)
    assert ended.status == 0, ended
    assert {state["throttled"] for state in ended.all("state")} == {"0x50005"}


def test_the_profile_names_the_operators_and_what_ran_them(tmp_path: Path, runner: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = (*QUICK, "--profile", "--scratch", str(scratch))
    litert = run(write(tmp_path, "a.tflite", tiny_tflite()), *options, runner=runner)
    ops = {op["name"]: op for op in litert.all("op")}
    assert ops["CAST"]["delegate"] == ""  # XNNPACK takes no uint8 -> float32
    assert {op["delegate"] for op in ops.values()} == {"", "XNNPACK"}
    ort = run(write(tmp_path, "a.onnx", tiny_onnx()), *options, runner=runner)
    assert [op["name"].split()[0] for op in ort.all("op")] == ["Cast", "ReduceMean", "Div", "Softmax"]
    for ended in (litert, ort):
        assert ended.all("samples") == []
        assert {op["runs"] for op in ended.all("op")} == {3}
        assert all(0 <= op["us"] < 1e5 for op in ended.all("op"))
    assert list(scratch.iterdir()) == []  # ONNX Runtime's trace is gone
    lost = run(write(tmp_path, "a.onnx", tiny_onnx()), *QUICK, "--profile", "--scratch", str(tmp_path / "missing"))
    assert (lost.status, lost.lines[-1]["cause"]) == (2, "device")


def test_the_operators_times_add_up_to_the_inference(data: Path) -> None:
    path = data / "foreign" / "mobilenet_v1_0.75_192_quant.tflite"
    timed = (*QUICK[:-4], "--min-runs", "15", "--cap-s", "5")
    shares = []
    for _ in range(4):  # neighbours disturb one of the two at times
        whole = np.median(run(path, *timed).one("samples")["ns"]) / 1e3
        ops = sum(op["us"] for op in run(path, *timed, "--profile").all("op"))
        shares.append(ops / whole)
        if 0.5 < shares[-1] < 2:
            return
    raise AssertionError(f"the operators take {shares} of the inference")


HEADER = Part(
    name="libonnxruntime-dev",
    version="1.21.0+dfsg-1",
    file="libonnxruntime-dev_1.21.0+dfsg-1_arm64.deb",
    size=85340,
    sha256="d4b1967893865756c0fa8536be165259a8eb0e9068e60d322ba707ef4527e44e",
    take={"usr/include/onnxruntime/onnxruntime_c_api.h": "header"},
    pool="pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_arm64.deb",
)


def test_our_places_in_onnx_runtimes_table_are_the_headers() -> None:
    try:
        header = read_part(HEADER, fetch(HEADER, arm64.MIRRORS, offline=False))["header"].decode()
    except BundleError as exc:
        pytest.skip(f"ONNX Runtime's header cannot be had: {exc}")
    table = header[header.index("struct OrtApi {") :]
    table = table[: table.index("\n};")]
    table = re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", table, flags=re.DOTALL))
    member = r"ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE\((\w+)\)|\(\s*ORT_API_CALL\s*\*\s*(\w+)\s*\)"
    names = [status or (f"Release{kind}" if kind else plain) for status, kind, plain in re.findall(member, table)]
    ours = re.findall(r"^ORT_AT\((\w+), (\d+)\);", (SOURCES / "ort_api.h").read_text(), re.MULTILINE)
    assert len(ours) > 30
    assert {name: int(place) for name, place in ours} == {name: names.index(name) for name, _ in ours}
    declared = set(re.findall(r"\(\*(\w+)\)\(", (SOURCES / "ort_api.h").read_text()))
    assert declared - {"GetApi", "GetVersionString", "ort_unused"} == {name for name, _ in ours}  # each place is held


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_what_is_shipped_is_small_stripped_and_runs_on_old_systems(arch: str) -> None:
    content = runner_path(arch).read_bytes()
    assert len(content) < 100_000
    assert b".symtab" not in content
    versions = {tuple(map(int, found.split(b"."))) for found in re.findall(rb"GLIBC_(\d+\.\d+(?:\.\d+)?)\x00", content)}
    assert versions
    assert max(versions) <= (2, 17)
    assert str(SOURCES).encode() not in content  # nor any other place where it was built
    assert os.access(runner_path(arch), os.X_OK)


def test_the_pinned_compiler_makes_what_is_shipped(tmp_path: Path) -> None:
    python = os.environ.get("EDGENET_TEST_ZIG", sys.executable)
    found = subprocess.run([python, "-m", "ziglang", "version"], capture_output=True, text=True, check=False)
    if found.stdout.strip() != ZIG:
        pytest.skip(f"ziglang {ZIG} is missing: pip install ziglang=={ZIG}, or EDGENET_TEST_ZIG names a Python with it")
    build = ["make", "-s", "-C", str(SOURCES), f"ZIG={python} -m ziglang", f"OUT={tmp_path}"]
    subprocess.run(build, check=True, capture_output=True)
    for arch in ("x86_64", "aarch64"):
        made = tmp_path / f"edgenet-runner-{arch}"
        assert made.read_bytes() == runner_path(arch).read_bytes(), f"make -C devices/runner: bin/ is stale for {arch}"
