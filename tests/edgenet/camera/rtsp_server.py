"""A real RTSP server, GStreamer's, that shows a stamped camera: H.264 over RTP, coded without delay.

In constant quality and one slice a picture: on a busy machine pictures come in bursts, in which a rate would have to be
held by leaving out what changed. It needs Debian's Python, which has GStreamer's bindings, so it runs this very file
with that one; see PACKAGES.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-ugly"
)
USER, PASSWORD = "viewer", "s3cret-word"
_PYTHON = Path("/usr/bin/python3")
_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
names = "souphttpsrc multipartdemux jpegdec videoconvert x264enc rtph264pay"
raise SystemExit(any(Gst.ElementFactory.find(name) is None for name in names.split()))
"""


class RtspServer:
    """The server, seen from a test: a context manager. Skips the test where its packages are missing.

    key_frames: one in so many. login: ask for USER and PASSWORD.
    """

    def __init__(self, camera_url: str, key_frames: int = 30, login: bool = False) -> None:
        if not _PYTHON.exists() or subprocess.run([_PYTHON, "-c", _PROBE], capture_output=True, check=False).returncode:
            import pytest  # not above: Debian's Python has none

            pytest.skip(f"no RTSP server; try: apt-get install {PACKAGES}")
        self._arguments = [camera_url, str(key_frames), str(int(login))]
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The stream's address."""
        return self.at("live")

    def at(self, path: str, login: str = "") -> str:
        """Return the address of a path; login: "user:password"."""
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Come back, on the same port as before."""
        command = [str(_PYTHON), __file__, str(self.port), *self._arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())

    def hang(self) -> None:
        """Stop running, as a crashed camera does: connections are taken by the kernel, and nothing is answered."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Die at once. Harmless twice."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def main(port: str, camera_url: str, key_frames: str, login: str) -> None:
    """Serve /live until killed; print the port."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_latency(0)
    factory.set_launch(
        f"( souphttpsrc location={camera_url} is-live=true do-timestamp=true ! multipartdemux ! jpegdec ! videoconvert "
        "! video/x-raw,format=I420 ! x264enc tune=zerolatency threads=1 speed-preset=ultrafast pass=quant quantizer=24 "
        f"key-int-max={key_frames} ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    if login == "1":
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
        server.set_auth(auth)
        rights = Gst.Structure.from_string("viewer, media.factory.access=true, media.factory.construct=true;")[0]
        factory.add_role_from_structure(rights)
    server.connect("client-connected", lambda _, client: client.set_property("drop-backlog", False))
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
