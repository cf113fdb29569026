"""The process that renders chat templates, started as mnemod starts it; tests use its own protocol."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
import subprocess
from typing import Any

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "server" / "frontend" / "chat"
MODULES = ["tracked_text", "template_environment", "template_child"]
INTERPRETER = "/usr/bin/python3"
BOOT = (SOURCES / "boot.py").read_text()
CHANNEL = 4


class Child:
    def __init__(
        self,
        templates: dict[str, str],
        special_tokens: dict[str, str],
        control_tokens: list[str],
        timeout_ms: int = 2000,
        memory_bytes: int = 1 << 30,
        output_bytes: int = 64 << 20,
    ) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours

        def place() -> None:
            os.dup2(theirs.fileno(), CHANNEL)

        self.process = subprocess.Popen(
            [INTERPRETER, "-I", "-c", BOOT],
            preexec_fn=place,
            pass_fds=[CHANNEL],
            close_fds=True,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.send([[name, (SOURCES / f"{name}.py").read_text()] for name in MODULES])
        self.send(
            {
                "templates": templates,
                "special_tokens": special_tokens,
                "control_tokens": control_tokens,
                "timeout_ms": timeout_ms,
                "memory_bytes": memory_bytes,
                "output_bytes": output_bytes,
            }
        )
        self.hello = json.loads(self._receive()[4:])

    def close(self) -> None:
        self._socket.close()
        self.process.wait(timeout=10)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self._socket.sendall(struct.pack("<I", len(data)) + data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise EOFError("the process has ended")
            data += part
        return data

    def _receive(self) -> bytes:
        return self._exactly(struct.unpack("<I", self._exactly(4))[0])

    def render(self, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The header of the answer and the text."""
        self.send(request)
        body = self._receive()
        length = struct.unpack("<I", body[:4])[0]
        return json.loads(body[4 : 4 + length]), body[4 + length :].decode()
