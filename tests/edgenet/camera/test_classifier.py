"""Model files behind the camera: what they are given, what their answers are called, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devices.errors import DeviceError, ModelCrashed, ModelUnreadable
from devices.runtimes.model_process import ModelProcess
from edgenet.camera.classifier import FileClassifier, default_model, sibling
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing, decode, fit
from edgenet.labels import Labels
from edgenet.proof.subjects import open_artifact, scorer
from tests.devices.tiny_models import LABELS, expected, tiny_onnx, tiny_tflite, with_labels, write
from tests.edgenet.conftest import Edgenet


def float_onnx(folder: Path, labels: str | None = '["red", "green", "blue"]', channels_first: bool = False) -> Path:
    """Write float32 [1, 6, 8, 3] (or [1, 3, 6, 8]) in 0..1 -> logits [1, 3]: the means times 4."""
    import onnx
    from onnx import TensorProto, helper

    shape, sides = ([1, 3, 6, 8], [2, 3]) if channels_first else ([1, 6, 8, 3], [1, 2])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "four"], ["answer"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], sides),
        helper.make_tensor("four", TensorProto.FLOAT, [], [4.0]),
    ]
    graph = helper.make_graph(nodes, "colours", [image], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if labels:
        helper.set_model_props(model, {"labels": labels})
    onnx.checker.check_model(model)
    return write(folder, f"float{'_nchw' if channels_first else ''}.onnx", model.SerializeToString())


def camera_picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((height, width, 3)) * rng.integers(1, 256, 3)).astype(np.uint8)


@settings(max_examples=60)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from(["center", "squash"]), st.integers(0, 9),
)  # fmt: skip
@example(300, 300, 1, 1, "center", 0)  # blocks that are left to Pillow
@example(9, 8, 9, 8, "squash", 0)  # nothing to resize
def test_what_comes_blue_first_is_fitted_to_the_bytes_of_red_first(
    height: int, width: int, high: int, wide: int, crop: str, seed: int
) -> None:
    image = camera_picture(seed, height, width)
    prep = Preprocessing(high, wide, crop)  # type: ignore[arg-type]
    fitted = fit(image, prep, channels="BGR")
    assert (fitted == fit(np.ascontiguousarray(image[..., ::-1]), prep)).all()
    assert fitted.flags.c_contiguous


@pytest.mark.parametrize("kind", ["uint8.tflite", "int8.tflite", "uint8.onnx"])
def test_foreign_files_are_given_what_they_eat(tmp_path: Path, kind: str) -> None:
    int8 = kind == "int8.tflite"
    data = tiny_onnx() if kind.endswith("onnx") else with_labels(tiny_tflite(int8), b"red\ngreen\nblue")
    path = write(tmp_path, kind, data)
    classifier = FileClassifier(path, threads=1)
    try:
        for seed in range(5):
            image = camera_picture(seed)
            rgb = fit(np.ascontiguousarray(image[..., ::-1]), Preprocessing(8, 8))
            scores = classifier.classify(image)
            assert scores.probabilities == pytest.approx(expected(rgb[None])[0], abs=1 / 256)
            assert scores.preprocess_ns > 0
            assert scores.inference_ns > 0
        assert classifier.labels == LABELS
        card = classifier.card
        assert (card.model, card.precision, card.threads) == (path.stem, "int8" if int8 else "uint8", 1)
        assert card.runtime.startswith("ONNX Runtime" if kind.endswith("onnx") else "LiteRT")
    finally:
        classifier.close()


def test_a_file_of_floats_gets_them_and_logits_become_probabilities(tmp_path: Path) -> None:
    path = float_onnx(tmp_path)
    with pytest.raises(UsageError, match="--input-range"):
        FileClassifier(path, threads=1)
    classifier = FileClassifier(path, threads=1, input_range=(1 / 255, 0.0))
    try:
        image = np.zeros((20, 20, 3), np.uint8)
        image[..., 2] = 255  # red
        row = classifier.classify(image).probabilities
        assert row == pytest.approx(np.exp([4, 0, 0]) / np.exp([4, 0, 0]).sum(), abs=1e-6)
        dim = classifier.classify(image // 8).probabilities  # logits within 0..1 do not look like any
        assert dim.sum() == pytest.approx(1)
        assert dim.argmax() == 0
        assert classifier.classify(image // 4).probabilities.max() < 0.7  # nor logits that happen to add up to 1
        with pytest.raises(EdgenetError, match="answers NaN or infinity"):
            classifier._current._as_probabilities(np.array([0.1, np.nan, 0.9]))
    finally:
        classifier.close()
    unlit = FileClassifier(path, threads=1, input_range=(1 / 255, 0.0))
    try:  # even if it has shown no others yet: probabilities add up to 1
        assert unlit.classify(image // 8).probabilities == pytest.approx(dim)
    finally:
        unlit.close()


def test_channels_first_is_given_channels_first(tmp_path: Path) -> None:
    files = [float_onnx(tmp_path, channels_first=channels_first) for channels_first in (False, True)]
    classifiers = [FileClassifier(file, threads=1, input_range=(1 / 255, 0.0)) for file in files]
    try:
        for seed in range(5):
            last, first = (one.classify(camera_picture(seed)).probabilities for one in classifiers)
            assert first == pytest.approx(last, abs=1e-6)
    finally:
        for classifier in classifiers:
            classifier.close()
    subjects = [open_artifact(file, "0..1") for file in files]
    assert [one.manifest.input.preprocessing for one in subjects] == [Preprocessing(6, 8)] * 2
    batch = np.random.default_rng(3).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    rows = []
    for subject in subjects:
        with scorer(subject, 1) as scores:
            rows.append(np.concatenate(list(scores([batch]))))
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_labels_cannot_command_a_terminal(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tflite", with_labels(tiny_tflite(), "\x1b]0;owned\x07red\ngrün\nb\u202elue".encode()))
    for given_ in (None, Labels(("\x1b]0;owned\x07red", "grün", "b\u202elue"))):
        classifier = FileClassifier(path, threads=1, labels=given_)
        classifier.close()
        assert classifier.labels == ("\ufffd]0;owned\ufffdred", "grün", "b\ufffdlue")


def test_labels_come_from_the_user_else_from_the_file_else_they_are_numbers(tmp_path: Path) -> None:
    bare = write(tmp_path, "bare.tflite", tiny_tflite())
    named = write(tmp_path, "named.tflite", with_labels(tiny_tflite(), b"red\ngreen\nblue"))
    spoiled = write(tmp_path, "spoiled.tflite", with_labels(tiny_tflite(), b"red\n\xff\xfe"))
    own = Labels(("rouge", "vert", "bleu"))
    for path, given_, wanted, words in (
        (named, None, LABELS, ""),
        (named, own, own.names, ""),
        (bare, own, own.names, ""),
        (bare, None, ("class 0", "class 1", "class 2"), "bare.tflite does not say what its 3 classes are called"),
        (spoiled, None, ("class 0", "class 1", "class 2"), "its packed labels cannot be read"),
    ):
        warnings: list[str] = []
        classifier = FileClassifier(path, threads=1, labels=given_, warn=warnings.append)
        classifier.close()
        assert classifier.labels == wanted
        assert len(warnings) == bool(words)
        assert all(words in warning and "--labels FILE" in warning for warning in warnings)


@pytest.mark.parametrize("packed", [True, False])
def test_labels_that_are_not_as_many_as_the_classes_are_one_clear_error(tmp_path: Path, packed: bool) -> None:
    data = with_labels(tiny_tflite(), b"background\nred\ngreen\nblue") if packed else tiny_tflite()
    path = write(tmp_path, "m.tflite", data)
    with pytest.raises(EdgenetError, match=r"m\.tflite answers 3 classes and the labels name 4"):
        FileClassifier(path, threads=1, labels=None if packed else Labels(("a", "b", "c", "d")))


def test_a_file_that_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable):
        FileClassifier(write(tmp_path, "m.tflite", b"TFL3" * 100), threads=1)
    with pytest.raises(DeviceError, match=r"none\.tflite"):
        FileClassifier(tmp_path / "none.tflite", threads=1)
    crashes = write(tmp_path, "crashes.tflite", tiny_tflite(beside="segfaults"))
    with pytest.raises(ModelCrashed, match="SIGSEGV"):
        FileClassifier(crashes, threads=1)


def test_a_model_that_dies_while_it_answers_is_one_clear_error(tmp_path: Path) -> None:
    classifier = FileClassifier(write(tmp_path, "m.tflite", tiny_tflite()), threads=1)
    classifier.classify(camera_picture())
    os.kill(classifier._current.process.pid, signal.SIGKILL)
    with pytest.raises(ModelCrashed, match=r"m\.tflite: its runtime died of SIGKILL"):
        classifier.classify(camera_picture())
    classifier.close()


def test_closing_ends_an_answer_that_is_under_way() -> None:
    classifier = FileClassifier(default_model(), threads=1)
    image, done = camera_picture(0, 720, 1280), threading.Event()

    def work() -> None:
        try:
            while True:
                classifier.classify(image)
        except DeviceError:
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    classifier.close()
    classifier.close()
    assert done.wait(1)
    assert time.monotonic() - began < 0.5
    thread.join()


# Siblings.


def test_the_embedded_model_has_a_sibling_and_both_answer(pictures: Path) -> None:
    classifier = FileClassifier(default_model(), threads=1)
    try:
        assert classifier.card.precision == "int8"
        rows = {}
        for precision in ("float32", "int8", "float32", "int8"):
            card = classifier.toggle()
            assert card == classifier.card
            assert card.precision == precision
            files = sorted(pictures.glob("*/*"))[::6]
            images = [np.ascontiguousarray(decode(file)[..., ::-1]) for file in files]
            answers = [classifier.classify(image).probabilities for image in images]
            assert precision not in rows or (rows[precision] == answers).all()
            rows[precision] = np.array(answers)
        assert len(classifier._opened) == 2  # what was open stays open
        assert not (rows["int8"] == rows["float32"]).all()
        assert (rows["int8"].argmax(axis=1) == rows["float32"].argmax(axis=1)).mean() >= 0.9
    finally:
        classifier.close()


def test_without_a_sibling_it_says_so(tmp_path: Path) -> None:
    lone = tmp_path / "symbols_int8.tflite"
    shutil.copy(default_model(), lone)
    foreign = FileClassifier(lone, threads=1, labels=Labels(tuple("abcdefghijklmnopqrst")))
    with pytest.raises(EdgenetError, match=r"symbols_int8\.tflite has no sibling"):
        foreign.toggle()
    foreign.close()
    shutil.copy(f"{default_model()}.json", tmp_path)
    known = FileClassifier(lone, threads=1)
    with pytest.raises(EdgenetError, match=r"symbols_float32\.tflite is not beside symbols_int8\.tflite"):
        known.toggle()
    known.classify(camera_picture())
    for kind in ("tflite", "tflite.json"):
        shutil.copy(default_model().with_name(f"symbols_float32.{kind}"), tmp_path)
    assert sibling(known.artifact) == tmp_path / "symbols_float32.tflite"
    manifest = tmp_path / "symbols_float32.tflite.json"
    before = manifest.read_text()
    manifest.write_text(before.replace(json.loads(before)["source"]["weights_sha256"], "0" * 64))  # trained anew since
    with pytest.raises(EdgenetError, match=r"other weights than symbols_int8\.tflite: convert both again"):
        known.toggle()
    manifest.write_text(before)
    (tmp_path / "symbols_float32.tflite").write_bytes(b"TFL3" * 100)
    with pytest.raises(EdgenetError, match="not the file that"):
        known.toggle()
    assert known.card.precision == "int8"
    known.close()


# The embedded model.


def test_the_embedded_files_are_of_the_embedded_weights() -> None:
    record = json.loads((default_model().parent / "symbols.json").read_text())
    for precision in ("int8", "float32"):
        path = default_model().with_name(f"symbols_{precision}.tflite")
        manifest = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert manifest["source"]["weights_sha256"] == record["weights_sha256"]
        assert manifest["output"]["labels"] == record["labels"]
        assert manifest["input"]["dtype"] == "uint8"


@pytest.mark.slow
def test_the_embedded_int8_file_answers_float_logits() -> None:
    """As files made today do: in 8 bits the two best would tie."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(default_model().read_bytes(), 0))
    *_, classifier, reshape, softmax = model.subgraphs[0].operators
    codes = [model.operatorCodes[one.opcodeIndex].builtinCode for one in (classifier, reshape, softmax)]
    kinds = schema.BuiltinOperator
    assert codes == [kinds.CONV_2D, kinds.RESHAPE, kinds.SOFTMAX]
    tensors = model.subgraphs[0].tensors
    assert tensors[classifier.outputs[0]].type == schema.TensorType.FLOAT32
    assert tensors[classifier.inputs[1]].type == schema.TensorType.INT8


def test_the_embedded_files_answer_like_the_keras_network(edgenet: Edgenet, pictures: Path) -> None:
    files = [default_model().with_name(f"symbols_{precision}.tflite") for precision in ("float32", "int8")]
    ran = edgenet("verify", *files, "--images", pictures, "--json")
    assert ran.code == 0, ran.err
    exact, quantized = ran.document
    assert exact["max_abs"] <= 1e-4
    assert exact["top1_agreement"] == 1
    assert quantized["top1_agreement"] >= 0.97


def test_one_picture_costs_one_inference_and_a_little() -> None:
    """What the camera adds to a bare run of the model process is the preprocessing, which is told apart."""
    classifier = FileClassifier(default_model(), threads=1)
    with ModelProcess(default_model()) as process:
        image = camera_picture(0, 720, 1280)
        rgb = fit(np.ascontiguousarray(image[..., ::-1]), Preprocessing(96, 96))
        bare = process.run(rgb[None])[0]
    meanwhile: list[int] = []
    assert (classifier.classify(image, lambda: meanwhile.append(1)).probabilities == bare.astype(np.float64)).all()
    assert meanwhile == [1]
    assert (classifier.classify(image).probabilities == bare.astype(np.float64)).all()
    assert meanwhile == [1]
    classifier.close()
