"""edgenet camera as a user meets it: in a process of its own, with its exit codes, on real clips and a real camera."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.camera.classifier import default_model
from edgenet.camera.frame import Stats
from edgenet.dataset import batches, image_files
from edgenet.image import decode
from edgenet.proof.subjects import open_artifact, scorer
from tests.devices import adbd
from tests.devices.tiny_models import tiny_tflite, write
from tests.edgenet.conftest import Edgenet

from .browser import own_certificate
from .mjpeg_camera import MjpegCamera
from .sinks.test_recording import frames_of
from .started import AtTerminal, Started, lines


@pytest.fixture(scope="module")
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera(fps=30, size=(800, 448)) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 40 frames at 20 a second: a symbol on paper, nearer with each frame."""
    import cv2

    from edgenet.symbols.generate import batch

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    (image,), _ = batch(1, 17)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (320, 240))
    for number in range(40):
        video.write(cv2.resize(image[number // 4 : 96 - number // 4], (320, 240)))
    video.release()
    return path


# The whole way.


def test_a_clip_is_logged_recorded_and_summed_up(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    log, video = tmp_path / "seen.jsonl", tmp_path / "out.mp4"
    ran = edgenet("camera", "--source", clip, "--view", "none", "--log", log, "--record", video, "--top", 3, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    seen = lines(log)
    assert [one["id"] for one in seen] == list(range(40))
    assert [one["at_s"] for one in seen] == pytest.approx([number / 20 for number in range(40)], abs=0.002)
    assert all(len(one["top"]) == 3 and 0 <= one["probability"] <= 1 for one in seen)
    frames, fps = frames_of(video)
    assert (len(frames), fps) == (40, 20)
    assert set(Stats.__dataclass_fields__) < set(ran.document)
    assert (ran.document["frames"], ran.document["dropped"], ran.document["complete"]) == (40, 0, True)
    assert (ran.document["model"], ran.document["precision"]) == ("symbols", "int8")
    assert ran.document["inference_ms"] > 0


def test_pictures_get_the_answers_that_evaluate_gives(edgenet: Edgenet, pictures: Path, tmp_path: Path) -> None:
    """Of the embedded classifier on generated pictures: the share that is right, as `edgenet evaluate` tells it."""
    log = tmp_path / "seen.jsonl"
    ran = edgenet("camera", "--source", pictures, "--view", "none", "--log", log)
    assert ran.code == 0, ran.err
    truth = [file.parent.name for file in image_files(pictures)]
    right = np.mean([one["raw_label"] == label for one, label in zip(lines(log), truth, strict=True)])
    known = edgenet("evaluate", default_model(), "--data", pictures, "--json")
    assert right == known.document[0]["top1"]


@pytest.mark.slow
def test_photographs_get_exactly_the_answers_of_the_file_itself(edgenet: Edgenet, data: Path, tmp_path: Path) -> None:
    """In a lossless clip and as pictures, of a foreign ImageNet classifier; and as `edgenet evaluate` has it."""
    model = data / "foreign" / "mobilenet_v2_1.0_224_quant.tflite"
    validation, photos = data / "imagenet" / "validation", data / "photos"
    subject = open_artifact(model)
    prep = subject.manifest.input.preprocessing
    every = {folder: image_files(folder) for folder in (validation, photos)}
    with scorer(subject) as scores:
        answers = {
            folder: np.concatenate(list(scores(batches(files, prep, 8)))).argmax(axis=1)
            for folder, files in every.items()
        }
    shown = {validation: lossless(every[validation], tmp_path / "clip.mkv"), photos: photos}
    for folder, source in shown.items():
        log = tmp_path / f"{folder.name}.jsonl"
        ran = edgenet("camera", model, "--source", source, "--view", "none", "--log", log, "--smooth", 0, timeout_s=400)
        assert ran.code == 0, ran.err
        seen = lines(log)
        assert [one["raw_label"] for one in seen] == [
            subject.manifest.output.labels[index] for index in answers[folder]
        ]
        assert [one["label"] for one in seen] == [one["raw_label"] for one in seen]
    # The 1001 classes begin with background.
    rows = [line.split(",", 2) for line in (data / "imagenet" / "classes.csv").read_text().splitlines()[1:]]
    truth = {wnid: int(index) + 1 for index, wnid, _ in rows}
    right = [
        truth[file.parent.name] == index for file, index in zip(every[validation], answers[validation], strict=True)
    ]
    known = edgenet("evaluate", model, "--data", validation, "--json", timeout_s=400)
    assert np.mean(right) == known.document[0]["top1"]


def lossless(files: tuple[Path, ...], path: Path) -> Path:
    """Make a clip of pictures of one size that decodes to their very bytes; skip without the program for it."""
    if not shutil.which("ffmpeg"):
        pytest.skip("for a lossless clip: apt install ffmpeg")
    images = [decode(file) for file in files]
    height, width = images[0].shape[:2]
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "30"]
    command += ["-i", "-", "-c:v", "ffv1", "-pix_fmt", "bgr0", str(path)]
    subprocess.run(command, input=b"".join(image.tobytes() for image in images), check=True)
    frames, _ = frames_of(path)
    assert all((frame[..., ::-1] == image).all() for frame, image in zip(frames, images, strict=True))
    return path


def children(parent: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_within_a_second_with_the_recording_playable(camera: MjpegCamera, tmp_path: Path, how: int) -> None:
    log, video = tmp_path / "seen.jsonl", tmp_path / "out.mp4"
    with Started(tmp_path, "--source", camera.url, "--view", "none", "--log", log, "--record", video, "--json") as it:
        it.wait(lambda: len(lines(log)) > 40)
        for child in children(it.process.pid):  # services are ended as a group, and so is what a terminal started
            os.kill(child, how)
        it.process.send_signal(how)
        assert it.ends(1) == 0
        assert it.err == ""
        assert it.document["inference_fps"] > 10
    frames, fps = frames_of(video)
    assert fps == 30
    assert len(frames) > 25
    assert frames[0].shape == frames[-1].shape == (448, 800, 3)


def test_ctrl_c_does_not_wait_for_what_a_clip_shows_for_long(tmp_path: Path) -> None:
    """Thirty frames of a second, then thirty of 20 s each, as screens are recorded: 17,000 frames of a video."""
    slow, log, video = tmp_path / "slow.mkv", tmp_path / "seen.jsonl", tmp_path / "out.mp4"
    times = ["-vf", "setpts='if(lt(N,30),N/30,1+(N-30)*20)/TB'", "-fps_mode", "vfr", "-c:v", "mpeg4"]
    try:
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=96x64:r=30:d=2", *times, slow], check=True
        )
    except FileNotFoundError:
        pytest.skip("no ffmpeg; try: apt-get install ffmpeg")
    with Started(tmp_path, "--source", slow, "--view", "none", "--log", log, "--record", video) as it:
        it.wait(lambda: len(lines(log)) > 30)
        it.interrupt()
        assert it.ends(1) == 0
    frames, fps = frames_of(video)
    assert fps == 30
    assert 30 <= len(frames) < 8_000


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_the_model_lives_until_the_camera_has_ended(camera: MjpegCamera, tmp_path: Path, how: int) -> None:
    log = tmp_path / "seen.jsonl"
    with Started(tmp_path, "--source", camera.url, "--view", "none", "--log", log) as it:
        it.wait(lambda: len(lines(log)) > 10)
        (child,) = children(it.process.pid)
        os.kill(child, how)
        count = len(lines(log))
        it.wait(lambda: len(lines(log)) > count + 10)
        it.interrupt()
        assert it.ends() == 0
        assert it.err == ""


def test_a_camera_that_is_unplugged_and_plugged_back_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "seen.jsonl"
    with (
        MjpegCamera(fps=30, size=(320, 240)) as own,
        Started(tmp_path, "--source", own.url, "--view", "none", "--log", log) as it,
    ):
        it.wait(lambda: len(lines(log)) > 10)
        own.kill()
        it.wait(lambda: "trying again in" in it.err)
        count = len(lines(log))
        own.start()
        it.wait(lambda: len(lines(log)) > count + 10)
        ids = [one["id"] for one in lines(log)]
        assert ids == sorted(set(ids))
        it.interrupt()
        assert it.ends() == 0
        assert it.err.count("\n") == 1


def test_a_model_that_dies_is_one_line(camera: MjpegCamera, tmp_path: Path) -> None:
    log = tmp_path / "seen.jsonl"
    with Started(tmp_path, "--source", camera.url, "--view", "none", "--log", log) as it:
        it.wait(lambda: len(lines(log)) > 10)
        (child,) = children(it.process.pid)
        os.kill(child, signal.SIGKILL)
        assert it.ends() == 1
        assert it.err.count("\n") == 1
        assert re.match(r"edgenet: .*symbols_int8\.tflite: its runtime died of SIGKILL", it.err)


def test_a_log_that_takes_no_more_ends_what_nobody_looks_at(camera: MjpegCamera, tmp_path: Path) -> None:
    with Started(tmp_path, "--source", camera.url, "--view", "none", "--log", "/dev/full") as it:
        assert it.ends(15) == 1
        assert it.err.count("\n") == 1
        assert "the log ends here (No space left on device)" in it.err


def test_a_log_into_a_pipe_that_nobody_empties_waits_for_it_and_for_ctrl_c(camera: MjpegCamera, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)  # a line or a few
    text = b""
    with Started(tmp_path, "--source", camera.url, "--view", "none", "--log", pipe) as it:
        for _ in range(2):
            it.wait(lambda: select.select([reader], [], [], 0)[0])
            time.sleep(0.5)  # it is full now
            text += os.read(reader, 1 << 16)
        time.sleep(0.5)
        it.interrupt()
        assert it.ends(5) == 0
    os.close(reader)
    ids = [json.loads(line)["id"] for line in text.splitlines()]
    assert len(ids) >= 2
    assert ids == sorted(set(ids))


def test_a_recording_that_breaks_off_does_not_end_the_log(camera: MjpegCamera, tmp_path: Path) -> None:
    log, stick = tmp_path / "seen.jsonl", tmp_path / "stick"
    stick.mkdir()
    options = ("--view", "none", "--log", log, "--record", stick / "out.mp4", "--json")
    with Started(tmp_path, "--source", camera.url, *options) as it:
        it.wait(lambda: len(lines(log)) > 10)
        shutil.rmtree(stick)
        it.wait(lambda: "the recording breaks off (No such file or directory)" in it.err)
        count = len(lines(log))
        it.wait(lambda: len(lines(log)) > count + 10)
        it.interrupt()
        assert it.ends() == 1
        assert it.err.count("\n") == 1
        assert it.document["complete"] is False


# Views.


def test_without_a_display_the_page_is_served_and_its_address_printed(camera: MjpegCamera, tmp_path: Path) -> None:
    came = {"SSH_CONNECTION": "192.0.2.7 51234 192.0.2.9 2222", "USER": "pi"}
    with Started(tmp_path, "--source", camera.url, "--json", DISPLAY=None, WAYLAND_DISPLAY=None, **came) as it:
        address = it.wait(lambda: re.search(r"^open (http://127\.0\.0\.1:\d+/)$", it.err, re.MULTILINE))[1]

        def told() -> bool:
            with urllib.request.urlopen(f"{address}stats.json") as answer:
                return "camera_fps" in answer.read().decode()

        it.wait(told)
        port = address.rstrip("/").rpartition(":")[2]
        assert f"where you sit it opens after: ssh -L {port}:127.0.0.1:{port} -p 2222 pi@192.0.2.9\n" in it.err
        if sys.platform == "linux":  # where libjpeg writes of each damaged picture: a file there would grow for ever
            assert Path(f"/proc/{it.process.pid}/fd/2").readlink() == Path(os.devnull)
        it.interrupt()
        assert it.ends() == 0
        assert it.document["source"].startswith("http://127.0.0.1")


def test_the_browsers_camera_makes_the_page_the_view_even_where_a_window_could_open(tmp_path: Path) -> None:
    with Started(tmp_path, "--source", "browser", "--json", DISPLAY=":4711") as it:
        it.wait(lambda: "open http://127.0.0.1:" in it.err)
        it.wait(lambda: "no browser sends pictures" in it.err)
        it.interrupt()
        assert it.ends() == 0
        assert "no browser sends pictures" in it.document["trouble"]


def test_in_the_browser_the_model_is_served_with_its_labels_and_opencv_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(name='cv2')")
    path = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    with Started(tmp_path, "--in-browser", "--port", 0, PYTHONPATH=path) as it:
        address = it.wait(lambda: re.search(r"^open (http://127\.0\.0\.1:\d+/)$", it.err, re.MULTILINE))[1]
        with urllib.request.urlopen(f"{address}model.tflite") as answer:
            assert answer.read() == default_model().read_bytes()
        with urllib.request.urlopen(f"{address}config.json") as answer:
            assert len(json.load(answer)["model"]["labels"]) == 20
        it.interrupt()
        assert it.ends() == 0


def test_the_terminal_shows_a_table_takes_keys_and_is_given_back(camera: MjpegCamera, tmp_path: Path) -> None:
    with AtTerminal(tmp_path, "--source", camera.url, "--view", "terminal") as it:
        it.until("q quit")
        it.until("inference")
        assert not termios.tcgetattr(it.terminal)[3] & termios.ECHO
        it.type(b" ")
        it.until("paused")
        it.type(b" \x1b[A")  # an arrow is no Escape
        it.until("q quit")
        it.type(b"q")
        began = time.monotonic()
        it.until("\x1b[?25h")  # the cursor is shown again
        assert it.process.wait(5) == 0
        assert time.monotonic() - began < 1
        assert termios.tcgetattr(it.terminal) == it.before


def test_after_ctrl_z_it_takes_the_terminal_again(camera: MjpegCamera, tmp_path: Path) -> None:
    with AtTerminal(tmp_path, "--source", camera.url, "--view", "terminal") as it:
        it.until("inference")
        it.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(it.terminal, termios.TCSADRAIN, it.before)  # as the shell does, which is seen meanwhile
        it.process.send_signal(signal.SIGCONT)
        it.type(b"")
        it.until("inference")
        assert not termios.tcgetattr(it.terminal)[3] & termios.ECHO
        it.type(b" ")
        it.until("paused")
        it.type(b"q")
        assert it.process.wait(5) == 0
        assert termios.tcgetattr(it.terminal) == it.before


def test_a_terminal_that_moves_no_cursor_gets_plain_lines(camera: MjpegCamera, tmp_path: Path) -> None:
    with AtTerminal(tmp_path, "--source", camera.url, "--view", "terminal", term="dumb") as it:
        it.until(" fps, age ")
        camera.kill()
        it.until("the connection ended")
        assert "\x1b" not in it.said
        it.type(b"\x03")
        assert it.process.wait(5) == 0


def test_where_there_is_no_terminal_it_is_plain_lines(edgenet: Edgenet, clip: Path) -> None:
    ran = edgenet("camera", "--source", clip, "--view", "terminal")
    assert ran.code == 0
    assert ran.out == ""
    assert "\x1b" not in ran.err
    assert re.search(r"^\w+ \d+% \(raw \d+%\), [\d.]+ fps, age \d+ ms$", ran.err, re.MULTILINE)


def test_pictures_stay_a_second_before_people_unless_they_are_only_kept(edgenet: Edgenet, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (320, 240), "white").save(tmp_path / f"{name}.png")
    watched = edgenet("camera", "--source", tmp_path, "--view", "web", "--json")
    assert watched.document["frames"] == 2
    assert watched.document["seconds"] > 1.9
    kept = edgenet("camera", "--source", tmp_path, "--view", "web", "--json", "--log", tmp_path / "seen.jsonl")
    assert kept.document["frames"] == 2
    assert kept.document["seconds"] < 1.9


def test_in_the_terminal_a_picture_that_is_left_out_is_told_once(edgenet: Edgenet, tmp_path: Path) -> None:
    for name in ("a", "c"):
        Image.new("RGB", (320, 240), "white").save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    ran = edgenet("camera", "--source", tmp_path, "--view", "terminal")
    assert ran.code == 0
    assert ran.err.count("b.png") == 1
    assert re.search(r"^warning: .*b\.png: .*damaged or cut short", ran.err, re.MULTILINE)


def test_clips_in_a_folder_are_not_left_out_silently(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    command = ("camera", "--source", tmp_path, "--view", "none", "--json")
    for name in ("b.mp4", "a.MKV", "c.webm", "d.avi", ".hidden.mp4"):
        shutil.copy(clip, tmp_path / name)
    told = "of a folder the pictures are shown, clips are not played: give the path of one"
    ran = edgenet(*command)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "no image in this folder" in ran.err
    assert f"{told} (a.MKV, b.mp4, c.webm and 1 more)" in ran.err
    Image.new("RGB", (320, 240), "white").save(tmp_path / "one.gif")
    ran = edgenet(*command)
    assert (ran.code, ran.err) == (0, f"warning: {tmp_path}: {told} (a.MKV, b.mp4, c.webm and 1 more)\n")
    assert ran.document["frames"] == 1
    for file in (*tmp_path.glob("*.mp4"), *tmp_path.glob("?.*")):
        file.unlink(missing_ok=True)
    Image.new("RGB", (320, 240), "white").save(tmp_path / "two.png")
    ran = edgenet(*command)
    assert (ran.code, ran.err, ran.document["frames"]) == (0, "", 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_phone_is_shown_the_page_at_an_address_that_its_browser_trusts(tmp_path: Path, host: str) -> None:
    tool = shutil.which("adb")
    if tool is None:
        pytest.skip("adb is not installed: apt install adb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "ANDROID_SERIAL": None}
    am = tmp_path / "bin" / "am"
    am.parent.mkdir()
    am.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/am.txt\necho Starting: Intent\n')
    am.chmod(0o755)
    known = {name: value for name, value in {**os.environ, **own}.items() if value is not None}
    with adbd.Adbd(prefix=("env", f"PATH={am.parent}:/usr/bin:/bin")) as phone:
        try:
            with Started(tmp_path, "--phone", **own) as it:
                assert it.ends(20) == 1
                assert it.err == "edgenet: no phone is connected: plug one in that has USB debugging on\n"
            subprocess.run([tool, "connect", phone.serial], env=known, check=True, capture_output=True)
            with Started(tmp_path, "--phone", "--host", host, **own) as it:
                shown = it.wait(
                    lambda: (tmp_path / "am.txt").exists() and (tmp_path / "am.txt").read_text().splitlines()
                )
                address = it.wait(lambda: re.search(r"^open http://\S+:(\d+)(/\S*)$", it.err, re.MULTILINE))
                assert ("?token=" in address[2]) == (host == "0.0.0.0")
                own_address = f"http://127.0.0.1:{address[1]}{address[2]}"
                assert shown == ["start", "-a", "android.intent.action.VIEW", "-d", own_address]
                assert phone.reversed == [f"forward:tcp:{address[1]};tcp:{address[1]}"]
                assert "TLS" not in it.err
                it.interrupt()
                assert it.ends() == 0
            assert phone.reversed[1:] == [f"killforward:tcp:{address[1]}"]
        finally:
            subprocess.run([tool, "kill-server"], env=known, check=False, capture_output=True)


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--view", "none"), 2, "--view none shows nothing"),
        (("--log", "/dev/stdout"), 2, "--log /dev/stdout: stdout is for --json alone; give a file, or"),
        (("--roi", "1,2,3"), 2, "--roi 1,2,3: give x,y,width,height"),
        (("--roi", "0,0,0,9"), 2, "--roi 0,0,0,9: give x,y,width,height"),
        (("--rotate", "45"), 2, "--rotate 45: give 0, 90, 180 or 270"),
        (("--source", "none.mp4"), 1, "none.mp4: no such file"),
        (("none.tflite",), 1, "none.tflite"),
        (("--record", "out.webm", "--source", "CLIP"), 2, "--record out.webm: give a file that ends in one of .mp4"),
        (("--roi", "300,0,100,100", "--source", "CLIP"), 2, "300,0,100,100 does not lie within the picture of 320x240"),
        (("--source", "browser", "--view", "terminal"), 2, "--source browser sends pictures from the page"),
        (("--in-browser", "--source", "0"), 2, "--in-browser runs the model in the page"),
        (("--in-browser", "--threads", "2"), 2, "leave --threads out"),
        (("--in-browser", "--roi", "0,0,9,9"), 2, "--roi needs the model to run here"),
        (("--record", "CLIP", "--source", "CLIP"), 2, "clip.mp4: that is the file of the source"),
        (("--record", "CLIP", "--source", "file://CLIP"), 2, "clip.mp4: that is the file of the source"),
        (("--log", "CLIP", "--source", "CLIP"), 2, "clip.mp4: that is the file of the source"),
        (("mine.tflite", "--log", "./mine.tflite"), 2, "mine.tflite: that is the file of the model"),
        (("--log", "o.mp4", "--record", "./o.mp4", "--source", "CLIP"), 2, "o.mp4: that is the file of --record"),
        (("--host", "0.0.0.0"), 2, "--host is for the page: it goes with --view web, not none"),
        (("--view", "window", "--port", "9"), 2, "--port is for the page: it goes with --view web, not window"),
        (("--smooth", "nan"), 2, "--smooth nan: give seconds"),
        (("--smooth", "inf"), 2, "--smooth inf: give seconds"),
        (("--roi", f"0,0,{'9' * 5000},9"), 2, "give x,y,width,height"),
        (("--in-browser", "--json"), 2, "--json needs the model to run here"),
        (("--phone", "--view", "window"), 2, "--phone opens the page: it goes with --view web, not window"),
        (("--phone", "--host", "192.0.2.1", "--view", "web"), 2, "--phone reaches this machine's loopback"),
        (("--tls-cert", "LABELS"), 2, "--tls-cert and --tls-key go together"),
        (("--tls-cert", "LABELS", "--tls-key", "LABELS"), 1, "are no certificate and its key"),
        (("--tls-cert", "LABELS", "--tls-key", "none.pem"), 1, "none.pem: No such file"),
        (("--input-range=-1..1", "--source", "CLIP"), 2, "--input-range concerns files without a manifest"),
        (("--labels", "LABELS", "--source", "CLIP"), 1, "answers 20 classes and the labels name 2"),
        (("--view", "web", "--host", "0.0.0.0", "--token", "short", "--source", "CLIP"), 2, "token"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_that_says_what_to_do(
    edgenet: Edgenet, clip: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    places = {"CLIP": str(clip), "LABELS": str(tmp_path / "labels.txt")}
    view = () if "--view" in arguments or "--in-browser" in arguments else ("--view", "none", "--json")
    before = clip.read_bytes()
    ran = edgenet("camera", *(places.get(word, word.replace("CLIP", str(clip))) for word in arguments), *view)
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert words in ran.err
    assert clip.read_bytes() == before


@pytest.mark.parametrize("option", ["--log", "--record"])
def test_nothing_that_is_read_is_written_over(edgenet: Edgenet, tmp_path: Path, option: str) -> None:
    for file in default_model().parent.glob("symbols_*.tflite*"):
        shutil.copy(file, tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (320, 240), "white").save(folder / f"s_{number:04}.png")
    (tmp_path / "labels.txt").write_text("\n".join(f"class {number}" for number in range(20)))
    certificate, key = own_certificate(tmp_path)
    (tmp_path / "linked.mp4").symlink_to(folder / "s_0000.png")
    model = tmp_path / "symbols_int8.tflite"
    tls = ("--view", "web", "--tls-cert", certificate, "--tls-key", key)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path, words, given in (
        (f"{model}.json", "the manifest of the model", (model, "--source", folder)),
        (tmp_path / "symbols_float32.tflite", "the file of the other precision", (model, "--source", folder)),
        (tmp_path / "symbols_float32.tflite.json", "the manifest of the other precision", (model, "--source", folder)),
        (folder / "s_0001.png", "a picture of the source", ("--source", folder)),
        (tmp_path / "linked.mp4", "a picture of the source", ("--source", folder)),
        (folder / "s_0001.png", "a picture of the source", ("--source", folder / "s_%04d.png")),
        (tmp_path / "labels.txt", "the file of --labels", ("--source", folder, "--labels", tmp_path / "labels.txt")),
        (certificate, "the file of --tls-cert", ("--source", folder, *tls)),
        (key, "the file of --tls-key", ("--source", folder, *tls)),
    ):
        view = () if "--view" in given else ("--view", "none")
        ran = edgenet("camera", *given, *view, option, path)
        assert (ran.code, ran.err) == (2, f"edgenet: {option} {path}: that is {words}; choose another\n")
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_is_refused_leaves_the_log_of_the_last_one(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    log = tmp_path / "seen.jsonl"
    log.write_text("what was seen\n")
    wrong = (("--roi", "0,0,9999,9999"), ("--record", "out.webm"), ("--threads", "0"), ("--threads", "257"))
    for more in wrong:
        ran = edgenet("camera", "--source", clip, "--view", "none", "--log", log, *more)
        assert ran.code == 2, ran.err
        assert log.read_text() == "what was seen\n"
    assert edgenet("camera", "--source", clip, "--view", "none", "--log", log).code == 0
    assert [one["id"] for one in lines(log)] == list(range(40))


@pytest.mark.parametrize("address", ["rtsp:/user:s3cret@host/live", "user:s3cret@host/live"])
def test_an_address_that_is_mistyped_is_not_printed_with_its_password(
    edgenet: Edgenet, tmp_path: Path, address: str
) -> None:
    ran = edgenet("camera", "--source", address, "--view", "none", "--log", tmp_path / "seen.jsonl")
    assert ran.code == 1
    assert re.fullmatch(r"edgenet: .* rtsp://(USER:PASSWORD@)?HOST(:PORT)?/PATH\n", ran.err)


def test_a_clip_may_be_called_as_an_address_is(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "rtsp:a@b?c=d.mp4")
    ran = edgenet("camera", "--source", "rtsp:a@b?c=d.mp4", "--view", "none", "--json", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")


def test_what_the_region_counts_in_is_said(edgenet: Edgenet) -> None:
    said = " ".join(word for word in edgenet("camera", "--help").out.split() if word.isascii())
    assert "The part that the model is shown: pixels of the picture as --rotate turns it." in said


@pytest.mark.skipif(bool(list(Path("/dev").glob("video*"))), reason="this machine has a camera")
def test_without_a_camera_it_says_what_else_there_is(edgenet: Edgenet) -> None:
    ran = edgenet("camera", "--view", "none", "--json")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "no camera opens" in ran.err
    assert "--source" in ran.err


def test_a_damaged_clip_is_said_and_what_it_has_is_answered(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.avi"
    subprocess.run(
        [sys.executable, "-c", "import cv2, sys; v = cv2.VideoCapture(sys.argv[1]); "
         "w = cv2.VideoWriter(sys.argv[2], cv2.VideoWriter.fourcc(*'MJPG'), 20, (320, 240)); "
         "[w.write(v.read()[1]) for _ in range(40)]; w.release()", str(clip), str(damaged)],
        check=True,
    )  # fmt: skip
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    ran = edgenet("camera", "--source", damaged, "--view", "none", "--json")
    if ran.code == 0:
        assert 5 < ran.document["frames"] < 40
        assert ran.err.count("\n") <= 1
    else:
        assert ran.err.count("\n") == 1
    damaged.write_bytes(b"RIFF" + os.urandom(5000))
    ran = edgenet("camera", "--source", damaged, "--view", "none", "--json")
    assert ran.code == 1
    assert ran.err.count("\n") == 1


def test_a_file_without_labels_is_numbered_with_a_warning(edgenet: Edgenet, clip: Path, tmp_path: Path) -> None:
    model = write(tmp_path, "tiny.tflite", tiny_tflite())
    log = tmp_path / "seen.jsonl"
    ran = edgenet("camera", model, "--source", clip, "--view", "none", "--log", log)
    assert ran.code == 0, ran.err
    assert "does not say what its 3 classes are called" in ran.err
    assert lines(log)[0]["label"] in ("class 0", "class 1", "class 2")


def test_on_a_terminal_it_is_asked_which_file_names_the_classes(clip: Path, tmp_path: Path) -> None:
    model = write(tmp_path, "tiny.tflite", tiny_tflite())
    (tmp_path / "names.txt").write_text("rouge\nvert\nbleu\n")
    log = tmp_path / "seen.jsonl"
    with AtTerminal(tmp_path, model, "--source", clip, "--view", "none", "--log", log) as it:
        it.until("tiny.tflite does not say what its 3 classes are called. A file of their names")
        for wrong, why in (
            (b"none.txt", "none.txt: no such label file"),
            (b"~nobody-here/names.txt", "home directory"),
        ):
            it.type(wrong + b"\n")
            assert why in it.until("or Enter for numbers: ")
        it.type(b"names.txt\n")
        assert it.process.wait(15) == 0
    assert {line["label"] for line in lines(log)} <= {"rouge", "vert", "bleu"}


def test_who_does_not_know_gets_numbers_and_what_is_answered_is_not_written_over(clip: Path, tmp_path: Path) -> None:
    model = write(tmp_path, "tiny.tflite", tiny_tflite())
    names = write(tmp_path, "names.txt", b"rouge\nvert\nbleu\n")
    with AtTerminal(tmp_path, model, "--source", clip, "--view", "none", "--log", names) as it:
        it.until("or Enter for numbers: ")
        it.type(b"names.txt\n")
        assert "that is the file of --labels; choose another" in it.until("or Enter for numbers: ")
        assert names.read_bytes() == b"rouge\nvert\nbleu\n"
        it.type(b"\x03")
        it.until("interrupted")
        assert it.process.wait(5) == 130
    with AtTerminal(tmp_path, model, "--source", clip, "--view", "none", "--log", tmp_path / "seen.jsonl") as it:
        it.until("or Enter for numbers: ")
        it.type(b"\n")
        it.until("--labels FILE names them")
        assert it.process.wait(15) == 0
    assert lines(tmp_path / "seen.jsonl")[0]["label"] in ("class 0", "class 1", "class 2")


def test_in_the_background_of_a_terminal_nothing_is_asked(clip: Path, tmp_path: Path) -> None:
    """Reading would stop it: "Stopped (tty input)"."""
    model = write(tmp_path, "tiny.tflite", tiny_tflite())
    script = (
        f"set -m; {sys.executable} -m edgenet camera {model} --source {clip} --view none --log {tmp_path}/seen.jsonl & "
        "wait $!; echo ended with $?; sleep 9"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", script],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes their terminal
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"ended with 0\n"
        os.killpg(shell.pid, signal.SIGKILL)
    for end in (ours, theirs):
        os.close(end)
    assert lines(tmp_path / "seen.jsonl")[0]["label"] in ("class 0", "class 1", "class 2")


def test_two_opencvs_that_overwrite_each_other_are_named_with_the_cure(clip: Path, tmp_path: Path) -> None:
    for name in ("opencv-python", "opencv-python-headless"):
        folder = tmp_path / f"{name.replace('-', '_')}-4.12.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.12.0\n")
    path = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    with Started(tmp_path, "--source", clip, "--view", "none", "--json", PYTHONPATH=path) as it:
        assert it.ends(15) == 0
        assert it.err.count("\n") == 1
        assert "they overwrite each other's files" in it.err
        assert "pip uninstall -y opencv-python opencv-python-headless" in it.err


# Light.


@pytest.mark.parametrize("view", ["none", "terminal", "web"])
def test_it_runs_without_tensorflow(clip: Path, tmp_path: Path, view: str) -> None:
    """What is not installed on a Raspberry Pi cannot be imported here either."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "onnx", "tf2onnx", "h5py", "ai_edge_quantizer"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from edgenet.__main__ import main
main()
"""
    log = tmp_path / "seen.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, "camera", "--source", clip, "--view", view, "--log", log],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(lines(log)) == 40


def test_a_recording_is_the_only_file_it_leaves(clip: Path, tmp_path: Path) -> None:
    with Started(
        tmp_path, "--source", clip, "--view", "none", "--record", "out.mp4", "--rotate", "90", "--mirror"
    ) as it:
        assert it.ends(15) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "out.mp4",
        "stderr.txt",
        "stdout.txt",
    ]
    frames, _ = frames_of(tmp_path / "out.mp4")
    assert frames[0].shape[0] > frames[0].shape[1]


# What options mean.


def test_a_recording_is_turned_clockwise_and_not_mirrored(edgenet: Edgenet, tmp_path: Path) -> None:
    image, video = np.zeros((480, 640, 3), np.uint8), tmp_path / "out.mp4"
    image[:200, :200] = 255
    Image.fromarray(image).save(tmp_path / "corner.png")
    shown = ("--source", tmp_path / "corner.png", "--view", "none", "--record", video)
    ran = edgenet("camera", *shown, "--rotate", 90, "--mirror")
    assert ran.code == 0, ran.err
    (frame,), _ = frames_of(video)
    assert frame.shape == (640, 480, 3)
    assert frame[20:180, 300:460].mean() > 200  # what was at the upper left is at the upper right
    assert frame[460:580, 20:180].mean() < 50
    assert frame[460:580, 300:460].mean() < 50


def test_answers_are_averaged_over_as_many_seconds_as_were_asked_for_which_nobody_has_to_wait_for(
    edgenet: Edgenet, tmp_path: Path
) -> None:
    import cv2

    from edgenet.symbols.generate import render

    log, clip = tmp_path / "seen.jsonl", tmp_path / "two.mp4"
    video = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 1, (96, 96))
    for number in range(30):
        video.write(render(number // 15, 17, 96))
    video.release()
    ran = edgenet("camera", "--source", clip, "--view", "none", "--log", log, "--smooth", 100, "--top", 20, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["seconds"] < 15  # of a clip of 30
    seen = [sorted(one["top"], key=lambda ranked: ranked["index"]) for one in lines(log)]
    raw, smoothed = (np.array([[ranked[kind] for ranked in one] for one in seen]) for kind in ("raw", "smoothed"))
    average = raw[0]
    for alone, shown in zip(raw, smoothed, strict=True):
        average = average + (1 - np.exp(-1 / 100)) * (alone - average)  # a frame a second
        assert shown == pytest.approx(average, abs=1e-5)
    assert np.abs(smoothed - raw).max() > 0.3
