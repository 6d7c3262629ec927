"""Cameras by address: MJPEG over HTTP read by ourselves, RTSP and everything else by FFMPEG."""

from __future__ import annotations

from edgenet.camera.sources.address import Address
from edgenet.camera.sources.ffmpeg import FfmpegCamera
from edgenet.camera.sources.live import LiveSource
from edgenet.camera.sources.mjpeg import HttpCamera, OtherContentError
from edgenet.errors import SourceError

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "tcp", "udp", "srt")


def open_url(text: str) -> LiveSource:
    """Open a camera by its address. Raises SourceError; no message holds a password.

    http, https: MJPEG (multipart/x-mixed-replace), with Basic or Digest login where the address holds "user:password@";
    what is another stream (HLS, MPEG-TS) goes to FFMPEG, as do all other schemes.
    """
    address = Address.parse(text)
    if address.scheme not in SCHEMES:
        raise SourceError(f"{address.shown}: no camera is reached by {address.scheme}://; known: {', '.join(SCHEMES)}")
    if address.scheme in ("http", "https"):
        try:
            return LiveSource(HttpCamera(address))
        except SourceError as exc:
            if not isinstance(exc.__cause__, OtherContentError):
                raise
            _refuse_stills_and_files(address, exc.__cause__)
    return LiveSource(FfmpegCamera(address))


def _refuse_stills_and_files(address: Address, content: OtherContentError) -> None:
    """Raise SourceError for what is no stream at all, with what to do instead."""
    if content.kind in ("text/html", "application/xhtml+xml"):
        raise SourceError(
            f"{address.shown}: this is a web page, not a stream; its stream has an address of its own, often /video, "
            "/stream.mjpg, /mjpg/video.mjpg or /?action=stream"
        )
    if content.kind.startswith("image/"):
        raise SourceError(f"{address.shown}: this is one picture, not a stream; give the camera's MJPEG address")
    if content.kind.startswith("video/") and content.bounded:
        raise SourceError(f"{address.shown}: this is a clip, not a camera; download it and give its path")
