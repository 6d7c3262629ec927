"""What all tests share: where the real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real weights and photographs that EDGENET_TEST_DATA names; skip where it is unset."""
    root = os.environ.get("EDGENET_TEST_DATA")
    if not root:
        pytest.skip("EDGENET_TEST_DATA is unset: it names a folder of real weights and photographs")
    return Path(root).resolve()
