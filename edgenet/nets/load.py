"""Any Keras image classifier as a keras.Model: .keras, .h5 of any age, SavedModel folders.

A file is judged by its content, not by its suffix, and nothing of it is built before its sizes and the names it calls
have been checked (edgenet.nets.safety). Code in a file runs only with `trust`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet.errors import EdgenetError
from edgenet.nets.affine import flatten
from edgenet.nets.graph import check_graph
from edgenet.nets.h5 import read_legacy, set_by_name
from edgenet.nets.legacy import modernize
from edgenet.nets.safety import check_archive, check_config, check_tree, parse_config

if TYPE_CHECKING:
    import keras

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TAKES = "edgenet takes Keras models: .keras, .h5, or a SavedModel folder"
_TRAINING = ("compile_config", "quantization_config")
_RANDOM = (
    "StatelessRandom",
    "Random",
    "StatefulUniform",
    "StatelessTruncated",
    "TruncatedNormal",
    "Rng",
    "Multinomial",
)
_TRAINING_PARTS = ("_initializer", "_regularizer", "_constraint")


def load_model(path: Path, *, trust: bool = False, size: int | None = None) -> keras.Model:
    """Return the image classifier in `path`, flat and without what only training uses: [n, h, w, 3] -> [n, classes].

    `path`: a .keras file of Keras 3 or late Keras 2, an .h5 file of any Keras, or a SavedModel folder, which comes back
    as a model around one keras.layers.TFSMLayer. `size` sets height and width where the file leaves them open. `trust`
    allows Python code from the file (Lambda layers) to run.

    Raises:
        EdgenetError: missing, empty, damaged, refused as unsafe, weights without a network, or no image classifier.
    """
    kind = file_kind(path)
    with one_line(path), contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' advice on how a file should have been written
        if kind == "keras":
            model = _load_archive(path, trust, size)
        elif kind == "h5":
            model = _load_hdf5(path, trust, size)
        else:
            model = _load_saved_model(path, trust, size)
        _check_classifier(path, model)
        _check_finite(path, model)
        return flatten(model)


def file_kind(path: Path) -> str:
    """Return "keras", "h5" or "folder" from the first bytes of `path`."""
    try:
        if path.is_dir():
            if (path / "saved_model.pb").is_file():
                return "folder"
            raise EdgenetError(f"{path} is a folder without a saved_model.pb; {_TAKES}")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as exc:
        raise EdgenetError(f"{path} does not exist; {_TAKES}") from exc
    except OSError as exc:
        raise EdgenetError(f"{path} cannot be read: {exc.strerror}") from exc
    if not head:
        raise EdgenetError(f"{path} is empty: copy or save it again")
    if head.startswith(_HDF5):
        return "h5"
    if head.startswith(b"PK\x03\x04"):
        return "keras"
    if head[4:8] == b"TFL3":
        raise EdgenetError(f"{path} is a TFLite file: a finished one, which cannot be converted; {_TAKES}")
    if path.suffix == ".onnx":
        raise EdgenetError(f"{path} is an ONNX file; {_TAKES}")
    if path.name == "saved_model.pb":
        raise EdgenetError(f"{path} is one file of a SavedModel: give its folder, {path.parent}")
    raise EdgenetError(f"{path} is damaged or no Keras model: it begins neither like .keras nor like .h5; {_TAKES}")


@contextlib.contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Map what Keras, h5py and TensorFlow raise about a file to one line."""
    import zlib

    import tensorflow as tf

    errors = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ImportError)
    more = (NotImplementedError, AssertionError, RecursionError, OverflowError, SyntaxError, NameError)
    try:
        yield
    except EdgenetError:
        raise
    except MemoryError as exc:
        raise EdgenetError(f"{path} asks for more memory than there is") from exc
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise EdgenetError(f"{path} is damaged or cannot be read: {brief(exc)}. Copy or save it again") from exc
    except (*errors, *more, tf.errors.OpError) as exc:
        raise EdgenetError(f"{path} cannot be loaded: {brief(exc)}") from exc


def brief(error: BaseException) -> str:
    """Return the telling line of a foreign error, at most 200 characters."""
    text = str(error)
    text = text.rsplit("Exception encountered: ", 1)[-1]  # Keras' deserializer puts the cause last
    text = re.sub(r"\x1b\[\d*m", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if lines[0] == "in user code:":  # of a traced function: where it was, and then what was raised
        raised = next((i for i, line in enumerate(lines) if re.match(r"\w*(Error|Exception): ", line)), 0)
        lines = [lines[raised].partition(": ")[2] or lines[0], *lines[raised + 1 :]]
    if lines[0].startswith("Exception encountered when calling") and len(lines) > 1:  # a layer's: where, then why
        lines = [f"{lines[0].removeprefix('Exception encountered when ')} {lines[1]}"]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:197]}..."


def _load_archive(path: Path, trust: bool, size: int | None) -> keras.Model:
    """Load a .keras file through a copy whose configuration has been checked and rewritten."""
    import h5py
    import keras

    check_archive(path)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as source:
        config = _prepared(path, source.read("config.json"), trust, size)
        weights = Path(folder, "model.weights.h5")
        copy = Path(folder, "model.keras")
        with zipfile.ZipFile(copy, "w") as target:
            for member in source.infolist():
                if member.filename == "config.json":
                    target.writestr("config.json", json.dumps(config))
                elif not member.is_dir():
                    target.writestr(member.filename, source.read(member))
        if "model.weights.h5" in source.namelist():
            source.extract("model.weights.h5", folder)
            with h5py.File(weights) as file:
                check_tree(path, file, weights.stat().st_size)
        elif not trust:
            raise EdgenetError(f"{path} is damaged: it holds no model.weights.h5. Save the model again")
        return keras.saving.load_model(copy, compile=False, safe_mode=not trust)


def _load_hdf5(path: Path, trust: bool, size: int | None) -> keras.Model:
    """Build the network from the configuration in an .h5 file and set its weights by name."""
    import h5py
    import keras

    with h5py.File(path) as file:
        check_tree(path, file, path.stat().st_size)
        text = file.attrs.get("model_config")
        if text is None:
            raise EdgenetError(
                f"{path} holds weights only; give the network: edgenet convert mobilenet_v1_0.25_224 --weights {path}"
            )
        config = _prepared(path, text, trust, size)
        model = keras.saving.deserialize_keras_object(config, safe_mode=not trust)
        if not isinstance(model, keras.Model):
            raise EdgenetError(f"{path} holds a {type(model).__name__}, not a model")
        set_by_name(path, model, read_legacy(file["model_weights"]))
    return model


def _prepared(path: Path, text: str | bytes, trust: bool, size: int | None) -> dict[str, Any]:
    """Parse, check and modernize a configuration; set the input size."""
    config = parse_config(path, text)
    _drop_training(config)
    if not trust:
        check_config(path, config)
    config = modernize(path, config)
    _set_size(path, config, size)
    return config


def _drop_training(node: Any) -> None:
    """Remove what only training uses: it may be custom, or unknown to this version of Keras."""
    if isinstance(node, dict):
        for key in [key for key in node if key in _TRAINING or key.endswith(_TRAINING_PARTS)]:
            del node[key]
        for value in node.values():
            _drop_training(value)
    elif isinstance(node, list):
        for value in node:
            _drop_training(value)


def _set_size(path: Path, config: dict[str, Any], size: int | None) -> None:
    """Fill in the height and width of the input layer where they are None."""
    inner = config["config"]
    layers = inner.get("layers") or []
    for layer in layers:
        if layer.get("class_name") != "InputLayer":
            continue
        shape = layer["config"].get("batch_shape")
        if not isinstance(shape, list) or len(shape) != 4:
            continue
        _, height, width, channels = shape
        if size is None and (height is None or width is None):
            raise EdgenetError(f"{path} leaves its input size open: say --size, such as --size 224")
        if size is not None and height not in (None, size):
            raise EdgenetError(f"{path} takes {width}x{height} pixels: leave --size {size} out")
        layer["config"]["batch_shape"] = [None, height or size, width or size, channels]
        if "build_input_shape" in inner:
            inner["build_input_shape"] = layer["config"]["batch_shape"]
    if size is not None:
        _drop_build_shapes(config)


def _drop_build_shapes(node: Any) -> None:
    """Forget recorded shapes: they hold the open size, and layers are built when they are called."""
    if isinstance(node, dict):
        node.pop("build_config", None)
        for value in node.values():
            _drop_build_shapes(value)
    elif isinstance(node, list):
        for value in node:
            _drop_build_shapes(value)


def _load_saved_model(path: Path, trust: bool, size: int | None) -> keras.Model:
    """Wrap the serving function of a SavedModel folder in a model of one layer."""
    import keras
    import tensorflow as tf

    if not trust:
        check_graph(path)
    try:
        layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default", name="saved_model")
    except ValueError as exc:
        if "serving_default" not in str(exc):
            raise
        raise EdgenetError(f"{path} has no signature serving_default to call: write it with model.export(...)") from exc
    function = layer.call_endpoint_fn
    _, inputs = function.structured_input_signature
    if len(inputs) != 1:
        raise EdgenetError(f"{path} takes {len(inputs)} inputs ({', '.join(inputs)}): edgenet takes one image")
    _check_not_random(path, function)
    (key, spec), *_ = inputs.items()
    shape = list(spec.shape) if spec.shape.rank is not None else []
    if len(shape) == 4 and None in shape[1:3]:
        if size is None:
            raise EdgenetError(f"{path} leaves its input size open: say --size, such as --size 224")
        shape[1:3] = [extent or size for extent in shape[1:3]]
    if size is not None and len(shape) == 4 and shape[1:3] != [size, size]:
        raise EdgenetError(f"{path} takes {shape[2]}x{shape[1]} pixels: leave --size {size} out")
    image = keras.Input(batch_shape=[None, *shape[1:]], dtype="float32", name=key)
    x = image if spec.dtype == tf.float32 else keras.ops.cast(image, spec.dtype.name)
    output = layer(x)
    if isinstance(output, dict):
        if len(output) != 1:
            raise EdgenetError(f"{path} gives {len(output)} outputs ({', '.join(output)}): a classifier gives one")
        (output,) = output.values()
    return keras.Model(image, output, name="saved_model")


def _check_not_random(path: Path, function: Any) -> None:
    """Refuse what answers otherwise each time: Keras 3 exports layers of augmentation as they are in training."""
    graph = function.graph.as_graph_def()
    for node in (*graph.node, *(node for one in graph.library.function for node in one.node_def)):
        if node.op.startswith(_RANDOM):
            layer = next((part for part in node.name.split("/") if part.startswith("random")), node.name)
            raise EdgenetError(
                f"{path} answers at random: {layer} was exported as it is in training; give the .keras file, or "
                "export with training=False (keras.export.ExportArchive)"
            )


def _check_classifier(path: Path, model: keras.Model) -> None:
    """Refuse what is no [n, h, w, 3] -> [n, classes]."""
    inputs, outputs = model.inputs, model.outputs
    if not inputs or not outputs:
        raise EdgenetError(f"{path} does not say its input's shape: save it after it has been called once")
    if len(inputs) != 1 or len(outputs) != 1:
        raise EdgenetError(f"{path} is no image classifier: {len(inputs)} inputs and {len(outputs)} outputs")
    shape, answer = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if len(shape) == 4 and shape[3] == 1:
        raise EdgenetError(f"{path} takes grayscale images {shape[1:]}: edgenet feeds colour (h, w, 3)")
    if len(shape) != 4 or shape[3] != 3:
        raise EdgenetError(f"{path} is no image classifier: it takes {shape}, not (n, height, width, 3)")
    if None in shape[1:]:
        raise EdgenetError(f"{path} leaves its input size open: say --size, such as --size 224")
    if len(answer) != 2 or answer[1] is None:
        raise EdgenetError(f"{path} is no image classifier: it answers {answer}, not (n, classes)")


def _check_finite(path: Path, model: keras.Model) -> None:
    """Refuse a model whose training went wrong."""
    import numpy as np

    for variable in model.weights:
        if not np.isfinite(np.asarray(variable)).all():
            raise EdgenetError(f"{path} is unusable: its weight {variable.path!r} is not finite (training diverged?)")
