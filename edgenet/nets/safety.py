"""What a model file may hold before anything of it is built.

A `.keras` file is a zip archive and an `.h5` file an HDF5 tree; both carry a JSON configuration that names classes and
functions to be called, and both can lie about sizes. Everything here reads names and sizes only.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError

Json = Any  # what json.loads gives

_FREE = 64 * 2**20  # bytes that need no excuse
_LIMIT = 4 * 2**30  # bytes no image classifier for a phone needs
_RATIO = 100  # unpacked to packed; float weights pack by a factor of 1.1, zeros by 1000
_OBJECTS = 200_000  # groups and datasets in one HDF5 file
_WIDEST = 1_000_000  # units or filters of one layer: more is an attempt to exhaust memory

# Keras' own modules whose objects only compute. keras.utils and the like are absent on purpose: their functions
# download and write files.
_PURE = (
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "models",
    "ops",
    "quantizers",
    "random",
    "regularizers",
)
_CODE = ("Lambda", "__lambda__")
_FOREIGN = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__typespec__")


def check_archive(path: Path) -> None:
    """Refuse a `.keras` archive that would unpack to far more than it weighs, or outside its folder.

    Raises:
        EdgenetError: damaged, encrypted, a bomb, or no Keras model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as exc:
        raise EdgenetError(f"{path} is damaged: {exc}. Save the model again, or copy the file again") from exc
    names = {member.filename for member in members}
    if any(name.endswith("data.pkl") for name in names):
        raise EdgenetError(f"{path} is a PyTorch file; edgenet takes Keras models (.keras, .h5, SavedModel folder)")
    if "config.json" not in names:
        raise EdgenetError(f"{path} is a zip archive but no Keras model: it holds no config.json")
    unpacked = sum(member.file_size for member in members)
    check_size(path, unpacked, path.stat().st_size)
    for member in members:
        parts = Path(member.filename.replace("\\", "/")).parts
        if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in member.filename:
            raise EdgenetError(f"{path} is refused: its member {member.filename!r} points outside the archive")
        if member.flag_bits & 1:
            raise EdgenetError(f"{path} is encrypted: unpack it and save it again without a password")


def check_size(path: Path, unpacked: int, packed: int) -> None:
    """Refuse what unpacks to more than any classifier needs. `unpacked` and `packed` in bytes."""
    if unpacked > _LIMIT or (unpacked > _FREE and unpacked > _RATIO * max(packed, 1)):
        raise EdgenetError(
            f"{path} is refused: {packed / 2**20:.1f} MB on disk unpack to {unpacked / 2**20:.0f} MB (a zip bomb?)"
        )


def check_tree(path: Path, file: Any, packed: int) -> None:
    """Walk an open h5py.File; refuse links that leave it and sizes that it cannot hold.

    `path` names the file in messages, `packed` is its size in bytes.

    Raises:
        EdgenetError: external or soft links, external or virtual datasets, too many objects, too many bytes.
    """
    import h5py

    total = 0
    for name, item in _objects(path, file):
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual:
            raise EdgenetError(f"{path} is refused: its dataset {name!r} takes its data from another file")
        if item.dtype.hasobject:
            raise EdgenetError(f"{path} is damaged: its dataset {name!r} holds no numbers")
        total += int(item.size or 0) * item.dtype.itemsize
        check_size(path, total, packed)


def _objects(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, object) for every group and dataset, each once, hard links only."""
    import h5py

    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", file)]
    while stack:
        prefix, group = stack.pop()
        for name in group:
            full = f"{prefix}/{name}" if prefix else str(name)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise EdgenetError(f"{path} is refused: {full!r} in it is a link to another place or file")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _OBJECTS:
                raise EdgenetError(f"{path} is refused: it holds more than {_OBJECTS} objects")
            yield full, item
            if isinstance(item, h5py.Group):
                stack.append((full, item))


def parse_config(path: Path, text: str | bytes) -> dict[str, Json]:
    """Return the model's configuration.

    Raises:
        EdgenetError: not JSON, or no configuration of a model.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise EdgenetError(f"{path} is damaged: its model configuration is not JSON. Save the model again") from exc
    if not isinstance(config, dict) or not isinstance(config.get("config"), (dict, list)):
        raise EdgenetError(f"{path} is damaged: its model configuration describes no model. Save the model again")
    return config


def check_config(path: Path, config: dict[str, Json]) -> None:
    """Refuse a configuration that asks for code from the file or from outside Keras' computing modules.

    Raises:
        EdgenetError: names the layer and `--trust`.
    """
    try:
        for layer, item in _dicts(config, "model"):
            _check_object(path, layer, item)
            for key in ("units", "filters", "depth_multiplier", "input_dim", "output_dim"):
                if isinstance(value := item.get(key), (int, float)) and value > _WIDEST:
                    raise EdgenetError(f"{path} is refused: layer {layer!r} asks for {key} = {value}")
    except RecursionError as exc:
        raise EdgenetError(f"{path} is damaged: its model configuration is nested too deeply") from exc


def _dicts(node: Json, layer: str) -> Iterator[tuple[str, dict[str, Json]]]:
    """Yield every object of the JSON tree with the name of the layer it belongs to."""
    if isinstance(node, dict):
        inner = node.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str) and "class_name" in node:
            layer = inner["name"]
        yield layer, node
        for value in node.values():
            yield from _dicts(value, layer)
    elif isinstance(node, list):
        for value in node:
            yield from _dicts(value, layer)


def _check_object(path: Path, layer: str, item: dict[str, Json]) -> None:
    name = item.get("class_name")
    if name is None:
        return
    if not isinstance(name, str):
        raise EdgenetError(f"{path} is damaged: a class name in layer {layer!r} is no text")
    if name in _CODE:
        raise EdgenetError(
            f"{path} is refused: its layer {layer!r} is a Lambda, Python code from the file; "
            "if you know who made it, say --trust"
        )
    if name in _FOREIGN:
        raise EdgenetError(
            f"{path} is refused: its layer {layer!r} ({name}) runs code that Keras cannot check; "
            "if you know who made it, say --trust"
        )
    module = item.get("module")
    function = item.get("config") if name == "function" else None
    if module is None and function is None:
        return  # Keras 2: a plain name, looked up among Keras' layers
    if not _is_pure(module, function):
        what = f"{module}.{function or name}"
        raise EdgenetError(
            f"{path} is refused: its layer {layer!r} asks for {what}, which is not one of Keras' own layers; "
            "give a SavedModel folder (model.export), or, if you know who made it, say --trust"
        )


def _is_pure(module: Json, function: Json) -> bool:
    """Say whether Keras finds (module, function) among the modules that only compute."""
    if module in ("builtins", None):  # a Keras function by its bare name, such as "relu"
        return isinstance(function, str) and _is_activation(function)
    if not isinstance(module, str):
        return False
    parts = module.split(".")
    if parts[0] not in ("keras", "tf_keras"):
        return False
    if module in ("keras", "keras.src", "tf_keras"):
        return function is None  # keras.Model, keras.Sequential, keras.DTypePolicy
    # Keras 2 kept its models in keras.engine and keras.src.engine.
    rest = [part for part in parts[1:] if part != "src"]
    return bool(rest) and (rest[0] in _PURE or (rest[0] == "engine" and function is None))


def _is_activation(name: str) -> bool:
    import keras

    return name in vars(keras.activations)
