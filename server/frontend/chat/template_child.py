"""The process that renders chat templates for mnemod: it answers requests from a socket and has access to nothing else.

A frame is a length of four bytes, little-endian, and that number of bytes. A request is JSON. An answer is a JSON header
preceded by its own length, then the rendered text in UTF-8.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

import jinja2.debug  # noqa: F401: modules imported on demand must be loaded before files are out of reach
import pprint  # noqa: F401
import textwrap  # noqa: F401
import traceback  # noqa: F401
import urllib.parse  # noqa: F401

import jinja2
import template_environment
import tracked_text

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
# AUDIT_ARCH of linux/audit.h, and the numbers of the allowed system calls: read, write, send, receive,
# memory, signals, clocks, locks, random numbers and exit.
_ALLOWED = {
    "x86_64": (
        0xC000003E,
        "0 1 3 9 10 11 12 13 14 15 20 25 28 35 38 44 45 47 46 60 98 131 186 201 202 219 228 229 230 231 318 334",
    ),
    "aarch64": (
        0xC00000B7,
        "57 63 64 66 93 94 98 99 101 103 113 114 115 128 132 134 135 139 165 178 206 207 211 212 214 215 216 222 226 233 278 293",
    ),
}


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter))]


def _restrict_calls() -> bool:
    """Allows only the system calls of _ALLOWED from here on: linux/seccomp.h, linux/filter.h. False where unavailable."""
    if platform.machine() not in _ALLOWED:
        return False
    architecture, numbers = _ALLOWED[platform.machine()]
    allowed = [int(number) for number in numbers.split()]
    load_word, jump_equal, leave = 0x20, 0x15, 0x06
    program = [
        _Filter(load_word, 0, 0, 4),  # seccomp_data.arch
        _Filter(jump_equal, 1, 0, architecture),
        _Filter(leave, 0, 0, _RET_ERRNO | errno.EPERM),
        _Filter(load_word, 0, 0, 0),  # seccomp_data.nr
    ]
    program += [_Filter(jump_equal, len(allowed) - index, 0, number) for index, number in enumerate(allowed)]
    program += [_Filter(leave, 0, 0, _RET_ERRNO | errno.EPERM), _Filter(leave, 0, 0, _RET_ALLOW)]
    array = (_Filter * len(program))(*program)
    libc = ctypes.CDLL(None, use_errno=True)
    described = _Program(len(program), array)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) == 0


def _confine(memory_bytes: int) -> bool:
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, memory_bytes),
        # All descriptors below this number are in use, so no file or socket can be opened.
        (resource.RLIMIT_NOFILE, 5),
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    return _restrict_calls()


def _read(fd: int, count: int) -> bytes:
    parts = []
    while count > 0:
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            os._exit(0)  # mnemod has ended
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _read_frame(fd: int) -> bytes:
    return _read(fd, struct.unpack("<I", _read(fd, 4))[0])


def _write_frame(fd: int, header: "dict[str, Any]", text: bytes = b"") -> None:
    head = json.dumps(header).encode()
    data = memoryview(struct.pack("<II", 4 + len(head) + len(text), len(head)) + head + text)
    while data:
        data = data[os.write(fd, data) :]


class _Child:
    def __init__(self, setup: "dict[str, Any]") -> None:
        self.output_bytes = setup["output_bytes"]
        self.guard_seconds = setup["timeout_ms"] / 1000 + 2
        tracked_text.set_control_tokens(setup["control_tokens"])
        self.templates: dict[str, template_environment.ChatTemplate] = {}
        self.errors: dict[str, str] = {}
        for name, source in setup["templates"].items():
            try:
                self.templates[name] = template_environment.ChatTemplate(source, setup["special_tokens"])
            except template_environment.TemplateError as error:
                self.errors[name] = str(error)

    def answer(self, body: bytes) -> "tuple[dict[str, Any], bytes]":
        kind, message = "template", ""
        try:
            chat = json.loads(body)
            text = self.templates[chat.get("template", "default")].render(chat, self.output_bytes)
            encoded = str.__str__(text).encode()
            if len(encoded) > self.output_bytes:
                raise template_environment.OutputTooLarge
            return {"literal": tracked_text.byte_ranges(text)}, encoded
        except template_environment.FieldError as error:
            kind, message = "field", str(error)
        except template_environment.OutputTooLarge:
            kind = "output"
        except MemoryError:
            kind = "memory"
        except RecursionError:
            message = "it calls itself too deeply"
        except jinja2.exceptions.TemplateRuntimeError as error:
            message = str(error)
        except jinja2.exceptions.TemplateError as error:
            message = str(error.message if error.message is not None else "")
        except tracked_text.Mixed as error:
            message = str(error)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        return {"error": kind, "message": message[:2000].encode("utf-8", "replace").decode()}, b""

    def warm(self) -> None:
        """Renders typical template operations once, so that the first request has no initialisation left to do."""
        chat = {
            "messages": [{"role": "user", "content": "a"}],
            "template_args": {},
            "add_generation_prompt": True,
            "continue_final_message": False,
        }
        body = json.dumps(chat).encode()
        self.answer(body)
        warmer = template_environment.ChatTemplate("{{ strftime_now('%d %b %Y') }}{{ messages | tojson }}{{ x.y.z }}", {})
        try:
            warmer.render(chat, 1 << 20)
        except jinja2.exceptions.TemplateError:
            pass


def run(fd: int) -> None:
    setup = json.loads(_read_frame(fd))
    child = _Child(setup)
    child.warm()
    gc.collect()
    gc.freeze()
    restricted = _confine(setup["memory_bytes"])
    _write_frame(fd, {"ready": True, "errors": child.errors, "restricted": restricted, "jinja2": jinja2.__version__})
    while True:
        body = _read_frame(fd)
        # Ends an endless loop even when no process is left to kill this one.
        signal.setitimer(signal.ITIMER_REAL, child.guard_seconds)
        header, text = child.answer(body)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write_frame(fd, header, text)
        if header.get("error") == "memory":
            sys.exit(0)  # the state of that request ends with the process
