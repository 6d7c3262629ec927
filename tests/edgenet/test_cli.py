"""The command line as a user meets it: in a process of its own, with its exit codes, on real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from devices.machine import INT8_FEATURES, isa_features
from devices.runtimes import onnx_runtime
from edgenet import symbols
from edgenet.cli.bench import _save
from edgenet.cli.onnx_here import warn_where_int8_needs_it
from edgenet.demo import CALIBRATION_PER_CLASS
from edgenet.errors import EdgenetError
from edgenet.gain import GAINS
from edgenet.nets.network import open_network
from edgenet.symbols.glyphs import LABELS

from .command_line import BRIEFLY
from .conftest import NETWORK, Edgenet, Ran
from .symbols_files import INT8

FILES = tuple(f"symbols_{precision}.{kind}" for precision in ("float32", "int8") for kind in ("tflite", "onnx"))


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'PIL', 'tensorflow', 'keras', 'onnxruntime', 'ai_edge_litert', 'rich.table'}"
    code = f"import sys; from edgenet.cli.app import app; sys.exit(str({heavy} & set(sys.modules)) != 'set()')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_edgenet_is_light_and_its_names_are_there() -> None:
    code = (
        "import sys, edgenet; assert set(edgenet.__all__) < set(dir(edgenet));"  # what a Python prompt completes
        "assert not {'numpy', 'tensorflow'} & set(sys.modules);"
        "spec = edgenet.ModelSpec.parse('mobilenet_v2'); assert all(getattr(edgenet, n) for n in edgenet.__all__)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_verb(edgenet: Edgenet) -> None:
    said = edgenet("--help")
    assert said.code == 0
    verbs = "demo models info convert quantize verify evaluate bench results compare devices doctor cards train"
    assert all(f" {verb} " in said.out for verb in verbs.split())


def test_demo_does_the_whole_job(demo: tuple[Path, Ran]) -> None:
    folder, ran = demo
    assert ran.code == 0, ran.err
    for name in FILES:
        assert name in ran.out
        assert (folder / name).is_file()
    assert ran.out.count("passed") == 4
    assert "measure" in ran.err
    gains = re.findall(r"(symbols_int8\.\w+) .* ([\d.]+)x", ran.out)
    assert [name for name, _ in gains] == ["symbols_int8.tflite", "symbols_int8.onnx"]
    plain = not set(isa_features()) & set(INT8_FEATURES)
    for name, gain in gains:
        said = re.search(rf"{name} on local, 1 thread: {gain}x its float sibling's speed: (.*)", ran.err)
        assert bool(said) == (float(gain) <= GAINS) or float(gain) == GAINS  # as rounded
        assert not said or ("no int8 dot product" in said[1]) == plain


def test_cards_write_a_page(edgenet: Edgenet, tmp_path: Path) -> None:
    ran = edgenet("cards", "-o", tmp_path / "a[b].pdf", "--json")
    assert ran.document["symbols"] == list(LABELS)
    assert (tmp_path / "a[b].pdf").read_bytes().startswith(b"%PDF")
    assert "a[b].png" in edgenet("cards", "-o", tmp_path / "a[b].png").out.replace("\n", "")


def test_doctor_prints_the_command_whole_and_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    """A machine without TensorFlow, ONNX and the quantizer, as a Raspberry Pi is."""
    blocked = "{'tensorflow', 'tensorflow-cpu', 'keras', 'onnx', 'tf2onnx', 'ai-edge-quantizer'}"
    hide = (
        "import sys, importlib.metadata as m\n"
        f"real, blocked = m.version, {blocked}\n"
        "def version(name):\n"
        "    if name in blocked: raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in blocked: raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = f"{hide}sys.argv = ['edgenet', *{arguments!r}]\nfrom edgenet.__main__ import main\nmain()"
        environment = {**os.environ, "COLUMNS": "200"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert 'pip install "edgenet[convert]"' in run("doctor").stdout
    for verb in (("convert", "symbols"), ("demo",), ("train", "symbols", "--images", "40")):
        ran = run(*verb, "-o", str(tmp_path / "d"))
        assert ran.returncode == 1
        assert "Traceback" not in ran.stderr
        assert "edgenet[convert]" in ran.stderr
        assert "generate" not in ran.stderr
        assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("precision", ["float16", "int16x8", "dynamic"])
def test_every_precision_passes_its_gate(edgenet: Edgenet, pictures: Path, tmp_path: Path, precision: str) -> None:
    verb = ("convert",) if precision == "float16" else ("quantize",)
    calibration = ("--calibration", pictures, "--limit", 24) if precision == "int16x8" else ()
    made = edgenet(*verb, "symbols", "--precision", precision, *calibration, "-o", tmp_path, "--json")
    assert made.code == 0, made.err
    ran = edgenet("verify", *(row["path"] for row in made.document), "--images", pictures, "--limit", 40, "--json")
    assert ran.code == 0, ran.err
    assert [row["precision"] for row in ran.document] == [precision, precision]
    assert ("slower than float32" in made.err) == (precision == "int16x8")
    assert "session.x64quantprecision" not in made.err + ran.err
    if precision == "dynamic":
        import onnx

        (graph,) = (onnx.load(row["path"]).graph for row in made.document if row["path"].endswith(".onnx"))
        assert {"Conv", "Gemm"} & {node.op_type for node in graph.node}
        assert not any("Integer" in node.op_type or "Quantize" in node.op_type for node in graph.node)


@pytest.mark.parametrize(
    ("file", "precision", "exact", "said"),
    [
        ("a_int8.onnx", "int8", False, True),
        ("a_dynamic.onnx", "dynamic", False, False),  # its kernels are float ones
        ("a_int8.onnx", "int8", True, False),
        ("a_float32.onnx", "float32", False, False),
        ("a_int8.tflite", "int8", False, False),
    ],
)
def test_what_onnx_runtime_needs_on_this_processor_is_said_once(
    file: str,
    precision: str,
    exact: bool,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnx_runtime, "is_exact_alone_here", lambda: exact)
    warn_where_int8_needs_it([(Path("b_float32.tflite"), "float32"), (Path(file), precision), (Path(file), precision)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert all('add_session_config_entry("session.x64quantprecision", "1")' in line for line in lines)


def test_verify_without_images_uses_generated_ones(edgenet: Edgenet, made: Path) -> None:
    ran = edgenet("verify", made / FILES[0], "--limit", 20, "--json")
    assert ran.code == 0, ran.err
    assert "no --images" in ran.err
    assert (ran.document[0]["path"], ran.document[0]["images"]) == (str(made / FILES[0]), 20)


def test_evaluate_gate(edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path) -> None:
    common = ("evaluate", made / FILES[2], "--data", pictures, "--limit", 40, "--workers", 1, "--min-top1", 0.9)
    assert edgenet(*common).code == 0
    (tmp_path / "rotated.txt").write_text("\n".join([*LABELS[1:], LABELS[0]]))
    ran = edgenet(*common, "--labels", tmp_path / "rotated.txt")
    assert ran.code == 3
    assert "top-1 below 90.0%" in ran.err


def test_ctrl_c_while_it_still_loads_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "edgenet", "doctor"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_offline_imagenet_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edgenet", "convert", "mobilenet_v2_0.35_96", "-o", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert "give --weights FILE or --weights none" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_models_and_info_print_one_document(edgenet: Edgenet) -> None:
    listed = {row["name"]: row for row in edgenet("models", "--json").document}
    assert listed["mobilenet_v1_1.0_224"]["multiply_adds"] == 568_740_352
    shown = edgenet("info", "mobilenet_v1", "--block", "standard", "--json").document
    assert round(shown["multiply_adds"] / 1e6) == 4867
    table = edgenet("info", "mobilenet_v3_small").out
    assert "squeeze-excite" in table
    assert "2,554,968" in table


def test_manifest_says_everything(made: Path) -> None:
    for name in FILES:
        manifest = json.loads((made / f"{name}.json").read_text())
        assert (made / name).stat().st_size == manifest["file_bytes"]
        assert manifest["source"]["model"] == "symbols"
        assert manifest["input"]["height"] == manifest["input"]["width"] == 96
        assert (manifest["input"]["dtype"], manifest["input"]["colour"]) == ("uint8", "RGB")
        assert len(manifest["input"]["preprocessing_sha256"]) == 64
        assert tuple(manifest["output"]["labels"]) == LABELS
        assert manifest["output"]["dtype"] == "float32"
        assert {"edgenet", "keras"} <= {tool["name"] for tool in manifest["tools"]}
        assert manifest["command"].startswith("edgenet ")
        if "int8" in name:
            assert manifest["quantization"]["calibration_images"] == CALIBRATION_PER_CLASS * len(LABELS)
            assert len(manifest["quantization"]["calibration_sha256"]) == 64
            assert any("SOFTMAX" in kept.upper() for kept in manifest["quantization"]["kept_float"])
        else:
            assert manifest["quantization"] is None


def test_files_verify_against_the_network_the_manifest_names(edgenet: Edgenet, made: Path, pictures: Path) -> None:
    ran = edgenet("verify", *(made / name for name in FILES), "--images", pictures, "--json")
    assert ran.code == 0, ran.err
    assert "says the same" not in ran.err
    for row in ran.document:
        assert row["verdict"]["passed"]
        if row["precision"] == "float32":
            assert row["max_abs"] <= 1e-4
            assert row["top1_agreement"] == 1.0
        else:
            assert row["top1_agreement"] >= 0.97
            assert row["sqnr_db"] > 12


def test_verify_exits_3_where_the_file_is_another_networks(edgenet: Edgenet, made: Path, pictures: Path) -> None:
    other = ("--against", "mobilenet_v2_0.35_96", "--weights", "none", "--classes", len(LABELS))
    ran = edgenet("verify", made / FILES[0], "--images", pictures, *other)
    assert ran.code == 3
    assert "max abs error" in ran.err


def test_evaluate_and_bench_work_without_tensorflow(
    made: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"EDGENET_{kind}_HOME", str(tmp_path))
    for arguments in (
        ["evaluate", str(made / FILES[2]), str(made / FILES[3]), "--data", str(pictures), "--json"],
        ["bench", str(made / FILES[2]), "--repetitions", "1", "--json"],
        ["results", "--json"],
        ["devices", "--json"],
        ["doctor", "--json"],
    ):
        code = (
            f"import sys; sys.argv = ['edgenet', *{arguments!r}]\n"
            "from edgenet.__main__ import main\n"
            "try:\n    main()\nexcept SystemExit as exit:\n    assert not exit.code, exit.code\n"
            "assert not {'tensorflow', 'keras', 'onnx', 'tf2onnx'} & set(sys.modules)"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)


def test_evaluate_gives_files_and_network_the_same_top1(edgenet: Edgenet, made: Path, pictures: Path) -> None:
    files = [made / FILES[0], made / FILES[1]]
    rows = edgenet("evaluate", *files, "symbols", "--data", pictures, "--json").document
    assert len({row["top1"] for row in rows}) == 1
    assert all(row["images"] == 120 for row in rows)
    assert rows[0]["top1"] > 0.95
    assert rows[0]["top1_interval"][0] <= rows[0]["top1"] <= rows[0]["top1_interval"][1]


def test_a_foreign_file_is_given_pictures_as_the_user_says(
    edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs.tflite").write_bytes((made / FILES[0]).read_bytes())
    for file in pictures.glob("*/*.png"):
        (tmp_path / "wide" / file.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.resize((image.width * 3, image.height)).save(tmp_path / "wide" / file.parent.name / file.name)
    common = ("evaluate", tmp_path / "theirs.tflite", "--data", tmp_path / "wide", "--json")
    (whole,), (cut,) = edgenet(*common, "--crop", "squash").document, edgenet(*common).document
    assert whole["top1"] > 0.95
    assert cut["top1"] < whole["top1"]


def test_pictures_that_are_not_read_are_told_of(edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "star", tmp_path / "star")
    common = ("evaluate", INT8, "--data", tmp_path, "--json")
    assert "not read" not in edgenet(*common).err
    (tmp_path / "five").mkdir()
    (tmp_path / "five/IMG_0001.HEIC").touch()
    ran = edgenet(*common)
    assert (ran.code, ran.document[0]["images"]) == (0, 6)
    assert "1 picture of kinds that are not read, IMG_0001.HEIC the first, left out" in ran.err


@pytest.mark.parametrize(
    ("file", "option"),
    [
        (FILES[0], ("--crop", "squash")),
        (FILES[0], ("--input-range", "0..1")),
        (FILES[0], ("--weights", "none")),
        ("theirs.tflite", ("--size", 64)),
        ("theirs.tflite", ("--classes", 3)),
        ("theirs.tflite", ("--trust",)),
        ("symbols", ("--workers", 2)),
    ],
)
def test_an_option_that_concerns_no_model_is_refused(
    edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path, file: str, option: tuple[object, ...]
) -> None:
    (tmp_path / "theirs.tflite").write_bytes((made / FILES[0]).read_bytes())
    model = {"theirs.tflite": tmp_path / file, "symbols": file}.get(file, made / file)
    ran = edgenet("evaluate", model, "--data", pictures, *option)
    assert (ran.code, ran.out) == (2, "")
    assert f"{option[0]} concerns" in ran.err


@pytest.mark.parametrize(
    "option",
    [
        ("--input-range", "0..1"),
        ("--input-range", "0..1", "--against", "symbols"),
        ("--size", 64, "--against", "symbols"),
        ("--weights", "none", "--against", "mine.keras"),
        ("--classes", 3, "--against", "mine.keras"),
    ],
)
def test_an_option_that_verify_would_ignore_is_refused(edgenet: Edgenet, option: tuple[object, ...]) -> None:
    ran = edgenet("verify", INT8, *option)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"{option[0]} concerns" in ran.err


def test_bench_gate(edgenet: Edgenet, made: Path) -> None:
    ran = edgenet("bench", made / FILES[2], "--repetitions", 1, "--max-ms", 0.0001)
    assert ran.code == 3
    assert "slower than 0.0001 ms" in ran.err
    assert "warning: --repetitions 1: too few to know" in ran.err
    assert (
        edgenet("bench", made / FILES[2], "--max-ms", "nan").err
        == "edgenet: --max-ms nan: give milliseconds, such as 20\n"
    )


@pytest.mark.parametrize("kind", [(), ("--json",)])
def test_a_gate_is_held_and_results_are_saved_though_nobody_reads_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: tuple[str, ...]
) -> None:
    """`edgenet bench FILE --max-ms 1 | head -1`."""
    monkeypatch.setenv("EDGENET_DATA_HOME", str(tmp_path / "data"))
    shipped = Path(symbols.__file__).with_name("symbols_int8.tflite")
    unread, stdout = os.pipe()
    os.close(unread)
    words = [shipped, "--repetitions", 1, "--max-ms", 0.0001, "--out", tmp_path, *kind]
    command = [*BRIEFLY, "bench", *map(str, words)]
    ran = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    os.close(stdout)
    assert ran.returncode == 3, ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("edgenet: slower than 0.0001 ms")
    saved = json.loads(next(tmp_path.glob("bench-*.json")).read_text())
    (row,) = saved["rows"]
    age = datetime.now(timezone.utc) - datetime.fromisoformat(row["started_at"])
    assert timedelta() <= age < timedelta(minutes=10)
    assert {"edgenet", "numpy", "ai-edge-litert"} <= saved["tools"].keys()
    assert f"--max-ms 0.0001 --out {tmp_path}" in saved["command"]


def test_results_are_saved_though_stdout_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENET_DATA_HOME", str(tmp_path / "data"))
    shipped = Path(symbols.__file__).with_name("symbols_int8.tflite")
    command = [*BRIEFLY, "bench", str(shipped), "--repetitions", "1", "--out", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "edgenet: stdout: No space left on device"
    assert len(json.loads(next(tmp_path.glob("bench-*.json")).read_text())["rows"]) == 1


def test_a_file_named_twice_is_measured_once(edgenet: Edgenet, made: Path) -> None:
    again = made / ".." / made.name / FILES[2]
    ran = edgenet("bench", made / FILES[2], again, "--repetitions", 1, "--json")
    assert ran.code == 0, ran.err
    assert [row["path"] for row in ran.document["rows"]] == [str(made / FILES[2])]


def test_a_result_is_kept_whatever_the_file_is_called(tmp_path: Path) -> None:
    _save({"path": "\udcff.tflite"}, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert "\\udcff.tflite" in kept.read_text()


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENET_DATA_HOME", str(tmp_path / "data"))  # none of the user's own
    code = (
        "import sys, edgenet.cli.bench as bench\n"
        "def full(*_): raise OSError(28, 'No space left on device')\n"
        "bench._save = full\n"
        f"sys.argv = ['edgenet', 'bench', {str(made / FILES[2])!r}, '--repetitions', '1', '-o', {str(tmp_path)!r}]\n"
        "from edgenet.__main__ import main\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert FILES[2] in ran.stdout
    assert "No space left on device; make room" in ran.stderr
    assert "TMPDIR names another" in ran.stderr


def test_the_users_settings_of_keras_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(
        '{"backend": "theano", "image_data_format": "channels_first", "floatx": "float16"}'
    )
    own = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    words = ("convert", "mobilenet_v1_0.25_32", "--weights", "none", "--to", "onnx", "-o", str(tmp_path), "--json")
    ran = subprocess.run(
        [sys.executable, "-m", "edgenet", *words], capture_output=True, text=True, env=own, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)


def test_a_name_that_is_no_utf8_is_one_line() -> None:
    with pytest.raises(EdgenetError, match=r"a name that is no UTF-8 can stand in no model file; rename it"):
        open_network("/tmp/\udcff.keras")


def test_without_a_stdout_it_is_one_line() -> None:
    ran = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m edgenet models >&-"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "there is no stdout" in ran.stderr


def test_without_a_stderr_the_result_is_what_it_is() -> None:
    """Whoever closes stderr (2>&-) hears no warning; what is opened next must not take its place."""
    for words, code, whole in (("models --json", 0, True), ("info mobilenet_v7", 2, False)):
        command = ["sh", "-c", f"{sys.executable} -m edgenet {words} 2>&-"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == code
        assert bool(json.loads(ran.stdout or "[]")) == whole
        assert bool(ran.stdout) == whole


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("info", "mobilenet_v7"), 2, "did you mean"),
        (("info", __file__), 2, "is a file"),
        (("info", "symbols"), 2, "edgenet info mobilenet_v2_0.35_96 --classes 20"),
        (("convert", "mobilenet_v2", "--precision", "int8"), 2, "float32"),
        (("convert", "no/such/model.keras"), 1, "does not exist"),
        (("convert", "mobilenet_v2_0.35_96", "--weights", "/no/such.h5"), 1, "/no/such.h5"),
        (("convert", "mobilnet_v2_0.35_96"), 2, "did you mean mobilenet_v2_0.35_96"),
        (("convert", "symbols", "--input-range", "0..1"), 2, "knows what it eats"),
        (("convert", "missing.keras", "--weights", "none"), 2, "brings its own"),
        (("quantize", NETWORK, "--weights", "none"), 2, "needs --calibration"),
        (("quantize", NETWORK, "--precision", "dynamic", "--effort", "plain"), 2, "leave --effort out"),
        (("quantize", NETWORK, "--precision", "dynamic", "--limit", "9"), 2, "leave --limit out"),
        (("quantize", NETWORK, "--validation-limit", "9"), 2, "--validation-limit needs --validation"),
        (("train", "symbols", "--seed", "-1"), 2, "--seed"),
        (("train", "symbols", "--images", "5"), 2, "at least 20 images"),
        (("info", "mobilenet_v1_shallow", "--block", "standard"), 2, "variant already"),
        (("convert", NETWORK, "--weights", "none", "--input-range", "0..1"), 2, "knows what it eats"),
        (("quantize", NETWORK, "--weights", "none", "--calibration", "/no/folder"), 1, "/no/folder"),
        (("bench", "/no/such.tflite"), 1, "/no/such.tflite"),
        (("bench", __file__, "--threads", "1,257"), 2, "give whole numbers from 1 to 256"),
        (("bench", __file__), 1, "test_cli.py"),
        (("verify", "/no/such.tflite"), 1, "/no/such.tflite"),
        (("evaluate", "/no/such.onnx", "--data", "/tmp"), 1, "/no/such.onnx"),
        (("cards", "-o", "page.docx"), 2, ".pdf"),
        (("demo", "-o", __file__), 1, "test_cli.py is no folder; choose another folder"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    edgenet: Edgenet, arguments: tuple[str, ...], code: int, hint: str, tmp_path: Path
) -> None:
    ran = edgenet(*arguments, cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert "Traceback" not in ran.err
    assert "warning" not in ran.err
    assert hint in ran.err
    assert list(tmp_path.iterdir()) == []


def test_empty_calibration_folder_and_too_few_images(edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    common = ("--weights", "none", "--classes", 7, "--to", "tflite", "-o", out)
    ran = edgenet("quantize", NETWORK, "--calibration", tmp_path / "empty", *common)
    assert ran.code == 1
    assert "no image in this folder" in ran.err
    assert not out.exists()
    ran = edgenet("quantize", NETWORK, "--calibration", pictures / "star", *common)
    assert ran.code == 0
    assert "6 calibration images" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "a.tflite", "--data", ".", "--min-top1"),
        ("quantize", "symbols", "--max-drop"),
        ("bench", "a.tflite", "--wait"),
    ],
    ids=lambda words: words[0],
)
def test_a_gate_at_nan_would_hold_back_nothing_and_is_refused(edgenet: Edgenet, words: tuple[str, ...]) -> None:
    ran = edgenet(*words, "nan")
    assert ran.code == 2
    assert "nan is no number to hold anything" in ran.err
    assert words[-1] in ran.err


def test_wrong_class_count_is_refused(edgenet: Edgenet, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.txt", tmp_path / "out"
    labels.write_text("a\nb\nc\n")
    ran = edgenet("convert", NETWORK, "--weights", "none", "--classes", 9, "--labels", labels, "-o", out)
    assert ran.code == 1
    assert "3 classes" in ran.err
    assert "answers 9" in ran.err
    assert not out.exists()


def test_a_manifest_that_asks_for_other_pixels_is_noticed(
    edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / FILES[0]).write_bytes((made / FILES[0]).read_bytes())
    text = (made / f"{FILES[0]}.json").read_text()
    assert '"crop": "center"' in text
    (tmp_path / f"{FILES[0]}.json").write_text(text.replace('"crop": "center"', '"crop": "squash"'))
    ran = edgenet("evaluate", tmp_path / FILES[0], "--data", pictures)
    assert (ran.code, ran.out) == (1, "")
    assert "was changed by hand" in ran.err


def test_changed_file_is_noticed(edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path) -> None:
    for suffix in ("", ".json"):
        (tmp_path / f"{FILES[0]}{suffix}").write_bytes((made / f"{FILES[0]}{suffix}").read_bytes())
    with (tmp_path / FILES[0]).open("ab") as file:
        file.write(b"x")
    ran = edgenet("evaluate", tmp_path / FILES[0], "--data", pictures)
    assert ran.code == 1
    assert "not the file that" in ran.err


def test_no_permission_leaves_nothing(edgenet: Edgenet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"  # a folder below a file: refused to root as well
    ran = edgenet("convert", NETWORK, "--weights", "none", "--to", "tflite", "-o", out)
    assert ran.code == 1
    assert "choose another folder" in ran.err
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk needs a small file system, and mounting one needs root")
def test_full_disk_leaves_nothing(edgenet: Edgenet, tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount a small file system")
    try:
        ran = edgenet("convert", NETWORK, "--weights", "none", "--to", "tflite", "-o", tmp_path)
        assert ran.code == 1
        assert "No space left on device" in ran.err
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def hear_ctrl_c() -> None:
    """A job in the background starts with SIGINT ignored, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("moment", ["load the network", "-> tflite"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-m", "edgenet", "convert", "mobilenet_v1_1.0_224", "--weights", "none"]
    command += ["-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        process.wait(60)
    assert process.returncode == 130
    assert "interrupted" in err
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert [
        file.name for file in left if file.suffix != ".json" and not file.with_name(file.name + ".json").exists()
    ] == []
    assert not [file for file in left if file.name.startswith(".")]
