from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edgenet.camera.sources.opening import open_source
from tests.edgenet.camera import rtsp_server
from tests.edgenet.camera.mjpeg_camera import MjpegCamera, age_ms
from tests.edgenet.camera.rtsp_server import RtspServer
from tests.edgenet.camera.watching import NOTICED_S, SMALL, Watch, refusal, watching


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera(fps=30, size=SMALL) as camera:
        yield camera


@pytest.mark.slow
def test_rtsp_stalls_hangs_dies_and_comes_back(camera: MjpegCamera) -> None:
    with RtspServer(camera.url) as server, watching(server.url) as watch:
        first = watch.frame()[0]
        assert age_ms(first.image, first.captured_ns) < 500  # about a second of backlog, without our options
        frames = [first, *(watch.frame()[0] for _ in range(59))]
        assert [frame.id for frame in frames] == list(range(60))
        now_ns = time.monotonic_ns()
        ages = [age_ms(frame.image, now_ns) for frame in frames]
        assert ages == sorted(ages, reverse=True)
        assert watch.source.name == f"{server.url}, 640x368"

        server.kill()
        text, seconds = watch.trouble()
        assert "the stream ended" in text
        assert seconds < 1
        server.start()
        assert watch.frame()[0].id > frames[-1].id

        camera.stall()
        text, seconds = watch.trouble()
        assert "no picture comes any more" in text
        assert seconds < NOTICED_S
        assert "trying again in 0.5 s" in watch.trouble()[0]
        camera.resume()
        assert age_ms(watch.frame()[0].image) < 1000

        server.hang()
        text, seconds = watch.trouble()
        assert seconds < NOTICED_S
        assert "no answer in 2 s" in watch.trouble("no answer")[0]
        assert watch.ended_after() < 1
        assert "no answer in 2 s" in refusal(server.url)


def test_closing_does_not_wait_for_a_server_that_hangs(camera: MjpegCamera) -> None:
    with RtspServer(camera.url) as server:
        watch = Watch(open_source(server.url))
        watch.frame()
        server.hang()
        time.sleep(0.3)
        start = time.monotonic()
        watch.close()
        assert not watch.source._thread.is_alive()
        assert time.monotonic() - start < 1


@pytest.mark.slow
def test_rtsp_waits_longer_for_its_first_key_frame_than_for_a_picture(camera: MjpegCamera) -> None:
    """One key frame in 5 s, as cameras have it: whoever gives up after 2 s never sees a picture."""
    with RtspServer(camera.url, key_frames=150) as server, watching(server.url) as first:
        first.frame()
        time.sleep(0.5)
        with watching(server.url) as second:
            assert second.frame()[1] < 10


def test_an_rtsp_login_is_used_and_never_shown(camera: MjpegCamera, capfd: pytest.CaptureFixture[str]) -> None:
    user, password = rtsp_server.USER, rtsp_server.PASSWORD
    with RtspServer(camera.url, login=True) as server:
        with watching(server.at("live", f"{user}:{password}")) as watch:
            watch.frame()
            shown = watch.source.name
            server.kill()
            shown += watch.trouble()[0] + watch.trouble()[0]
        server.start()
        assert "wants a user name and a password" in refusal(server.url)
        assert "refuses this user name and password" in refusal(server.at("live", f"{user}:not-{password}"))
        assert "no such path" in refusal(server.at("nothing", f"{user}:{password}"))
        assert "is no RTSP server" in refusal(camera.url.replace("http", "rtsp"))
        printed = capfd.readouterr()
        assert password not in shown + printed.out + printed.err
