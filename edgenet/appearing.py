"""How a file comes to be: whole, on the disk, and under its name at the last moment, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from edgenet.errors import EdgenetError


def check_folder(folder: Path) -> None:
    """Find out before the work, not after it, that files cannot appear in a folder.

    Raises:
        EdgenetError: it, or the folder it would be made in, is no folder or takes no files.
    """
    known = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(parent))
    if not known.is_dir() or not os.access(known, os.W_OK | os.X_OK):
        reason = "takes no files" if known.is_dir() else "is no folder" if known.exists() else "leads nowhere"
        raise EdgenetError(f"cannot write to {folder}: {known} {reason}; choose another folder")


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well it becomes `path`, otherwise it is gone.

    The partial file has the same suffix and lies in the same folder, so that a runtime can open it first.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise EdgenetError(f"cannot write {path}: {exc.strerror}; choose another folder") from exc
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except OSError as exc:
        cure = "give it a shorter name" if exc.errno == errno.ENAMETOOLONG else "make room or choose another folder"
        raise EdgenetError(f"cannot write {path}: {exc.strerror}; {cure}") from exc
    finally:
        with contextlib.suppress(OSError):  # what could not be written, cannot be removed
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let no other edgenet name files in a folder meanwhile, where the system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network's file system that locks nothing
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
