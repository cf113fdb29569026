"""Errors: one exception class for each gRPC status that a caller may want to tell apart."""

from __future__ import annotations

from collections.abc import Iterable

import grpc


class MnemoError(Exception):
    """A call that failed.

    code: name of the gRPC status, such as "RESOURCE_EXHAUSTED".
    message: the daemon's text.
    retry_after: seconds after which it asked to be called again, or None. Negative: do not retry.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Cancelled(MnemoError):
    pass


class InvalidArgument(MnemoError):
    pass


class DeadlineExceeded(MnemoError):
    pass


class NotFound(MnemoError):
    pass


class ResourceExhausted(MnemoError):
    pass


class FailedPrecondition(MnemoError):
    pass


class Unimplemented(MnemoError):
    pass


class Internal(MnemoError):
    pass


class Unavailable(MnemoError):
    pass


_CLASSES: dict[grpc.StatusCode, type[MnemoError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


def make_error(code: grpc.StatusCode | None, details: str | None, trailers: Iterable[tuple[str, str | bytes]] | None) -> MnemoError:
    retry_after: float | None = None
    for key, value in trailers or ():
        if key == "grpc-retry-pushback-ms":
            try:
                retry_after = int(value) / 1000.0
            except ValueError:
                retry_after = -1.0
    code = code or grpc.StatusCode.UNKNOWN
    return _CLASSES.get(code, MnemoError)(code.name, details or "", retry_after)
