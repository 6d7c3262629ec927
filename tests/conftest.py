"""What all tests share: where the real data lies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that: tests that press it
# would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real weights and photographs that EDGENET_TEST_DATA names; skip where it is unset."""
    root = os.environ.get("EDGENET_TEST_DATA")
    if not root:
        pytest.skip("EDGENET_TEST_DATA is unset: it names a folder of real weights and photographs")
    return Path(root).resolve()
