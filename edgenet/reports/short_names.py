"""What a table calls the files it shows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Call each file by its name alone, and by its whole path where another has the same name."""
    distinct = set(paths)
    names = [path.name for path in distinct]
    return {path: path.name if names.count(path.name) == 1 else str(path) for path in distinct}
