"""The model files of the embedded classifier: there without converting anything."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

INT8, FLOAT32 = (Path(str(files("edgenet") / f"symbols/symbols_{kind}.tflite")) for kind in ("int8", "float32"))
