"""Profiles: what is known beforehand of a board or a family of phones. One TOML file each; its name is the profile's.

Built-in ones lie beside this file, the user's own in `profiles/` of the config folder, where one of the same name takes
the place of a built-in one. What a device tells of itself when probed goes before what its profile says.

    title = "Raspberry Pi 4 Model B"
    arch = "aarch64"                  # or "x86_64"
    isa = ["asimddp"]                 # of devices.cpuinfo.ISA_FEATURES
    threads = [1, 2, 4]               # that make sense
    affinity = "all"                  # processors to measure on: "all", "fastest", or the name of a cluster
    throttle_c = 80                   # where it slows down; left out where nobody says
    cool_down = { above_idle_c = 5, max_s = 300 }
    [[clusters]]                      # name, cores, part, max_mhz
    [match]                           # board, soc: shell patterns, any of which fits; android: true or false
    [[published]]                     # model, precision, threads, median_ms, runtime, source
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from devices.cpuinfo import ISA_FEATURES
from devices.device import DeviceInfo
from devices.errors import ProfileError
from devices.folders import config_folder
from devices.toml_file import Table, read_toml

ARCHES = ("aarch64", "x86_64")
SUSPICIOUS = 1.5
"""How many times the published latency a measured one must be before we say so."""

_BUILT_IN = Path(__file__).parent / "profiles"


@dataclass(frozen=True, slots=True)
class CoreKind:
    """One cluster of a board: cores that are alike."""

    name: str
    cores: int
    part: str  # "cortex-a72"
    max_mhz: int


@dataclass(frozen=True, slots=True)
class CoolDown:
    """When a device is cool enough for the next repetition, and how long that may take."""

    above_idle_c: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Match:
    """Which devices a profile is for: shell patterns on what the probe found; none at all: any of its arch."""

    board: tuple[str, ...]
    soc: tuple[str, ...]
    android: bool | None


@dataclass(frozen=True, slots=True)
class Published:
    """A latency that somebody published for this board."""

    model: str  # "mobilenet_v2_1.0_224"
    precision: str  # "float32", "int8"
    threads: int
    median_ms: float
    runtime: str
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known beforehand of a board or a family of phones; the module's text explains each field."""

    name: str
    path: Path
    title: str
    arch: str
    isa: tuple[str, ...]
    threads: tuple[int, ...]
    affinity: str
    throttle_c: float | None
    cool_down: CoolDown
    clusters: tuple[CoreKind, ...]
    match: Match
    published: tuple[Published, ...]


def profiles() -> dict[str, Profile]:
    """Load every profile by name, the user's own first. Raises ProfileError for the first that is wrong."""
    own = sorted((config_folder() / "profiles").glob("*.toml"))
    loaded: dict[str, Profile] = {}
    for path in (*own, *sorted(_BUILT_IN.glob("*.toml"))):
        if path.stem not in loaded:
            loaded[path.stem] = load(path)
    return loaded


def find(name: str) -> Profile:
    """Give the profile of that name, or the only one whose name begins so: "raspberry-pi-4" is "raspberry-pi-4b".

    Raises ProfileError with the nearest names.
    """
    known = profiles()
    begin = [one for one in known if name and one.startswith(name)]
    if name not in known and len(begin) == 1:
        return known[begin[0]]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4) or list(known)
        raise ProfileError(f"no profile is called {name!r}; there is {', '.join(near)}")
    return known[name]


def matching(info: DeviceInfo, known: Iterable[Profile] | None = None) -> Profile | None:
    """Pick the profile of a probed device: one that names its board or chip before one for all of its arch."""
    fitting = [one for one in (profiles().values() if known is None else known) if _fits(one, info)]
    named = [one for one in fitting if one.match.board or one.match.soc]
    return next(iter(named or fitting), None)


def contradicted(profile: Profile, info: DeviceInfo) -> str:
    """Say so where a device tells that it is another board than its profile is for; "" where it does not tell."""
    if _fits(profile, info):
        return ""
    own = matching(info)
    if profile.arch == info.arch and not (own and (own.match.board or own.match.soc)):
        return ""
    right = f", whose profile is {own.name}" if own else ""
    return f"it says that it is {info.board or info.arch}{right}, and {profile.name} was chosen"


def cpus_for(profile: Profile | None, info: DeviceInfo, threads: int) -> tuple[int, ...]:
    """Choose the processors to measure on with so many threads; () for any.

    "fastest" takes whole clusters, the highest clock first, until each thread has a processor.
    """
    affinity = profile.affinity if profile else "all"
    if affinity == "all" or len(info.clusters) < 2:
        return ()
    kind = next((one for one in profile.clusters if one.name == affinity), None) if profile else None
    same = [one for one in info.clusters if kind and one.part == kind.part]
    if kind and same:
        return min(same, key=lambda one: abs((one.max_khz or 0) - 1000 * kind.max_mhz)).cpus
    chosen: tuple[int, ...] = ()
    for cluster in sorted(info.clusters, key=lambda one: (one.max_khz or 0, one.cpus), reverse=True):
        chosen += cluster.cpus
        if len(chosen) >= threads:
            break
    return tuple(sorted(chosen))


def against_published(profile: Profile, model: str, precision: str, threads: int, median_ms: float) -> str | None:
    """Say so where a latency is far above what was published for this board; None where it is not, or nothing was.

    model: as edgenet names it, such as "mobilenet_v2_1.0_224".
    """
    wanted = (model, precision, threads)
    for one in profile.published:
        if (one.model, one.precision, one.threads) == wanted and median_ms > SUSPICIOUS * one.median_ms:
            times = f"{median_ms / one.median_ms:.1f}x the published {one.median_ms:g} ms for this board"
            return f"{times} ({one.source}): check the governor"
    return None


def unusual_threads(profile: Profile, threads: int) -> str:
    """Say so where a number of threads is none that makes sense on such a board; "" where it is."""
    if threads in profile.threads:
        return ""
    sane = " or ".join(filter(None, (", ".join(map(str, profile.threads[:-1])), str(profile.threads[-1]))))
    return f"{threads} threads are unusual on {profile.title}: {sane} make sense"


def load(path: Path) -> Profile:
    """Read one profile. Raises ProfileError that names the file, the key and what is wrong with it."""
    table = read_toml(path)
    cool_down, match = table.table("cool_down"), table.table("match")
    profile = Profile(
        name=path.stem,
        path=path,
        title=table.text("title"),
        arch=table.choice("arch", ARCHES),
        isa=tuple(table.choice_of("isa", text, ISA_FEATURES) for text in table.texts("isa")),
        threads=table.counts("threads") or (1,),
        affinity=table.text("affinity", "all"),
        throttle_c=table.number("throttle_c") if table.has("throttle_c") else None,
        cool_down=CoolDown(cool_down.number("above_idle_c", 5), cool_down.number("max_s", 300)),
        clusters=tuple(_core_kind(one) for one in table.tables("clusters")),
        match=Match(match.texts("board"), match.texts("soc"), match.flag("android")),
        published=tuple(_published(one) for one in table.tables("published")),
    )
    for read in (table, cool_down, match):
        read.finish()
    names = ("all", "fastest", *(one.name for one in profile.clusters))
    table.choice_of("affinity", profile.affinity, names)
    return profile


def _core_kind(table: Table) -> CoreKind:
    kind = CoreKind(table.text("name"), table.count("cores"), table.text("part"), table.count("max_mhz"))
    table.finish()
    return kind


def _published(table: Table) -> Published:
    model, precision, runtime, source = (table.text(key) for key in ("model", "precision", "runtime", "source"))
    one = Published(model, precision, table.count("threads"), table.number("median_ms"), runtime, source)
    table.finish()
    return one


def _fits(profile: Profile, info: DeviceInfo) -> bool:
    match, phone = profile.match, info.android
    if profile.arch != info.arch or (match.android is not None and match.android != (phone is not None)):
        return False
    boards = (info.board, phone.model, phone.board) if phone else (info.board,)
    named = [(board, pattern) for pattern in match.board for board in boards]
    named += [(phone.soc, pattern) for pattern in match.soc if phone]
    return not (match.board or match.soc) or any(fnmatchcase(text, pattern) for text, pattern in named)
