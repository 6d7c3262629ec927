"""A TOML file of settings, taken apart key by key: every error names the file, the key and what is wrong with it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.errors import ProfileError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> Table:
    """Read a file. Raises ProfileError where it cannot be read, or is no TOML."""
    return parse_toml(path, read_text(path))


def read_text(path: Path) -> str:
    """Read a file's text. Raises ProfileError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ProfileError(f"{path}: not TOML: {exc}") from exc
    except OSError as exc:
        raise ProfileError(f"{path}: {exc.strerror}") from exc


def parse_toml(path: Path, text: str) -> Table:
    """Take what is, or is to be, a file's text. Raises ProfileError where it is no TOML."""
    try:
        return Table(str(path), tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ProfileError(f"{path}: not TOML: {exc}") from exc


class Table:
    """A TOML table that is taken apart key by key, so that what nobody took is known to be wrong."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self._where = where
        self._values = dict(values)
        self._taken: list[str] = []

    def has(self, key: str) -> bool:
        """Say whether the key is there."""
        return key in self._values

    def names(self) -> tuple[str, ...]:
        """List what is in it."""
        return tuple(self._values)

    def text(self, key: str, default: str = "") -> str:
        """Take a text of one line; default "": it must be there."""
        value = self._take(key, default or None)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self._wrong(key, value, "a text of one line")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts, () where there is none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one.isprintable() and one for one in value):
            raise self._wrong(key, value, "a list of texts")
        return tuple(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Take one of some texts."""
        return self.choice_of(key, self.text(key), choices)

    def choice_of(self, key: str, value: str, choices: tuple[str, ...]) -> str:
        """Refuse a value of this key that is not one of some texts."""
        if value not in choices:
            raise self._wrong(key, value, f"one of {', '.join(choices)}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Take a number above 0; default None: it must be there."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise self._wrong(key, value, "a number above 0")
        return float(value)

    def count(self, key: str) -> int:
        """Take a whole number above 0."""
        value = self._take(key, None)
        if type(value) is not int or not 0 < value < 1e6:  # True is an int, too
            raise self._wrong(key, value, "a whole number above 0")
        return value

    def counts(self, key: str) -> tuple[int, ...]:
        """Take a list of whole numbers above 0, () where there is none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(type(one) is int and 0 < one < 1e6 for one in value):
            raise self._wrong(key, value, "a list of whole numbers above 0")
        return tuple(value)

    def flag(self, key: str) -> bool | None:
        """Take true or false, None where there is neither."""
        value = self._values.get(key)
        self._taken.append(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def table(self, key: str) -> Table:
        """Take a table, an empty one where there is none."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, value, f"a table: [{key}]")
        return Table(f"{self._where}: {key}", value)

    def tables(self, key: str) -> tuple[Table, ...]:
        """Take a list of tables."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self._wrong(key, value, f"tables: [[{key}]]")
        return tuple(Table(f"{self._where}: {key}[{i}]", one) for i, one in enumerate(value))

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._values:
            if key not in self._taken:
                near = difflib.get_close_matches(key, self._taken, 1)
                known = f"did you mean {near[0]}?" if near else f"there is {', '.join(self._taken)}"
                raise ProfileError(f"{self._where}: {key}: no such key; {known}")

    def _take(self, key: str, default: Any) -> Any:
        self._taken.append(key)
        value = self._values.get(key, default)
        if value is None:
            raise ProfileError(f"{self._where}: {key}: missing")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> ProfileError:
        return ProfileError(f"{self._where}: {key}: {value!r} is not {wanted}")
