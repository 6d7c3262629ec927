"""Models that users bring: their own Keras classifiers, and model files that somebody else made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Edgenet


@pytest.mark.parametrize(
    ("file", "options"),
    [("rescaled.keras", ()), ("bare.h5", ("--input-range=-1..1",)), ("saved", ("--input-range", "0..255"))],
)
def test_own_classifier_end_to_end(
    edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path, file: str, options: tuple[str, ...]
) -> None:
    out = tmp_path
    if file == "saved":  # a folder: results may lie in it, and change nothing of what it is
        models, out = tmp_path, shutil.copytree(models / file, tmp_path / file)
    made = edgenet("convert", models / file, *options, "-o", out, "--json")
    assert made.code == 0, made.err
    assert "no --labels" in made.err
    files = [row["path"] for row in made.document]
    ran = edgenet("verify", *files, "--images", pictures, "--limit", 40, "--json")
    assert ran.code == 0, ran.err
    assert all(row["max_abs"] <= 1e-4 and row["top1_agreement"] == 1 for row in ran.document)


def test_own_classifier_in_int8(edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path) -> None:
    made = edgenet("quantize", models / "rescaled.keras", "--calibration", pictures, "-o", tmp_path, "--json")
    assert made.code == 0, made.err
    eats = made.document[0]["manifest"]["input"]
    assert (eats["scale"], eats["offset"]) == (pytest.approx(1 / 255), 0)
    ran = edgenet("verify", *(row["path"] for row in made.document), "--images", pictures, "--limit", 40, "--json")
    assert all(row["sqnr_db"] > 20 for row in ran.document)


def test_yes_or_no_in_int8(edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path) -> None:
    common = ("--calibration", pictures, "--effort", "plain", "-o", tmp_path, "--json")
    made = edgenet("quantize", models / "yes.keras", *common)
    assert made.code == 0, made.err
    assert {row["manifest"]["output"]["classes"] for row in made.document} == {2}
    ran = edgenet("verify", *(row["path"] for row in made.document), "--images", pictures, "--limit", 40, "--json")
    assert all(row["sqnr_db"] > 25 for row in ran.document)
    assert "says the same" not in ran.err
    ran = edgenet("verify", made.document[0]["path"], "--images", pictures, "--limit", 1, "--json")
    assert ran.document[0]["one_answer"] == 1
    assert "the float network says the same of 100.0% of these images" in ran.err


@pytest.mark.parametrize(
    ("file", "options"),
    [("saved", ("--input-range", "0..255")), ("lambda.keras", ("--trust", "--input-range", "0..255"))],
)
def test_what_keras_cannot_copy_is_quantized_too(
    edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path, file: str, options: tuple[str, ...]
) -> None:
    made = edgenet("quantize", models / file, *options, "--calibration", pictures, "-o", tmp_path, "--json")
    assert made.code == 0, made.err
    assert (", not a SavedModel: give the .keras file" in made.err) == (file == "saved")
    trust = ("--trust",) if "lambda" in file else ()
    files = [row["path"] for row in made.document]
    ran = edgenet("verify", *files, "--images", pictures, "--limit", 20, *trust, "--json")
    assert all(row["sqnr_db"] > 15 for row in ran.document), ran.err


def test_what_cannot_be_known_is_asked_for(edgenet: Edgenet, models: Path, tmp_path: Path) -> None:
    asked = edgenet("convert", models / "bare.h5", "-o", tmp_path)
    assert (asked.code, asked.out) == (2, "")
    assert "--input-range 0..255 | 0..1 | -1..1" in asked.err
    contradiction = edgenet("convert", models / "rescaled.keras", "--input-range", "0..1", "-o", tmp_path)
    assert contradiction.code == 2
    assert "Rescaling" in contradiction.err
    assert list(tmp_path.iterdir()) == []


def test_code_in_a_file_runs_only_when_trusted(edgenet: Edgenet, models: Path, tmp_path: Path) -> None:
    refused = edgenet("convert", models / "lambda.keras", "-o", tmp_path)
    assert refused.code == 1
    assert "'lambda'" in refused.err
    assert "--trust" in refused.err
    trusted = edgenet(
        "convert", models / "lambda.keras", "--trust", "--input-range", "0..255", "--to", "tflite", "-o", tmp_path
    )
    assert trusted.code == 0, trusted.err


def test_a_changed_source_is_noticed(edgenet: Edgenet, models: Path, pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.keras"
    copy.write_bytes((models / "rescaled.keras").read_bytes())
    made = edgenet("convert", copy, "--to", "tflite", "-o", tmp_path, "--json")
    with copy.open("ab") as file:
        file.write(b"x")
    ran = edgenet("verify", made.document[0]["path"], "--images", pictures)
    assert ran.code == 1
    assert "has changed since" in ran.err


def test_teachable_machine(edgenet: Edgenet, data: Path, tmp_path: Path) -> None:
    folder = data / "foreign" / "teachable_machine"
    common = ("--input-range=-1..1", "--labels", folder / "labels.txt", "-o", tmp_path, "--json")
    made = edgenet("convert", folder / "keras_model.h5", *common)
    assert made.code == 0, made.err
    assert len(made.document[0]["manifest"]["output"]["labels"]) == 4
    ran = edgenet("verify", *(row["path"] for row in made.document), "--images", data / "photos", "--json")
    assert ran.code == 0, ran.err


# Top-1 on the 300 photographs, seen here; a wrong offset of labels or wrong bytes in would give about 0.
FOREIGN = {
    "mobilenet_v1_0.25_128_quant": 0.44,
    "mobilenet_v1_0.5_160_quant": 0.68,
    "mobilenet_v1_0.75_192_quant": 0.76,
    "mobilenet_v2_1.0_224_quant": 0.843,
    "tf2_mobilenet_v2_1.0_224_ptq": 0.817,
}


def test_foreign_files_run_unchanged(edgenet: Edgenet, data: Path) -> None:
    files = [data / "foreign" / f"{name}.tflite" for name in FOREIGN]
    labels = data / "foreign" / "imagenet_labels.txt"  # 1001, "background" first
    ran = edgenet("evaluate", *files, "--data", data / "imagenet" / "validation", "--labels", labels, "--json")
    assert ran.code == 0, ran.err
    top1 = {Path(row["model"]).stem: row["top1"] for row in ran.document}
    assert top1 == pytest.approx(FOREIGN, abs=0.02)
    wrong = edgenet(
        "evaluate", files[0], "--data", data / "imagenet" / "validation", "--labels", data / "imagenet" / "labels.txt"
    )
    assert wrong.code == 1
    assert "answers 1001 classes and the labels name 1000" in wrong.err
    timed = edgenet("bench", files[0], files[-1], "--repetitions", 1, "--json")
    assert timed.code == 0, timed.err
    assert all(row["median_ms"] > 0 for row in timed.document["rows"])


def test_a_lost_manifest_leaves_a_usable_file(edgenet: Edgenet, made: Path, pictures: Path, tmp_path: Path) -> None:
    """A file whose manifest was lost is a foreign file: it still carries its labels inside."""
    file = tmp_path / "renamed.onnx"
    file.write_bytes((made / "symbols_int8.onnx").read_bytes())
    ran = edgenet("evaluate", file, "--data", pictures, "--json")
    assert ran.code == 0, ran.err
    assert ran.document[0]["top1"] > 0.95
    tflite = tmp_path / "renamed.tflite"
    tflite.write_bytes((made / "symbols_float32.tflite").read_bytes())
    assert edgenet("evaluate", tflite, "--data", pictures, "--json").document[0]["top1"] > 0.95
    unknown = edgenet("verify", file, "--images", pictures)
    assert unknown.code == 2
    assert "--against" in unknown.err


def test_real_v1_matches_keras_on_real_photographs(edgenet: Edgenet, data: Path, tmp_path: Path) -> None:
    common = ("mobilenet_v1_0.25_224", "--weights", data / "models" / "mobilenet_v1_0.25_224.h5")
    labels = ("--labels", data / "imagenet" / "classes.csv")
    made = edgenet("convert", *common, *labels, "-o", tmp_path, "--json")
    assert made.code == 0, made.err
    files = [row["path"] for row in made.document]
    photographs = data / "imagenet" / "validation"
    ran = edgenet("verify", *files, "--images", photographs, "--limit", 100, "--json")
    assert ran.code == 0, ran.err
    rows = edgenet("evaluate", *files, *common, *labels, "--data", photographs, "--limit", 100, "--json").document
    assert len({row["top1"] for row in rows}) == 1
    assert rows[0]["top1"] > 0.45
    assert json.loads(Path(f"{files[0]}.json").read_text())["source"]["weights_sha256"]
