from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.dataset import Labels, image_files, labelled, read_labels
from edgenet.errors import EdgenetError


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10)).save(file)


def folders(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name / "a.png")
    return root


def refusal(root: Path, labels: tuple[str, ...] | Labels, classes_csv: Path | None = None) -> str:
    with pytest.raises(EdgenetError) as caught:
        labelled(root, labels, classes_csv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# label files


def test_label_files(tmp_path: Path) -> None:
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    assert read_labels(written("a.txt", "\ufeffcat\r\ndog, hound\r\n\r\n")) == Labels(("cat", "dog, hound"))
    synsets = "n01440764 tench, Tinca tinca\r\nn01443537 goldfish\n"
    assert read_labels(written("s.txt", synsets)) == Labels(
        ("tench, Tinca tinca", "goldfish"), ("n01440764", "n01443537")
    )
    twice = synsets.replace("n01443537", "n01440764")
    assert read_labels(written("s.txt", twice)).names[1] == "n01440764 goldfish"
    assert read_labels(written("s.txt", "n01440764\nn01443537")) == Labels(("n01440764", "n01443537"))
    assert read_labels(written("b.txt", "0 cardboard\n1 plastic bag\n")) == Labels(("cardboard", "plastic bag"))
    assert read_labels(written("c.txt", "0\n1\n2\n")).names == ("0", "1", "2")
    assert read_labels(written("d.txt", "1 one\n2 two\n")).names == ("1 one", "2 two")
    table = read_labels(written("e.csv", 'index,wnid,name\n1,n00000002,"b, c"\n0,n00000001,a\n'))
    assert table == Labels(("a", "b, c"), ("n00000001", "n00000002"))
    assert read_labels(written("f.csv", "name\nx\ny\n")) == Labels(("x", "y"))
    for name, text, complaint in (
        ("g.txt", "cat\n\ndog\n", "class 1 has no name"),
        ("h.txt", "\n\n", "no labels"),
        ("i.csv", "index,label\n0,a\n", "column `name`"),
        ("j.csv", "index,name\n1,a\n2,b\n", "each of 0 to 1 once"),
        ("k.csv", "index,name\nx,a\n", "each of 0 to 0 once"),
        ("l.csv", "wnid,name\nn1,a\n", "'n1' in the column `wnid`"),
        ("m.csv", "wnid,name\nn00000001,a\nn00000001,b\n", "there twice"),
        ("n.csv", "index,name\n0,a,b\n1,c\n", "as many fields"),
        ("o.csv", "index,name\n0,a\n1\n", "as many fields"),
        ("p.csv", 'name\n"a\n', "not a readable .csv"),
    ):
        with pytest.raises(EdgenetError, match=re.escape(complaint)):
            read_labels(written(name, text))
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgenetError, match="not UTF-8"):
        read_labels(tmp_path / "q.txt")
    with pytest.raises(EdgenetError, match="no such label file"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(EdgenetError, match="cannot be read"):
        read_labels(tmp_path)


# labelled


FISH = ("tench, Tinca tinca", "great white shark, white shark", "crane", "crane", "maillot", "maillot, tank suit")


def test_label_files_that_would_shift_classes_or_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "gap.csv").write_text("name\n\na\nb\n")
    with pytest.raises(EdgenetError, match="an empty line, which would shift"):
        read_labels(tmp_path / "gap.csv")
    (tmp_path / "end.csv").write_text("name\na\nb\n\n")
    assert read_labels(tmp_path / "end.csv").names == ("a", "b")
    (tmp_path / "gap.csv").write_text("index,name\n1,b\n\n0,a\n")  # what is numbered cannot shift
    assert read_labels(tmp_path / "gap.csv").names == ("a", "b")
    (tmp_path / "names.json").write_text('["a", "b"]')
    with pytest.raises(EdgenetError, match="no JSON"):
        read_labels(tmp_path / "names.json")


def test_folders_named_by_label(tmp_path: Path) -> None:
    root = folders(tmp_path, "TENCH", "great_white  shark, white shark", "maillot, Tank suit")
    found = labelled(root, FISH)
    assert found.targets.tolist() == [0, 1, 5]
    assert found.targets.dtype == np.int64
    assert found.classes == FISH
    assert [file.parent.name for file in found.files] == [
        "TENCH",
        "great_white  shark, white shark",
        "maillot, Tank suit",
    ]
    assert labelled(root, ("tench", "great white shark", "maillot")).targets.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("crane", "may be any of the labels 2 'crane', 3 'crane'; name the folder by its wnid"),
        ("maillot", "may be any of the labels 4 'maillot', 5 'maillot, tank suit'"),
        ("tenchh", "matches no label of the model; nearest: 'tench, Tinca tinca', "),
        ("tench, Cyprinus", "matches no label"),
        ("n01440764", "put a classes.csv"),
        ("7", "class folders are integers up to 7, and the model's 6 classes end at 5"),
    ],
)
def test_what_cannot_be_matched_is_never_guessed(tmp_path: Path, folder: str, complaint: str) -> None:
    assert complaint in refusal(folders(tmp_path, folder), FISH)


def test_labels_that_differ_in_case_are_told_apart_as_written_and_accents_may_be_in_two_pieces(tmp_path: Path) -> None:
    names = ("A", "a", "caf\u00e9")
    assert labelled(folders(tmp_path / "one", "A", "a", "cafe\u0301"), names).targets.tolist() == [0, 1, 2]
    assert "may be any of the labels 0 'AB', 1 'ab'" in refusal(folders(tmp_path / "two", "Ab"), ("AB", "ab"))


def test_somebody_elses_table_beside_the_folders_is_none(tmp_path: Path) -> None:
    root = folders(tmp_path, "tench")
    (tmp_path / "classes.csv").write_text("filename,label\na.jpg,dog\n")
    assert labelled(root, ("tench",)).targets.tolist() == [0]
    assert "classes.csv" in refusal(folders(tmp_path, "n01440764"), ("tench",))


def test_nearest_labels_help(tmp_path: Path) -> None:
    message = refusal(folders(tmp_path, "golden retreiver"), ("cat", "golden retriever", "Labrador retriever", "tench"))
    assert "nearest: 'golden retriever', 'Labrador retriever', " in message


def test_folders_named_by_index(tmp_path: Path) -> None:
    root = folders(tmp_path, "0", "2", "03")
    assert labelled(root, ("a", "b", "c", "d")).targets.tolist() == [0, 3, 2]  # sorted as text: 0, 03, 2
    assert "end at 4" in refusal(root, ("a", "b", "c", "d", "e"))  # from 0 or from 1?
    assert "name the folders by wnid or label" in refusal(root, ("background", "a", "b", "c"))
    assert "matches no label" in refusal(folders(tmp_path, "cat"), ("a", "b", "c", "d"))


def test_labels_that_are_digits_are_text(tmp_path: Path) -> None:
    root = folders(tmp_path, "1", "2", "3")
    assert labelled(root, ("3", "2", "1")).targets.tolist() == [2, 1, 0]
    assert "matches no label" in refusal(folders(tmp_path, "0"), ("1", "2", "3"))  # half text, half index


def test_loose_and_missing_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    assert "no image in any class folder" in refusal(tmp_path, ("cat",))
    picture(tmp_path / "loose.png")
    assert "loose.png lies outside any class folder" in refusal(tmp_path, ("cat",))
    assert "no such folder" in refusal(tmp_path / "none", ("cat",))


def test_a_limit_spreads_over_the_classes(tmp_path: Path) -> None:
    for name in "abcd":
        for index in range(5):
            picture(tmp_path / name / f"{index}.png")
    assert labelled(tmp_path, tuple("abcd"), limit=4).targets.tolist() == [0, 1, 2, 3]
    assert len(labelled(tmp_path, tuple("abcd"), limit=99).files) == 20
    # The same images as ever, and as a limit takes from a folder without labels.
    assert labelled(tmp_path, tuple("abcd"), limit=7).files == image_files(tmp_path, limit=7)


TABLE = 'index,wnid,name\n0,n00000001,crane\n1,n00000002,"tench, Tinca"\n2,n00000003,crane\n3,n00000004,pike\n'


def test_wnids_go_through_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path / "set", "n00000001", "n00000002", "n00000003", "n00000004")
    in_step = ("background", "crane", "tench, Tinca", "crane", "pike")
    assert "put a classes.csv" in refusal(root, in_step)
    (tmp_path / "classes.csv").write_text(TABLE)  # in the parent
    monkeypatch.chdir(root)
    assert labelled(Path(), in_step).targets.tolist() == [1, 2, 3, 4]
    (root / "classes.csv").write_text(TABLE.replace("pike", "x").replace("crane", "pike", 1))
    assert labelled(root, ("pike", "tench", "crane", "x")).targets.tolist() == [0, 1, 2, 3]  # its own goes first
    (root / "classes.csv").unlink()
    assert labelled(root, in_step).targets.tolist() == [1, 2, 3, 4]
    assert labelled(root, ("crane", "tench", "crane", "pike", "extra")).targets.tolist() == [0, 1, 2, 3]
    # Out of step, one name for two wnids is unsure; the rest is not.
    assert "2 wnids are called 'crane'" in refusal(root, ("pike", "crane", "tench", "crane"))
    shutil.rmtree(root / "n00000001")
    shutil.rmtree(root / "n00000003")
    assert labelled(root, ("pike", "crane", "tench", "crane")).targets.tolist() == [2, 0]
    assert "(pike): matches no label" in refusal(root, ("crane", "tench"))
    # The labels' own wnids need no table and no names in step.
    own = Labels(("Pike", "Tench"), ("n00000004", "n00000002"))
    assert labelled(root, own).targets.tolist() == [1, 0]
    assert labelled(root, ("n00000002", "n00000004")).targets.tolist() == [0, 1]
    folders(root, "n99999999")
    assert "not in the table" in refusal(root, in_step)


def test_classes_of_one_first_synonym_in_another_order_are_told_apart_by_the_others(tmp_path: Path) -> None:
    root = folders(tmp_path, "n00000001", "n00000002")
    (tmp_path / "t.csv").write_text('index,wnid,name\n0,n00000001,"crane, bird"\n1,n00000002,"crane, machine"\n')
    assert labelled(root, ("crane, machine", "crane, bird"), tmp_path / "t.csv").targets.tolist() == [1, 0]
    (tmp_path / "t.csv").write_text('index,wnid,name\n0,n00000001,crane\n1,n00000002,"crane, machine"\n')
    assert "2 wnids are called 'crane'" in refusal(tmp_path, ("crane", "other"), tmp_path / "t.csv")


def test_a_table_may_be_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", "n00000004")
    (tmp_path / "other.csv").write_text(TABLE)
    assert labelled(root, ("pike",), tmp_path / "other.csv").targets.tolist() == [0]
    (tmp_path / "names.csv").write_text("name\npike\n")
    assert "has no wnids" in refusal(root, ("pike",), tmp_path / "names.csv")


@pytest.mark.parametrize("shape", ["as written", "first synonyms", "with wnids"])
@pytest.mark.parametrize("file", ["imagenet/labels.txt", "foreign/imagenet_labels.txt", "imagenet/classes.csv"])
def test_every_wnid_of_imagenet_finds_its_output(data: Path, tmp_path: Path, file: str, shape: str) -> None:
    labels = read_labels(data / file)
    offset = len(labels.names) - 1000
    assert offset == (labels.names[0] == "background")
    names: tuple[str, ...] | Labels = labels.names
    if shape == "first synonyms":
        names = tuple(name.split(",")[0] for name in labels.names)
    elif shape == "with wnids":
        names = labels
    with (data / "imagenet" / "classes.csv").open(newline="") as stream:
        index_of = {row["wnid"]: int(row["index"]) for row in csv.DictReader(stream)}
    found = labelled(data / "imagenet" / "validation", names)
    assert len(found.files) == 300
    assert found.targets.tolist() == [index_of[path.parent.name] + offset for path in found.files]
    every = tmp_path / "all"
    for wnid in index_of:  # also those of one name: crane, maillot, cardigan
        (every / wnid).mkdir(parents=True)
        (every / wnid / "a.png").touch()
    found = labelled(every, names, data / "imagenet" / "classes.csv")
    assert found.targets.tolist() == [index_of[path.parent.name] + offset for path in found.files]


def test_every_unique_label_of_imagenet_names_its_folder(data: Path, tmp_path: Path) -> None:
    names = read_labels(data / "foreign" / "imagenet_labels.txt").names
    unsure = {"crane", "cardigan", "maillot"}
    wanted = {name.split(",")[0]: index for index, name in enumerate(names) if name.split(",")[0].lower() not in unsure}
    for name in wanted:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    found = labelled(tmp_path, names)
    assert found.targets.tolist() == [wanted[path.parent.name] for path in found.files]
    assert len(found.files) == 1001 - 6
