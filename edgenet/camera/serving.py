"""The page of one run: where it is served, what the user is told of that, and the phone that it is opened on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from edgenet.camera.classifier import FileClassifier
from edgenet.camera.frame import Controls
from edgenet.camera.phone import PhonePage
from edgenet.camera.sources.browser import FrameInbox
from edgenet.camera.web.routes import InPage
from edgenet.camera.web.security import is_loopback
from edgenet.camera.web.server import WebView
from edgenet.camera.wishes import LOOPBACK, Voice, Wishes
from edgenet.errors import EdgenetError

PORT = 8080
"""Where the page is, unless somebody else is there."""


def serve(
    wishes: Wishes,
    controls: Controls,
    voice: Voice,
    stack: contextlib.ExitStack,
    opened: Callable[[], None],
    *,
    inbox: FrameInbox | None = None,
    model: FileClassifier | None = None,
) -> WebView:
    """Serve the page, and say where it is, once `opened` knows; `stack` closes it. model: it runs in the page."""
    phone = PhonePage() if wishes.phone else None
    page = _started(wishes, controls, inbox, model)
    stack.callback(page.close)
    if phone is not None:
        stack.callback(phone.close)
        phone.open(page.port, page.local_url)
    opened()
    voice.say(f"open {page.url}")
    if phone is None and wishes.host == LOOPBACK and (tunnel := _tunnel(page.port)):
        voice.say(f"that is for this machine alone; where you sit it opens after: {tunnel}")
    if phone is None and wishes.browsers_camera and wishes.tls is None and not is_loopback(wishes.host):
        voice.warn(
            "browsers on other devices give a page without TLS no camera: "
            "give --tls-cert FILE --tls-key FILE, or --phone for one that adb sees"
        )
    return page


def _tunnel(port: int) -> str:
    """Return what brings a port of ours to the machine that somebody has come from by ssh; "" where nobody has."""
    came = os.environ.get("SSH_CONNECTION", "").split()  # from which address and port, to which
    if len(came) != 4:
        return ""
    user = f"{name}@" if (name := os.environ.get("USER")) else ""
    return f"ssh -L {port}:127.0.0.1:{port} {'' if came[3] == '22' else f'-p {came[3]} '}{user}{came[2]}"


def _started(wishes: Wishes, controls: Controls, inbox: FrameInbox | None, model: FileClassifier | None) -> WebView:
    """Start the page's server: where the user said, else on PORT, else wherever there is room."""

    def started(port: int) -> WebView:
        in_page = InPage(smooth_s=wishes.settings.smooth_s, top=wishes.settings.top)
        cut = wishes.settings.region is not None
        page = WebView(controls, wishes.host, port, wishes.token, inbox, wishes.tls, in_page, cut)
        if model is not None:
            in_page.labels = model.labels
            in_page.use(model.artifact.path, model.artifact)
        page.start()
        return page

    try:
        return started(PORT if wishes.port is None else wishes.port)
    except EdgenetError:
        if wishes.port is not None:
            raise
        return started(0)
