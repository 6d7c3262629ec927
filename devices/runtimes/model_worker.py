"""The child that holds one model file: it reads requests on fd 0 and answers on what was fd 1.

Nothing that a native library prints can reach the answers: fd 1 is pointed at stderr before anything is imported.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from devices.errors import DeviceError, ModelUnreadable
from devices.runtimes.runtime import Session, output_hash, run
from devices.runtimes.session import open_session
from devices.runtimes.timing import Schedule, peak_rss_bytes, time_session
from devices.runtimes.wire import Kind, Message, receive, send

_LOG_BYTES = 16 << 20


def memory_limit(file_bytes: int) -> int:
    """Bytes of address space one model may take: a corrupt file that asks for petabytes dies alone."""
    return (8 << 30) + 20 * file_bytes


def main() -> None:
    """Serve requests until the parent is gone."""
    # What ends the parent reaches the whole group, too; it may still need answers, and decides when this one ends.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb")
    session: Session | None = None
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        _end_after(float(request.fields["alarm_s"]))
        try:
            if request.kind is Kind.OPEN:
                session = _open(request, answers)
            elif session is not None:
                _answer(session, request, answers)
        except DeviceError as exc:
            send(answers, Kind.ERROR, {"error": type(exc).__name__, "message": str(exc)})
        except MemoryError:
            send(answers, Kind.ERROR, {"error": ModelUnreadable.__name__, "message": "it asks for too much memory"})
        except BrokenPipeError:
            return
        _end_after(0)


def _open(request: Message, answers: BinaryIO) -> Session:
    path = Path(request.fields["path"])
    _limit(path.stat().st_size)
    session = open_session(path, int(request.fields["threads"]))
    send(answers, Kind.INFO, dataclasses.asdict(session.info))
    return session


def _answer(session: Session, request: Message, answers: BinaryIO) -> None:
    if request.kind is Kind.RUN:
        tensor = session.info.inputs[0]
        images = np.frombuffer(request.payload, tensor.dtype).reshape(-1, *tensor.shape)
        for image in images:
            send(answers, Kind.ROW, None, run(session, image))
    elif request.kind is Kind.TIME:
        schedule = Schedule(**request.fields["schedule"])
        from devices.machine import machine_state  # a tenth of the time that opening a file takes

        samples, warmed, warm, end = time_session(session, schedule, machine_state)
        fields = {
            "warmup_runs": warmed,
            "load_ms": session.info.load_ms,
            "first_ms": session.info.first_ms,
            "peak_rss_bytes": peak_rss_bytes(),
            "output_hash": output_hash(session.output()),
            "warm": dataclasses.asdict(warm),
            "end": dataclasses.asdict(end),
        }
        send(answers, Kind.TIMES, fields, samples)


def _limit(file_bytes: int) -> None:
    """Cap memory and what stderr may fill; leave no core file."""
    try:
        import resource
    except ImportError:  # Windows has none of these limits
        return
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: _LOG_BYTES}
    if sys.platform == "linux":  # macOS accepts RLIMIT_AS and heeds it not
        wanted[resource.RLIMIT_AS] = memory_limit(file_bytes)
    for what, limit in wanted.items():
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(what, (min(limit, sys.maxsize), hard))


def _end_after(seconds: float) -> None:
    """Let the kernel end this process, should it compute for ever after its parent died; 0 calls that off.

    seconds: of processors, all threads together: those in which it is stopped (Ctrl-Z) do not count.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
