"""A phone for tests: the device's side of the adb protocol over TCP, for the real adb binary to talk to.

Commands run for real, with /bin/sh on this machine; what a test can choose is how the phone misbehaves. There is no
sync service (adb push): files travel on a command's standard input; what `adb reverse` asks for is noted, and no port
is opened. Protocol: AOSP, packages/modules/adb, protocol.txt
and shell_protocol.h. One thread a connection reads its packets; each command has threads of its own.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

VERSION = 0x01000001  # of the protocol; a peer older than this wants a checksum on every packet
MAX_PAYLOAD = 1 << 20
TOKEN, PUBLIC_KEY = 1, 3  # the kinds of AUTH that matter here; 2 is a signature, which is never enough
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # the frames of shell_v2


class Packet(NamedTuple):
    command: bytes  # four letters
    first: int
    second: int
    payload: bytes = b""


class Stream:
    """A service that the host opened: bytes both ways; each packet of ours waits for the host's OKAY."""

    def __init__(self, link: Link, ours: int, theirs: int) -> None:
        self.link, self.ours, self.theirs = link, ours, theirs
        self._closed = False
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._rest = b""
        self._acknowledged = threading.Semaphore(0)
        self._writing = threading.Lock()

    def write(self, data: bytes) -> None:
        """Send; raises ConnectionResetError where the host has gone."""
        with self._writing:
            for start in range(0, len(data), self.link.max_payload):
                if not self._closed:
                    piece = data[start : start + self.link.max_payload]
                    self.link.send(Packet(b"WRTE", self.ours, self.theirs, piece))
                    self._acknowledged.acquire()
                if self._closed:
                    raise ConnectionResetError

    def read(self, count: int) -> bytes:
        """Receive exactly so many bytes; raises EOFError where the host closed first."""
        while len(self._rest) < count:
            self._rest += self.read_some()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def read_some(self) -> bytes:
        data = self._arrived.get()
        if data is None:
            self._arrived.put(None)
            raise EOFError
        self.link.send(Packet(b"OKAY", self.ours, self.theirs))
        return data

    def take(self, packet: Packet) -> None:
        if packet.command == b"OKAY":
            self._acknowledged.release()
        elif packet.command == b"WRTE":
            self._arrived.put(packet.payload)

    def end(self) -> None:
        """Wake whoever reads or writes: there is nobody there any more."""
        self._closed = True
        self._arrived.put(None)
        self._acknowledged.release()


class Link:
    """One connection of an adb server."""

    def __init__(self, phone: Adbd, connection: socket.socket) -> None:
        self.phone, self._socket = phone, connection
        self.max_payload, self._peer = 4096, 0
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._sending = threading.Lock()
        self._reversed: dict[str, str] = {}  # those of this connection alone

    def serve(self) -> None:
        """Read packets until the connection ends."""
        with suppress(OSError, EOFError):
            while True:
                number, first, second, size, _, _ = struct.unpack("<6I", self._read(24))
                self._handle(Packet(number.to_bytes(4, "little"), first, second, self._read(size)))
        self.drop()
        self.phone.links.discard(self)
        for stream in list(self._streams.values()):
            stream.end()
        self._socket.close()

    def send(self, packet: Packet) -> None:
        number = int.from_bytes(packet.command, "little")
        checksum = sum(packet.payload) & 0xFFFFFFFF if self._peer < VERSION else 0
        head = (number, packet.first, packet.second, len(packet.payload), checksum, number ^ 0xFFFFFFFF)
        with self._sending:
            self._socket.sendall(struct.pack("<6I", *head) + packet.payload)

    def drop(self) -> None:
        """End the connection, at once and without a word."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def greet(self) -> None:
        """Say what the phone is: adb calls it by its mode from now on."""
        properties = f"ro.product.name=lynx;ro.product.model={self.phone.model};ro.product.device=lynx;"
        text = f"{self.phone.mode}::{properties}features={','.join(self.phone.features)}"
        self.send(Packet(b"CNXN", VERSION, MAX_PAYLOAD, text.encode()))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _handle(self, packet: Packet) -> None:
        stream = self._streams.get(packet.second)
        if packet.command == b"CNXN":
            self._peer, self.max_payload = packet.first, min(MAX_PAYLOAD, packet.second)
            if self.phone.unauthorized:
                self.send(Packet(b"AUTH", TOKEN, 0, os.urandom(20)))
            else:
                self.greet()
        elif packet.command == b"AUTH":
            if packet.first != PUBLIC_KEY:  # once the key itself is here, the question is on the screen
                self.send(Packet(b"AUTH", TOKEN, 0, os.urandom(20)))
        elif packet.command == b"OPEN":
            self._open(packet.first, packet.payload.rstrip(b"\0"))
        elif stream and packet.command == b"CLSE":
            stream.end()
            self._close(stream)
        elif stream:
            stream.take(packet)

    def _open(self, theirs: int, request: bytes) -> None:
        self._opened += 1
        stream = self._streams[self._opened] = Stream(self, self._opened, theirs)
        known = request.startswith((b"shell:", b"shell,", b"exec:", b"reboot:", b"reverse:"))
        if known:
            self.send(Packet(b"OKAY", stream.ours, theirs))
        if request.startswith(b"reboot:"):
            threading.Thread(target=self.phone.reboot, daemon=True).start()
        elif request.startswith(b"reverse:"):
            self.phone.start_thread(self._reverse, stream, request.decode().removeprefix("reverse:"))
        elif known:
            self.phone.start_thread(self._run, stream, request)
        else:
            self._close(stream)

    def _reverse(self, stream: Stream, request: str) -> None:
        """Forward a port of the phone's: forward:THEIRS;OURS, killforward:THEIRS, list-forward."""
        answer = self.phone.reverse_answer
        if request == "list-forward":
            text = "".join(f"UsbFfs {theirs} {ours}\n" for theirs, ours in self._reversed.items())
            answer = f"{len(text):04x}{text}".encode()
        else:
            self.phone.reversed.append(request)
            verb, _, ports = request.partition(":")
            theirs, _, ours = ports.partition(";")
            if verb == "forward":
                self._reversed[theirs] = ours
            else:
                self._reversed.pop(theirs, None)
        with suppress(OSError, EOFError):
            stream.write(answer)
            self._close(stream)

    def _run(self, stream: Stream, request: bytes) -> None:
        with suppress(OSError, EOFError):
            Command(self.phone, stream, request).run()
        with suppress(OSError):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        if self._streams.pop(stream.ours, None):  # once, whoever closes first
            self.send(Packet(b"CLSE", stream.ours, stream.theirs))


class Command:
    """shell:COMMAND, shell,v2,raw:COMMAND and exec:COMMAND; v2 keeps stdout, stderr and the exit status apart."""

    def __init__(self, phone: Adbd, stream: Stream, request: bytes) -> None:
        kind, text = request.split(b":", 1)
        self._phone, self._stream = phone, stream
        self._framed = b"v2" in kind.split(b",")
        self._process = subprocess.Popen(
            [*phone.prefix, "/bin/sh", "-c", os.fsdecode(text)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self._framed else subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "TMPDIR": "/data/local/tmp"},
            cwd="/",
            start_new_session=True,
        )

    def run(self) -> None:
        """Carry bytes until the command has ended."""
        with self._process as process:
            feeder = self._phone.start_thread(self._feed)
            outputs = [(process.stdout, STDOUT), (process.stderr, STDERR)]
            pumps = [self._phone.start_thread(self._pump, pipe, number) for pipe, number in outputs if pipe]
            for pump in pumps:
                pump.join()
            status = process.wait()
            if self._framed:
                with suppress(OSError):
                    self._send(EXIT, bytes([status & 255 if status >= 0 else 128 - status]))
            self._stream.end()
            feeder.join()

    def _pump(self, pipe: IO[bytes], number: int) -> None:
        with suppress(OSError), pipe:  # closed where nobody listens: the command is not to block on it
            while data := os.read(pipe.fileno(), 64 << 10):
                self._send(number, data)
                self._phone.spend("drop_output_after", len(data))

    def _send(self, number: int, data: bytes) -> None:
        self._stream.write(struct.pack("<BI", number, len(data)) + data if self._framed else data)

    def _feed(self) -> None:
        stdin = self._process.stdin
        assert stdin
        with suppress(OSError, EOFError):
            while True:
                number, data = self._frame()
                if number == CLOSE_STDIN:
                    stdin.close()
                elif number == STDIN and not stdin.closed:
                    self._phone.spend("drop_input_after", len(data))
                    stdin.write(data)
                    stdin.flush()
        with suppress(OSError):
            stdin.close()

    def _frame(self) -> tuple[int, bytes]:
        if not self._framed:
            return STDIN, self._stream.read_some()
        number, size = struct.unpack("<BI", self._stream.read(5))
        return number, self._stream.read(size)


@dataclass(slots=True)
class Adbd:
    """A phone on a port of 127.0.0.1. A context manager; what its commands started outlives it.

    Attributes:
        model: as `adb devices -l` shows it. mode: "device", or "recovery" or "sideload".
        features: what its adbd can do; Android 6 lacks "shell_v2".
        prefix: of each command: ("chroot", ROOT) runs it in another root file system.
        port: chosen where 0.
        unauthorized: nobody accepts the question on its screen, until allow().
        mute: it takes connections and drops them, which adb calls offline.
        reversed: what `adb reverse` asked for. reverse_answer: what it is told.
        drop_input_after, drop_output_after: the connection ends, once, after so many bytes of a command's.
    """

    model: str = "Pixel_7a"
    mode: str = "device"
    features: Sequence[str] = ("shell_v2", "cmd")
    prefix: Sequence[str] = ()
    port: int = 0
    unauthorized: bool = False
    mute: bool = False
    drop_input_after: int | None = None
    drop_output_after: int | None = None
    reversed: list[str] = field(default_factory=list)
    reverse_answer: bytes = b"OKAY"
    links: set[Link] = field(default_factory=set)
    _door: socket.socket | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def serial(self) -> str:
        """What adb calls it, after `adb connect`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Adbd:
        self.switch_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()
        for thread in self._threads:
            thread.join(10)

    def switch_on(self) -> None:
        """Listen, on the same port as before."""
        self._door = socket.create_server(("127.0.0.1", self.port))
        self.port = self._door.getsockname()[1]
        self.start_thread(self._accept, self._door)

    def switch_off(self) -> None:
        """Stop listening, and drop who is connected."""
        if self._door:
            with suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)  # wakes accept()
            self._door.close()
            self._door = None
        self.drop()

    def drop(self) -> None:
        """End every connection; the next one is welcome."""
        for link in list(self.links):
            link.drop()

    def reboot(self, seconds: float = 1.0) -> None:
        self.switch_off()
        time.sleep(seconds)
        self.switch_on()

    def allow(self) -> None:
        """Accept the question on the screen."""
        self.unauthorized = False
        for link in list(self.links):
            link.greet()

    def spend(self, fault: str, count: int) -> None:
        """Count bytes against a fault, and drop the connection where they are too many."""
        left = getattr(self, fault)
        if left is None:
            return
        setattr(self, fault, left - count if left > count else None)
        if left <= count:
            self.drop()
            raise ConnectionResetError

    def start_thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        """Start a thread that __exit__ waits for."""
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = door.accept()
                if self.mute:
                    connection.close()
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = Link(self, connection)
                self.links.add(link)
                self.start_thread(link.serve)


def main() -> None:
    """Be a phone in a process of its own: prints its port, ends with its standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("prefix", nargs="*", help="of each command, for example: chroot FOLDER")
    chosen = parser.parse_args()
    with Adbd(port=chosen.port, prefix=chosen.prefix) as phone:
        print(phone.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
