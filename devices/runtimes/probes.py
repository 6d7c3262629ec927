"""Two tiny models, so that doctor can prove that a runtime runs and not only imports.

uint8 [1, 8, 8, 3] -> float32 [1, 3]: which of red, green and blue dominates, softmax(mean / 64). Written by
tests/devices/tiny_models.py (tiny_tflite, tiny_onnx), zlib and base64 here; a test holds them together.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

_TFLITE = (
    "eNptUTFOw0AQXDsmMcoJXFAQSEGDlIICCdKlpkrJA7AigyzFMYqFlJKCR/AACipewRN4BAUFRQoqjtm9vfiQYmu0e3c7M7t3KRFd"
    "X00v3qy1B8gvgQlwExN1EBFoCCTALWo4pkCkZz+/1vYQZ/W8flg2ss86RHt0iCwjg/oEK7fPWl/AN7BW3SovF8xgvxf2DjSOVKOv"
    "GkPZp12OJ9oDUVc8upI/TiLVjVQz7KUf9ILvONOca98xn+fEwYzM55ot/FPPT+R3HA/SmATrHeADeNY5z/T8Cd6peJDM0czqZdG0"
    "fXBPr0EN61RFvmjof42ROfflPozWqnecqVe+YuV2PiNvRHJq9H19H/flqpg37Qypwnm5G/E843w6vr+yyu8K2s5lnG/ujugTsw0c"
    "f7BGPnL5yKiD9xi7/fEfM1k8qA=="
)
_ONNX = (
    "eNpNUD1PwzAQjZ20cQ9UIqtF2SgeLSbGjqELAwtsIAanOSKLfMl2IGz8FDZ+JjgllTjppHu6d/feHVtsvylsYKZrVSKfd3rAyoro"
    "RlknF0Bdm5IvQuEaphZEakDLZzWqxgq4x6Lf450H8gzYK2JX6NqmwThzCX8sOHFYd2iU642XqNpSOyvCnX4DCRPkxIr4oX1xtRrk"
    "ahTRNv05xsHCGojlc7/vHY1gtwU2TrsPHu/bqu2NlUtGk3hLCc0OFuU6ISIKgs8s+6//eHG89RxWjPIEKCM+2ZRhnsIkwpdwyghn"
    "EyPMIggSboT3rHL/Cp4+CYOFuNqI0iA2Y5FXPYrnX4LMWhE="
)

PROBES = {".tflite": zlib.decompress(base64.b64decode(_TFLITE)), ".onnx": zlib.decompress(base64.b64decode(_ONNX))}


def probe_input() -> NDArray[np.uint8]:
    """Give a picture that is nearly all blue: uint8 [1, 8, 8, 3]."""
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[..., 2] = 255
    return image


BLUE = 2  # the class that every probe must answer to it
