"""The user's list of devices: what is found in it, what is written to it, and what is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from devices import registry
from devices.errors import ProfileError, UnknownDevice
from devices.registry import LOCAL, Target
from devices.shells.local import LocalShell


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGENET_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/devices.toml"


def test_this_machine_is_always_there(file: Path) -> None:
    assert registry.targets() == (LOCAL,)
    assert registry.find("local") == LOCAL
    assert isinstance(registry.open_shell(LOCAL), LocalShell)
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("pi@raspberrypi.local", "ssh", "pi@raspberrypi.local"),
        ("ssh://pi@10.0.0.7:2222", "ssh", "ssh://pi@10.0.0.7:2222"),
        ("android:emulator-5554", "adb", "emulator-5554"),
        ("android:192.168.1.5:5555", "adb", "192.168.1.5:5555"),
        ("android:a 'b' $(touch gone) ü", "adb", "a 'b' $(touch gone) ü"),
        ("android", "adb", ""),
    ],
)
def test_reachable_without_a_name(text: str, kind: str, address: str) -> None:
    assert registry.find(text) == Target(text, kind, address)


def test_what_is_added_is_found_again_as_it_was(file: Path, tmp_path: Path) -> None:
    key = tmp_path / 'a "key" ü \\ #.pem'
    key.write_text("")
    added = [
        registry.addressed("pi4", "pi@raspberrypi.local", key, "raspberry-pi-4b"),
        registry.addressed("lab.pi-5_b", "pi5"),
        registry.addressed("phone", "android:\"'$(id)` \\ ü"),
    ]
    for target in added:
        registry.add(target)
    assert registry.targets() == (LOCAL, *added)
    assert registry.find("pi4") == added[0]
    registry.remove("lab.pi-5_b")
    assert registry.targets() == (LOCAL, added[0], added[2])
    assert [path.name for path in file.parent.iterdir()] == ["devices.toml"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "as Windows' editors save it"])
def test_a_file_written_by_hand(mark: str, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(mark + '# mine\n[devices]\npi = {kind = "ssh", address = "pi@pi", key = "~/k"}\n')
    assert registry.find("pi") == Target("pi", "ssh", "pi@pi", Path("~/k").expanduser())


def test_what_the_user_wrote_into_the_list_stays(file: Path) -> None:
    file.parent.mkdir(parents=True)
    head = "# those of the lab\n\n# in the rack\n[devices.pi]  # ask Ada\n"
    pi = 'kind = "ssh"\naddress = "pi@pi"  # its name changes\nkey = "~/k"\n'
    behind = '\n# on my table\n[ devices . "p.2" ]\nkind = "adb"\n# its serial\naddress = "1"\n# until May\n'
    file.write_text(head + pi + behind)
    registry.add(Target("new", "ssh", "host"))
    assert file.read_text() == f'{head}{pi}{behind}\n[devices."new"]\nkind = "ssh"\naddress = "host"\n'
    for name in ("new", "p.2"):
        registry.remove(name)
    assert file.read_text() == f"{head}{pi}\n# on my table\n# until May\n\n"
    registry.remove("pi")
    assert file.read_text() == "# those of the lab\n\n# in the rack\n\n# on my table\n# until May\n\n"
    assert registry.targets() == (LOCAL,)


@pytest.mark.parametrize(
    "text",
    [
        'devices = {pi = {kind = "ssh", address = "pi"}, b = {kind = "ssh", address = "b"}}  # mine\n',
        '[devices]\npi.kind = "ssh"\npi.address = "pi"\nb = {kind = "ssh", address = "b"}\n',
        '[devices.b]\nkind = "ssh"\naddress = "b"\n[devices.pi]\nkind = "ssh"\naddress = """\\\n[\\\npi\\\n]"""\n',
    ],
)
def test_a_list_written_otherwise_is_written_anew(text: str, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    known = {target.name: target for target in registry.targets()}
    registry.add(Target("new", "ssh", "host"))
    registry.remove("pi")
    assert registry.targets() == (LOCAL, known["b"], Target("new", "ssh", "host"))


@pytest.mark.parametrize("text", ["", "pi 4", "../x", "-pi", "a@b", "ü", "a" * 65, "local", "android", "pi4\n"])
def test_names_that_cannot_be(text: str, file: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot be a name"):
        registry.add(Target(text, "ssh", "host"))
    assert not file.exists()


def test_a_name_is_given_once(file: Path) -> None:
    registry.add(Target("pi", "ssh", "one"))
    with pytest.raises(ProfileError, match="edgenet devices remove pi"):
        registry.add(Target("pi", "ssh", "two"))
    assert registry.find("pi").address == "one"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "-oProxyCommand=x",
        "pi@-oProxyCommand=x",
        "ssh://-x",
        "@",
        "pi@",
        "a b",
        "a\nb",
        "android:",
        "android:-x",
        "host:99999",
        "a;b",
    ],
)
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(UnknownDevice, match="is no address"):
        registry.addressed("pi", address)


def test_keys_are_for_ssh_and_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownDevice, match="takes no key"):
        registry.addressed("phone", "android:1", tmp_path)
    with pytest.raises(ProfileError, match="no such key file"):
        registry.add(registry.addressed("pi", "host", tmp_path / "gone"))


def test_an_unknown_device_brings_the_nearest() -> None:
    registry.add(Target("pi-lab", "ssh", "host"))
    with pytest.raises(UnknownDevice, match=r"did you mean pi-lab\?.*edgenet devices add"):
        registry.find("pi-lap")
    with pytest.raises(UnknownDevice, match="there is local, pi-lab"):
        registry.find("zzzz")
    with pytest.raises(UnknownDevice, match="named there: pi-lab"):
        registry.remove("pi")
    with pytest.raises(UnknownDevice, match="always there"):
        registry.remove("local")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[devices", "not TOML"),
        ("[device.pi]\n", "device: no such key; did you mean devices?"),
        ('[devices.pi]\nkind = "usb"\n', "pi: kind: 'usb' is not one of ssh, adb"),
        ('[devices.pi]\nkind = "ssh"\n', "pi: address: missing"),
        ('[devices.pi]\nkind = "ssh"\naddress = "h"\nport = 22\n', "pi: port: no such key"),
        ('[devices.pi]\nkind = "ssh"\naddress = "-oProxyCommand=x"\n', "pi: .*is no address"),
        ('[devices."a b"]\nkind = "ssh"\naddress = "h"\n', "'a b' cannot be a device's name"),
        ("devices = 3\n", "devices: 3 is not a table"),
    ],
)
def test_a_broken_list_is_told_and_never_overwritten(text: str, said: str, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for act in (registry.targets, lambda: registry.add(Target("new", "ssh", "h")), lambda: registry.remove("pi")):
        with pytest.raises(ProfileError, match=said) as told:
            act()
        assert str(file) in str(told.value)
    assert file.read_text() == text


def test_the_list_is_never_half_written(file: Path) -> None:
    """A reader that looks all the time sees one whole list or the other."""
    registry.add(Target("stays", "ssh", "host"))
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(len(registry.targets()))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        registry.add(Target("comes", "ssh", "x" * 5000))
        registry.remove("comes")
    over.set()
    reader.join()
    assert seen <= {2, 3}


def test_a_list_that_is_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir(parents=True)
    (tmp_path / "dotfiles.toml").write_text("")
    file.symlink_to(tmp_path / "dotfiles.toml")
    registry.add(Target("pi", "ssh", "host"))
    assert file.is_symlink()
    assert "host" in (tmp_path / "dotfiles.toml").read_text()


def test_no_room_leaves_the_list_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.add(Target("pi", "ssh", "host"))
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        registry.add(Target("pi2", "ssh", "host"))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["devices.toml"]
