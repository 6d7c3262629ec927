"""Where edgenet keeps what outlives a command: settings, what can be made again, and results. Nothing is created."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from devices.errors import DeviceError

_NAME = "edgenet"


def config_folder() -> Path:
    """Folder of devices.toml and profiles/: EDGENET_CONFIG_HOME, else the system's own place for settings.

    That is $XDG_CONFIG_HOME/edgenet, ~/.config/edgenet without it, %APPDATA%/edgenet on Windows. Source: XDG Base
    Directory Specification 0.8. Raises DeviceError where there is no home folder.
    """
    return _folder("CONFIG", ".config", "APPDATA", "")


def cache_folder() -> Path:
    """Folder of what can be fetched or made again: EDGENET_CACHE_HOME, $XDG_CACHE_HOME/edgenet, ~/.cache/edgenet."""
    return _folder("CACHE", ".cache", "LOCALAPPDATA", "cache")


def data_folder() -> Path:
    """Folder of results: EDGENET_DATA_HOME, else $XDG_DATA_HOME/edgenet, else ~/.local/share/edgenet."""
    return _folder("DATA", ".local/share", "LOCALAPPDATA", "data")


def _folder(kind: str, under_home: str, windows: str, windows_part: str) -> Path:
    own = os.environ.get(f"EDGENET_{kind}_HOME")
    try:
        if own:
            return Path(own).expanduser().absolute()
        if sys.platform == "win32":
            return Path(os.environ.get(windows) or Path.home() / "AppData" / "Local") / _NAME / windows_part
        xdg = os.environ.get(f"XDG_{kind}_HOME", "")
        # The specification: a relative path there is invalid and must be ignored.
        return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / under_home) / _NAME
    except RuntimeError as exc:  # neither HOME nor an entry in the list of users: a bare container
        raise DeviceError(f"this user has no home folder: set EDGENET_{kind}_HOME to a folder of yours") from exc
