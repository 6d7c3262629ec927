"""Profiles: the built-in ones, the user's own, and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import devices.profile
from devices.cpuinfo import ISA_FEATURES, Cluster
from devices.device import DeviceInfo, probe
from devices.errors import ProfileError
from devices.profile import against_published, cpus_for, find, load, matching, profiles, unusual_threads
from devices.shells.local import LocalShell

from .boards import pi4, pi5, pixel6, programs, write


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGENET_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/profiles").mkdir(parents=True)
    return tmp_path / "config"


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "ours")


def board(shell: LocalShell, root: Path, model: str = "", uname: str = "") -> DeviceInfo:
    """Probe a root folder; another board's name and kernel where they are given."""
    if model:
        write(root, {"proc/device-tree/model": f"{model}\0"})
    if uname:
        programs(root, uname=f"#!/bin/sh\necho {uname}\n")
    return probe(shell, "ssh", str(root))


def test_the_built_in_ones() -> None:
    known = profiles()
    assert {"raspberry-pi-3b-plus", "raspberry-pi-4b", "raspberry-pi-5", "raspberry-pi-zero-2w"} < set(known)
    assert {"generic-arm64-linux", "generic-arm64-android", "google-pixel-6", "x86-64"} < set(known)
    for one in known.values():
        assert set(one.isa) <= set(ISA_FEATURES)
        for number in one.published:
            assert number.precision in ("float32", "int8")
            assert number.source
            assert number.threads in one.threads
    assert known["raspberry-pi-4b"].throttle_c == 80
    assert [one.cores for one in known["google-pixel-6"].clusters] == [4, 2, 2]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3b-plus"),
        ("Raspberry Pi 3 Model B Rev 1.2", "generic-arm64-linux"),
        ("Raspberry Pi 4 Model B Rev 1.5", "raspberry-pi-4b"),
        ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-4b"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "raspberry-pi-4b"),
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2w"),
        ("Radxa ROCK 5B", "generic-arm64-linux"),
    ],
)
def test_a_board_finds_its_profile(model: str, name: str, shell: LocalShell, tmp_path: Path) -> None:
    found = matching(board(shell, pi4(tmp_path / "pi"), model))
    assert found is not None
    assert found.name == name


def test_phones_and_pcs_find_theirs(shell: LocalShell, tmp_path: Path) -> None:
    pixel = pixel6(tmp_path / "phone")
    names = [matching(board(shell, pixel)), matching(board(shell, pi5(tmp_path / "pi"), uname="Linux 6.1 x86_64"))]
    getprop = (pixel / "usr/bin/getprop").read_text()
    programs(pixel, getprop=getprop.replace("Pixel 6", "Pixel 6 XXL").replace("GS101", "MT6789"))
    names.append(matching(board(shell, pixel)))
    names.append(matching(board(shell, pi4(tmp_path / "old"), uname="Linux 5.10 armv7l")))
    assert [one and one.name for one in names] == ["google-pixel-6", "x86-64", "generic-arm64-android", None]


def test_the_user_s_own_goes_before_ours(config: Path, shell: LocalShell, tmp_path: Path) -> None:
    text = 'title = "mine"\narch = "aarch64"\nthreads = [3]\n'
    write(config, {"profiles/raspberry-pi-4b.toml": text + '[match]\nboard = ["Raspberry Pi 4*"]\n'})
    write(config, {"profiles/rock.toml": text + '[match]\nboard = ["*ROCK 5B*"]\n'})
    assert find("raspberry-pi-4b").threads == (3,)
    pi, rock = matching(board(shell, pi4(tmp_path / "a"))), matching(board(shell, pi4(tmp_path / "b"), "ROCK 5B"))
    assert pi is not None
    assert rock is not None
    assert (pi.title, pi.published, rock.name) == ("mine", (), "rock")


def test_a_name_that_is_none_brings_the_nearest() -> None:
    with pytest.raises(ProfileError, match="raspberry-pi-4b"):
        find("raspbery-pi-4")


def test_the_beginning_of_one_name_is_enough(config: Path) -> None:
    assert find("raspberry-pi-4").name == "raspberry-pi-4b"
    for several in ("raspberry-pi", ""):
        with pytest.raises(ProfileError, match="no profile is called"):
            find(several)
    write(config, {"profiles/raspberry-pi-4.toml": GOOD})
    assert find("raspberry-pi-4").name == "raspberry-pi-4"  # the whole of another


def test_threads_that_make_no_sense_there_are_told() -> None:
    pi = find("raspberry-pi-4b")
    assert unusual_threads(pi, 2) == ""
    assert unusual_threads(pi, 8) == "8 threads are unusual on Raspberry Pi 4 Model B: 1, 2 or 4 make sense"


GOOD = 'title = "x"\narch = "aarch64"\n'
NUMBER = '[[published]]\nmodel = "m"\nprecision = "int8"\nthreads = 1\nruntime = "r"\nsource = "s"\nmedian_ms = '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "title: missing"),
        ("title = 3", "title: 3 is not a text"),
        ('title = ""', "title: '' is not a text"),
        ('title = "a\\nb"', r"title: 'a\\nb' is not a text of one line"),
        ('title = "x"\narch = "mips"', "arch: 'mips' is not one of aarch64, x86_64"),
        (GOOD + "thread = [1]", "thread: no such key; did you mean threads?"),
        (GOOD + "threads = 4", "threads: 4 is not a list"),
        (GOOD + "threads = [0]", r"threads: \[0\] is not a list of whole numbers above 0"),
        (GOOD + "threads = [true]", r"threads: \[True\]"),
        (GOOD + 'isa = ["neon"]', "isa: 'neon' is not one of"),
        (GOOD + "throttle_c = -5", "throttle_c: -5 is not a number above 0"),
        (GOOD + "throttle_c = nan", "throttle_c: nan"),
        (GOOD + 'affinity = "big"', "affinity: 'big' is not one of all, fastest"),
        (GOOD + "cool_down = 3", "cool_down: 3 is not a table"),
        (GOOD + "[cool_down]\nabove_idle = 3", "cool_down: above_idle: no such key; did you mean above_idle_c?"),
        (GOOD + "[clusters]\ncores = 4", "clusters: .* is not tables: "),
        (GOOD + '[[clusters]]\nname = "a"\ncores = 4.0', r"clusters\[0\]: cores: 4.0 is not a whole number"),
        (GOOD + '[match]\nandroid = "no"', "match: android: 'no' is not true or false"),
        (GOOD + "[match]\nboard = [1]", r"match: board: \[1\] is not a list of texts"),
        (GOOD + NUMBER + "-37", r"published\[0\]: median_ms: -37 is not a number above 0"),
        (GOOD + NUMBER + '"37"', r"published\[0\]: median_ms: '37'"),
        (GOOD + NUMBER + "37\nms = 3", r"published\[0\]: ms: no such key"),
        ("title = ", "not TOML"),
        ("\udcff", "not TOML"),
    ],
)
def test_a_bad_one_says_file_key_and_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ProfileError, match=said) as told:
        load(path)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="Is a directory"):
        load(tmp_path)


def test_a_suspicious_latency_is_told() -> None:
    pi = find("raspberry-pi-4b")
    said = against_published(pi, "mobilenet_v2_1.0_224", "int8", 4, 52.7)
    assert said is not None
    assert said.startswith("3.1x the published 17 ms for this board (XNNPACK README")
    assert said.endswith("): check the governor")
    assert against_published(pi, "mobilenet_v2_1.0_224", "int8", 4, 1.5 * 17) is None
    assert against_published(pi, "mobilenet_v2_1.0_224", "int8", 1, 500) is None
    assert against_published(pi, "mobilenet_v2_0.5_224", "int8", 4, 500) is None


def test_processors_to_measure_on(shell: LocalShell, tmp_path: Path) -> None:
    phone = board(shell, pixel6(tmp_path / "phone"))
    fastest = find("generic-arm64-android")
    assert [cpus_for(fastest, phone, threads) for threads in (1, 2, 4, 8)] == [
        (6, 7),
        (6, 7),
        (4, 5, 6, 7),
        (0, 1, 2, 3, 4, 5, 6, 7),
    ]
    text = (Path(devices.profile.__file__).parent / "profiles/google-pixel-6.toml").read_text()
    own = tmp_path / "little.toml"
    own.write_text(text.replace('affinity = "fastest"', 'affinity = "little"'))
    assert cpus_for(load(own), phone, 1) == (0, 1, 2, 3)
    alike = [Cluster((0, 1), "kryo-4xx-gold", 2_419_200), Cluster((2,), "kryo-4xx-gold", 2_841_600)]
    big = dataclasses.replace(find("google-pixel-4"), affinity="big")
    assert cpus_for(big, dataclasses.replace(phone, clusters=tuple(alike)), 1) == (0, 1)
    assert cpus_for(find("x86-64"), phone, 1) == ()
    assert cpus_for(None, phone, 1) == ()
    assert cpus_for(fastest, board(shell, pi4(tmp_path / "pi")), 1) == ()  # all alike
