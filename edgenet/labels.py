"""What the classes are called: label files, and which class a folder named by wnid, label or index means.

Classes are matched by their text, never by guessing an offset: models answer 1000 or 1001 classes ("background" first
or not), and three names of ImageNet ("crane", "maillot", "cardigan") stand for two classes each. What is ambiguous is
an error.
"""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import EdgenetError

_WNID = re.compile(r"n[0-9]{8}")


@dataclass(frozen=True, slots=True)
class Labels:
    """The names of the classes in the order of a model's outputs, and their WordNet ids where known."""

    names: tuple[str, ...]
    wnids: tuple[str, ...] | None = None


def read_labels(path: Path | str) -> Labels:
    """Read a label file: .csv with a header (name; optionally index, wnid), anything else one label a line.

    Lines that all begin with their own number ("0 cardboard", "1 plastic": Teachable Machine, Coral) lose it. Those
    that all begin with a wnid of their own ("n01440764 tench, Tinca tinca": Caffe's synset_words.txt) tell both. Raises
    EdgenetError for a file that cannot be read, is not UTF-8, or leaves a class without a name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise EdgenetError(f"{path}: no such label file; check the path") from exc
    except OSError as exc:
        raise EdgenetError(f"{path}: cannot be read ({exc.strerror}); give a .txt or .csv of labels") from exc
    except UnicodeDecodeError as exc:
        raise EdgenetError(f"{path}: not UTF-8 text; give a .txt (a label a line) or a .csv") from exc
    if path.suffix.lower() == ".json":
        raise EdgenetError(f"{path}: labels are no JSON; give a .txt (a label a line) or a .csv (index,name)")
    labels = _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_lines(text)
    if not labels.names:
        raise EdgenetError(f"{path}: no labels in this file; give one label a line")
    for number, name in enumerate(labels.names):
        if not name:
            raise EdgenetError(f"{path}: class {number} has no name, which would shift the others; name it")
    return labels


def _from_lines(text: str) -> Labels:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    pairs = [line.split(maxsplit=1) for line in lines]
    if all(len(pair) == 2 and pair[0] == str(number) for number, pair in enumerate(pairs)):
        return Labels(tuple(pair[1] for pair in pairs))
    wnids = tuple(pair[0] for pair in pairs if len(pair) == 2 and _WNID.fullmatch(pair[0]))
    if len(set(wnids)) == len(lines):
        return Labels(tuple(pair[1] for pair in pairs), wnids)
    return Labels(tuple(lines))


def _from_csv(path: Path, text: str) -> Labels:
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        columns = reader.fieldnames or ()
        rows = list(reader)
    except csv.Error as exc:
        raise EdgenetError(f"{path}: not a readable .csv ({exc}); give columns index, wnid, name") from exc
    if "name" not in columns or any(None in row.values() or None in row for row in rows):
        raise EdgenetError(f"{path}: needs a header with a column `name` and as many fields in every row")
    if "index" in columns:
        try:
            rows.sort(key=lambda row: int(row["index"]))
            in_order = [int(row["index"]) for row in rows] == list(range(len(rows)))
        except ValueError:
            in_order = False
        if not in_order:
            raise EdgenetError(f"{path}: its column `index` must hold each of 0 to {len(rows) - 1} once")
    elif not all(text.strip().splitlines()):  # a row of one empty name, which the reader leaves out
        raise EdgenetError(f"{path}: an empty line, which would shift the classes behind it; name that class")
    names = tuple(row["name"].strip() for row in rows)
    if "wnid" not in columns:
        return Labels(names, None)
    wnids = tuple(row["wnid"].strip() for row in rows)
    bad = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)] + [w for w, n in Counter(wnids).items() if n > 1]
    if bad:
        raise EdgenetError(f"{path}: {bad[0]!r} in the column `wnid` is no wnid (n and 8 digits), or there twice")
    return Labels(names, wnids)


def class_indices(folders: Sequence[str], labels: Labels, table: Labels | None, root: Path) -> dict[str, int]:
    """Return which output of the model each class folder means.

    A folder is first compared with the labels' text: without regard to case, underscores and runs of spaces as one
    space, and by the first synonym alone ("tench" for "tench, Tinca tinca") where no other label shares it. A wnid
    goes through the labels' own wnids, or through a table of wnids and names. Integers are outputs of the model only
    if every folder is one, none is a label, the highest is the last output, and no output is "background". root is
    where the folders lie, for messages. Raises EdgenetError for a folder that matches no label (it lists the nearest)
    or several.
    """
    matcher = _Matcher(labels, table, root)
    integers = all(folder.isascii() and folder.isdigit() for folder in folders)
    if integers and not any(matcher.names.matches(folder) for folder in folders):
        return _integers(folders, matcher.names, root)
    return {folder: matcher.folder(folder) for folder in folders}


def _integers(folders: Sequence[str], names: _Names, root: Path) -> dict[str, int]:
    classes, highest = len(names.given), max(map(int, folders))
    if "background" in names.keys:
        raise EdgenetError(
            f"{root}: class folders are integers, and one of the model's {classes} classes is background: 0 may be "
            "that or the class after it; name the folders by wnid or label"
        )
    if highest != classes - 1:
        raise EdgenetError(
            f"{root}: class folders are integers up to {highest}, and the model's {classes} classes end at "
            f"{classes - 1}, so where they begin is unsure; name the folders by wnid or label"
        )
    return {folder: int(folder) for folder in folders}


class _Names:
    """Names made comparable, and where each first synonym occurs."""

    def __init__(self, given: Sequence[str]) -> None:
        self.given = given
        self.keys = [_key(name) for name in given]
        self.firsts = [key.split(",")[0] for key in self.keys]
        self.with_first: dict[str, list[int]] = {}
        for index, first in enumerate(self.firsts):
            self.with_first.setdefault(first, []).append(index)
        self.with_key = Counter(self.keys)

    def matches(self, text: str) -> list[int]:
        """Return every index that the text may mean."""
        key = _key(text)
        same = self.with_first.get(key.split(",")[0], [])
        if all(self.keys[index] == key for index in same):  # they differ in case alone, as "A" and "a" do
            written = [index for index in same if _composed(self.given[index]) == _composed(text)]
            return written if len(written) == 1 else same
        if "," not in key:
            return same
        exact = [index for index in same if self.keys[index] == key]
        bare = any("," not in self.keys[index] for index in same)
        return exact or (same if bare else [])  # "tench, Tinca tinca" may mean "tench", but not "tench, other fish"

    def nearest(self, text: str) -> str:
        """Return the three names nearest to the text, quoted."""
        by_text = dict(zip(reversed(self.firsts + self.keys), reversed([*self.given, *self.given]), strict=True))
        close = difflib.get_close_matches(_key(text), list(by_text), n=6, cutoff=0.0)
        return ", ".join(repr(name) for name in list(dict.fromkeys(by_text[text] for text in close))[:3])


class _Matcher:
    """Finds the output of a model that one class folder means."""

    def __init__(self, labels: Labels, table: Labels | None, root: Path) -> None:
        self.root = root
        self.names = _Names(labels.names)
        self.table = labels if labels.wnids else table
        self.row = {wnid: row for row, wnid in enumerate((self.table and self.table.wnids) or ())}
        self.rows = _Names(self.table.names) if self.table else None
        self.aligned = _aligned(self.rows, self.names) if self.rows else None

    def folder(self, name: str) -> int:
        if self.names.matches(name) or not _WNID.fullmatch(name):
            return self._only(name, name, self.names.matches(name))
        if self.table is None or self.table.wnids is None or self.rows is None:
            raise EdgenetError(
                f"{self.root / name}: this class folder is a wnid and the model's labels are names; put a classes.csv "
                "(index,wnid,name) into the data folder or its parent"
            )
        if name not in self.row:
            raise EdgenetError(
                f"{self.root / name}: this wnid is not in the table of classes; is it one of the model's?"
            )
        row = self.row[name]
        return self.aligned[row] if self.aligned else self._of_row(name, row)

    def _of_row(self, folder: str, row: int) -> int:
        """Match one row of the table, where the lists as a whole do not run in step."""
        assert self.rows is not None
        found = self.names.matches(self.rows.given[row])
        key, first = self.rows.keys[row], self.rows.firsts[row]
        exact = "," in key and [self.names.keys[index] for index in found] == [key]
        sharers = self.rows.with_key[key] if exact else len(self.rows.with_first[first])
        if found and sharers > 1:
            raise EdgenetError(
                f"{self.root / folder}: {sharers} wnids are called {self.rows.given[row]!r}, so which one the model "
                "means is unsure; give labels with wnids (.csv with index,wnid,name)"
            )
        return self._only(folder, self.rows.given[row], found)

    def _only(self, folder: str, text: str, found: Sequence[int]) -> int:
        if len(found) == 1:
            return found[0]
        where = f"{self.root / folder}" if text == folder else f"{self.root / folder} ({text})"
        if found:
            several = ", ".join(f"{index} {self.names.given[index]!r}" for index in found[:5])
            raise EdgenetError(
                f"{where}: may be any of the labels {several}; name the folder by its wnid or full label"
            )
        raise EdgenetError(
            f"{where}: matches no label of the model; nearest: {self.names.nearest(text)}; rename or remove the folder"
        )


def _aligned(rows: _Names, names: _Names) -> list[int] | None:
    """Return the output for each row of the table if both lists run in step, else None.

    In step: the labels, without those that the table does not know (background), are the table, name by name in order.
    Only that tells two classes of one name apart.
    """
    pairs = [(rows.keys, names.keys)]
    if not any("," in key for key in names.keys):  # a list of first synonyms only
        pairs.append((rows.firsts, names.firsts))
    for ours, theirs in pairs:
        known = set(ours)
        outputs = [index for index, text in enumerate(theirs) if text in known]
        if [theirs[index] for index in outputs] == ours:
            return outputs
    return None


def _composed(text: str) -> str:
    """Return a text with its accents in one piece: on a Mac, a folder's name has them apart."""
    return unicodedata.normalize("NFC", text)


def _key(name: str) -> str:
    """Return a name as it is compared: no case, single spaces, and ", " between synonyms."""
    synonyms = (" ".join(part.replace("_", " ").split()) for part in _composed(name).casefold().split(","))
    return ", ".join(synonyms)
