"""Recordings: videos that play and keep time; and what happens when the disk is full or gone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgenet.camera.frame import Sink
from edgenet.camera.sinks import recording as recording_module
from edgenet.camera.sinks.log import Log
from edgenet.camera.sinks.overlay import Painter
from edgenet.camera.sinks.recording import Recording
from edgenet.camera.sources.opening import open_source
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Pixels
from tests.edgenet.camera.sources.test_file import uneven
from tests.edgenet.camera.stand_ins import Camera, Clip, Model, Watcher, picture, update
from tests.edgenet.camera.test_pipeline import Running, run


def frames_of(path: Path) -> tuple[list[Pixels], float]:
    """Decode a video: its frames and its rate."""
    import cv2

    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        done, image = video.read()
        if not done:
            break
        frames.append(np.asarray(image, np.uint8))
    fps = video.get(cv2.CAP_PROP_FPS)
    video.release()
    return frames, fps


def brightness(frames: list[Pixels]) -> list[int]:
    """Mean of each frame where no text is."""
    return [round(float(frame[230:300, 300:].mean())) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
def test_of_a_file_each_frame_is_recorded_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    clip = Clip([picture(5 * number, 640, 480) for number in range(45)])
    recording = Recording(path, Painter(), fps=24, live=False)
    run(clip, Model(), recording)
    frames, fps = frames_of(path)
    assert len(frames) == 45
    assert fps == 24
    assert brightness(frames) == pytest.approx([5 * number for number in range(45)], abs=6)
    assert frames[30][:150, :210].std() > 5  # the text is in it
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
@pytest.mark.parametrize("rate", [119.883, 240.0, 959.1])  # slow motion
def test_a_rate_of_three_decimals_or_of_slow_motion_is_no_hindrance(tmp_path: Path, suffix: str, rate: float) -> None:
    path = tmp_path / f"out.{suffix}"
    run(Clip([picture(9, 64, 48)] * 4, fps=rate), Model(), Recording(path, Painter(), fps=rate, live=False))
    frames, fps = frames_of(path)
    assert len(frames) == 4
    assert fps == pytest.approx(rate, rel=0.001)


def test_of_an_uneven_clip_each_frame_is_recorded_for_as_long_as_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    clip = open_source(str(uneven(tmp_path / "clip.mkv")))
    run(clip, Model(), Recording(path, Painter(), fps=10, live=False))
    frames, fps = frames_of(path)
    assert fps == 10
    assert len(frames) == 26  # ten, then five of each, and the last one once
    changed = [number for number in range(1, 26) if np.abs(frames[number].astype(int) - frames[number - 1]).max() > 60]
    assert [number for number in changed if number > 10] == [15, 20, 25]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
@pytest.mark.parametrize(("seconds", "count"), [(2, 3), (25, 8)])
def test_the_recording_of_a_slow_clip_lasts_as_long_as_the_clip(
    tmp_path: Path, suffix: str, seconds: int, count: int
) -> None:
    """Frames of 2 s are recorded once each; those of 25 s are repeated at the slowest rate, 0.1 a second."""
    slow, path = tmp_path / "slow.mkv", tmp_path / f"out.{suffix}"
    source = ["-f", "lavfi", "-i", f"testsrc=s=96x64:r=1/{seconds}:d={3 * seconds}"]
    try:
        subprocess.run(["ffmpeg", "-v", "error", *source, "-c:v", "mpeg4", slow], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    clip = open_source(str(slow))
    run(clip, Model(), Recording(path, Painter(), fps=float(getattr(clip, "fps", 0)), live=False))
    frames, fps = frames_of(path)
    assert len(frames) == count
    assert len(frames) / fps == pytest.approx(3 * seconds, rel=0.07)


def test_of_a_file_the_recording_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path / "out.mp4", Painter(), live=False)
    write = recording._video.write

    def slow(image: Pixels) -> None:
        time.sleep(0.02)
        write(image)

    monkeypatch.setattr(recording._video, "write", slow)
    run(Clip([picture(number, 64, 48) for number in range(40)]), Model(), recording)
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 40


def test_a_live_recording_lasts_as_long_as_what_it_shows_whatever_the_model_takes(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    recording = Recording(path, Painter(), fps=30)
    camera = Camera(fps=100, image=picture(80, 320, 240))
    with Running(camera, Model(ms=90), recording):
        time.sleep(2)
    frames, fps = frames_of(path)
    assert fps == 30
    assert 48 <= len(frames) <= 66


def test_live_pictures_that_come_faster_than_its_rate_are_left_out(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "out.mp4", Painter(), fps=1)
    for number in range(20):
        recording.show(update(picture(number), number))
        time.sleep(0.01)
    recording.close()
    assert 1 <= len(frames_of(tmp_path / "out.mp4")[0]) <= 2  # of less than two seconds, on a busy machine, too


def test_a_live_recording_begins_with_the_first_picture_and_is_as_large(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    camera, watcher = Camera(fps=50, image=picture(200, 480, 800), trouble="it still warms up"), Watcher()
    with Running(camera, Model(), Recording(path, Painter(), fps=30), watcher) as it:
        it.wait(lambda: bool(watcher.updates) and watcher.updates[-1].stats.trouble != "")
        camera.trouble = ""
        it.wait(lambda: len(watcher.ids) > 20)
    frames, _ = frames_of(path)
    assert {frame.shape for frame in frames} == {(800, 480, 3)}
    assert min(brightness(frames)) > 190


def test_pauses_are_not_in_it_and_a_camera_that_is_gone_is(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    camera = Camera(fps=50, image=picture(80, 320, 240))
    with Running(camera, Model(), Recording(path, Painter(), fps=30)) as it:
        time.sleep(0.6)
        it.controls.paused = True
        time.sleep(1.5)
        it.controls.paused = False
        time.sleep(0.3)
        camera.trouble = "camera 0 is gone"
        time.sleep(0.9)
    frames, _ = frames_of(path)
    assert 42 <= len(frames) <= 62  # 1.8 s of 3.3
    red = [int((frame[..., 2] > frame[..., 1].astype(int) + 60).sum()) for frame in frames]
    assert max(red[:15]) < 500 < red[-1]


def test_live_it_never_blocks_and_cuts_time_out_where_the_encoder_is_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    told: list[str] = []
    recording = Recording(path, Painter(), fps=30, warn=told.append)
    write = recording._video.write

    def slow(image: Pixels) -> None:
        time.sleep(0.1)
        write(image)

    monkeypatch.setattr(recording._video, "write", slow)
    took, at = [], []
    image = picture(80, 320, 240)
    for number in range(200):
        shown = update(image, number)
        began = time.monotonic()
        at.append(began)
        recording.show(shown)
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    assert np.quantile(took, 0.95) < 0.015
    began = time.monotonic()
    recording.close()
    assert time.monotonic() - began < 0.8
    frames = len(frames_of(path)[0])
    assert 20 <= frames <= 60  # of 120 that it should have been
    recording.close()  # harmless twice
    assert len(told) == 1
    said = re.fullmatch(rf"{re.escape(str(path))}: (\d+) of (\d+) s are not in it: this machine encodes .*", told[0])
    assert said
    assert int(said[2]) == pytest.approx(at[-1] - at[0], abs=0.6)
    assert int(said[2]) - int(said[1]) == pytest.approx(frames / 30, abs=1.1)


def test_it_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"what was here before")
    recording = Recording(path, Painter(), live=False)
    shown = update(picture(9, 320, 240))
    for one in (shown, dataclasses.replace(shown, paused=True)):  # a pause shows it again
        recording.show(one)
    time.sleep(0.2)
    assert path.read_bytes() == b"what was here before"
    recording.close()
    recording.close()
    assert len(frames_of(path)[0]) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    Recording(tmp_path / "out.mp4", Painter()).close()
    assert not list(tmp_path.iterdir())


def test_pictures_that_change_their_size_are_fitted_into_the_first(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sizes = [(641, 481), (480, 640), (1, 1), (7680, 4320), (641, 481)]
    run(Clip([picture(200, *size) for size in sizes]), Model(), Recording(path, Painter(), live=False))
    frames, _ = frames_of(path)
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 5
    assert frames[1][200:300, :100].mean() < 10  # black beside the upright one
    assert frames[1][200:300, 300:340].mean() > 150


def test_what_cannot_be_recorded_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--record out\.webm: give a file that ends in one of \.mp4"):
        Recording(Path("out.webm"), Painter())
    with pytest.raises(EdgenetError, match="No such file or directory"):
        Recording(tmp_path / "none" / "out.mp4", Painter())
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(EdgenetError, match=r"cannot write .*folder\.mp4: a folder; choose another file"):
        Recording(tmp_path / "folder.mp4", Painter())
    (tmp_path / "folder.mp4").rmdir()
    with pytest.raises(EdgenetError, match="No such file or directory"):
        Log(tmp_path / "none" / "log.jsonl")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(EdgenetError, match="the disk is full, nothing is recorded"):
        Recording(tmp_path / "out.mp4", Painter())
    assert not list(tmp_path.iterdir())


FULL = """
import sys, time
from pathlib import Path
import numpy as np
from edgenet.camera.sinks.overlay import Painter
from edgenet.camera.sinks.recording import Recording
from edgenet.camera.sources.opening import open_source
from tests.edgenet.camera.stand_ins import update
said = []
recording = Recording(Path(sys.argv[1]), Painter(), live=sys.argv[2] == "live", failed=said.append)
rng, number = np.random.default_rng(0), 0
while not said and number < 3000:
    recording.show(update(rng.integers(0, 256, (720, 1280, 3), np.uint8), number))
    number += 1
    time.sleep(0.01 if sys.argv[2] == "live" else 0)
recording.show(update(np.zeros((720, 1280, 3), np.uint8), number))
recording.close()
from tests.edgenet.camera.sinks.test_recording import frames_of
print(len(said), len(frames_of(Path(sys.argv[1]))[0]), said[0])
"""


def small_disk(megabytes: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a disk of its own at /mnt, that nobody else sees; skip where the system does not let us."""
    script = 'mount -t tmpfs -o size="$0"m none /mnt && exec "$@"'
    if shutil.which("unshare") is None:
        pytest.skip("for a small disk, unshare is needed: apt install util-linux")
    whole = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(megabytes), *command]
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"for a small disk, user namespaces are needed: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize("kind", ["file", "live"])
def test_a_full_disk_is_one_line_and_what_was_recorded_is_playable(kind: str) -> None:
    done = small_disk(16, sys.executable, "-c", FULL, "/mnt/out.mp4", kind)
    assert done.returncode == 0, done.stderr
    count, frames, line = done.stdout.strip().split(" ", 2)
    assert count == "1"
    assert int(frames) > 10
    assert line.startswith("/mnt/out.mp4: the disk is full, the recording ends after ")
    assert "\n" not in line


def test_a_disk_that_is_full_already_is_said_at_once() -> None:
    done = small_disk(1, sys.executable, "-c", FULL, "/mnt/out.mp4", "live")
    assert done.returncode == 1
    assert "the disk is full, nothing is recorded" in done.stderr


@pytest.mark.parametrize("live", [False, True])
def test_a_folder_that_goes_away_is_one_line_and_holds_nobody_up(tmp_path: Path, live: bool) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    said: list[str] = []
    recording = Recording(folder / "out.mp4", Painter(), live=live, failed=said.append)

    def show() -> None:
        for number in range(60):
            recording.show(update(picture(number, 320, 240), number))
            time.sleep(0.01)
            if number == 20:
                shutil.rmtree(folder)
        recording.close()

    showing = threading.Thread(target=show, daemon=True)
    showing.start()
    showing.join(10)
    assert not showing.is_alive()
    assert said == [
        f"{folder}/out.mp4: the recording breaks off (No such file or directory): make room or choose another folder"
    ]


def test_a_name_that_is_taken_meanwhile_is_one_line_and_the_recording_is_left(tmp_path: Path) -> None:
    said: list[str] = []
    recording = Recording(tmp_path / "out.mp4", Painter(), live=False, failed=said.append)
    recording.show(update(picture(9, 320, 240)))
    (tmp_path / "out.mp4").mkdir()
    recording.close()
    (line,) = said
    assert line.startswith(f"{tmp_path}/out.mp4: the recording cannot be put there (Is a directory); it is left in ")
    assert len(frames_of(Path(line.rpartition(" ")[2]))[0]) == 1


@pytest.mark.skipif(not shutil.which("strace"), reason="for system calls: apt install strace")
def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgenet.camera.sinks.overlay import Painter; "
        "from edgenet.camera.sinks.recording import Recording; "
        "from tests.edgenet.camera.stand_ins import picture, update; "
        "one = Recording(Path(sys.argv[1]), Painter(), live=False); one.show(update(picture(9, 320, 240))); one.close()"
    )
    traced = ["strace", "-f", "-e", "trace=fsync,rename", "-o", tmp_path / "calls"]
    subprocess.run([*traced, sys.executable, "-c", code, tmp_path / "out.mp4"], check=True)
    calls = (tmp_path / "calls").read_text()
    assert 0 <= calls.find("fsync(") < calls.find("out.mp4")


LOG = """
import sys
from pathlib import Path
from edgenet.camera.sinks.log import Log
from tests.edgenet.camera.stand_ins import picture, update
said = []
log = Log(Path("/mnt/seen.jsonl"), said.append)
for number in range(5000):
    log.show(update(picture(), number))
log.close()
print(len(said), said[0])
print(Path("/mnt/seen.jsonl").read_text(), end="")
"""


def test_a_log_that_is_full_ends_with_a_whole_line() -> None:
    done = small_disk(1, sys.executable, "-c", LOG)
    assert done.returncode == 0, done.stderr
    said, *documents = done.stdout.splitlines()
    assert said.startswith("1 /mnt/seen.jsonl: the log ends here (No space left on device)")
    assert [json.loads(one)["id"] for one in documents] == list(range(len(documents)))
    assert len(documents) > 1000


def test_sinks_are_sinks(tmp_path: Path) -> None:
    """What a type checker is told, once more at run time; and no thread is left behind."""
    before = threading.active_count()
    sinks: list[Sink] = [Log(tmp_path / "a.jsonl"), Recording(tmp_path / "a.mp4", Painter())]
    for sink in sinks:
        sink.show(update(picture()))
        sink.close()
    assert threading.active_count() == before
    assert json.loads((tmp_path / "a.jsonl").read_text())["id"] == 0
    assert os.listdir(tmp_path).count("a.mp4") == 1  # noqa: PTH208


def test_a_recording_is_never_mirrored(tmp_path: Path) -> None:
    image = picture(0, 640, 480)
    image[:, :320] = 200
    recording = Recording(tmp_path / "out.mp4", Painter(), live=False)
    recording.show(update(image, mirror=True))
    recording.close()
    (frame,), _ = frames_of(tmp_path / "out.mp4")
    assert frame[250:400, 20:300].mean() > 180
    assert frame[250:400, 340:620].mean() < 20


def test_room_for_the_index_that_is_written_last_is_kept_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = recording_module._RESERVE + 10 * recording_module._INDEX
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    said: list[str] = []
    recording = Recording(tmp_path / "out.mp4", Painter(), live=False, failed=said.append)
    for number in range(20):
        recording.show(update(picture(number), number))
    recording.close()
    assert len(said) == 1
    assert "the disk is full, the recording ends after " in said[0]
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 11  # 10 frames are in the index that there is room for
