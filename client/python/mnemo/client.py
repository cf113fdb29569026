"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

import grpc
from typing_extensions import Self, Unpack

from mnemo import _convert, errors, types
from mnemo.v1 import admin_pb2, admin_pb2_grpc, generation_pb2, generation_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),  # the daemon's limit decides
    ("grpc.enable_http_proxy", 0),
]
FIRST_BACKOFF = 0.05
MAX_BACKOFF = 2.0


class Client:
    """A connection to one daemon. May be shared by threads.

    address: "host:port" or "unix:/path".
    timeout: seconds that a call other than ``stream``, ``generate`` and ``drain`` may take.
    retries: how often such a call is tried again when the daemon is UNAVAILABLE.
    """

    def __init__(self, address: str = "127.0.0.1:50051", *, timeout: float = 30.0, retries: int = 3) -> None:
        self._timeout = timeout
        self._retries = retries
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._generation = generation_pb2_grpc.GenerationStub(self._channel)
        self._admin = admin_pb2_grpc.AdminStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends every running call with Cancelled."""
        self._channel.close()

    def wait_ready(self, timeout: float) -> None:
        """Blocks until the connection stands; Unavailable after ``timeout`` seconds."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout)
        except grpc.FutureTimeoutError:
            raise errors.Unavailable("UNAVAILABLE", f"no connection within {timeout} s") from None

    def stream(
        self,
        prompt: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        messages: Iterable[types.Message] | None = None,
        **options: Unpack[types.GenerateOptions],
    ) -> Generator[types.Event, None, None]:
        """Sends the request and yields the messages of the answer, the Final last. Closing the generator cancels the request."""
        request = _convert.build_request(prompt, token_ids, messages, options)
        return self._events(request, options.get("timeout"))

    def _events(self, request: generation_pb2.GenerateRequest, timeout: float | None) -> Generator[types.Event, None, None]:
        call = self._generation.Generate(request, timeout=timeout)
        try:
            for message in call:
                event = _convert.event(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise _translate(error) from None
        finally:
            call.cancel()  # does nothing to a call that has ended

    def generate(
        self,
        prompt: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        messages: Iterable[types.Message] | None = None,
        **options: Unpack[types.GenerateOptions],
    ) -> types.Completion:
        """Sends the request and waits for the whole answer."""
        collector = _convert.Collector()
        for event in self.stream(prompt, token_ids=token_ids, messages=messages, **options):
            collector.add(event)
        completion = collector.completion()
        if completion is None:
            raise errors.Internal("INTERNAL", "the daemon ended the stream without a Final message")
        return completion

    def tokenize(self, text: str, *, model: str = "", add_special: bool = False, parse_special: bool = False) -> types.Tokens:
        response = self._unary(self._generation.Tokenize, _convert.tokenize_request(text, model, add_special, parse_special))
        return types.Tokens(list(response.ids), list(response.pieces))

    def detokenize(self, ids: Sequence[int], *, model: str = "", skip_special_tokens: bool = False) -> str:
        request = generation_pb2.DetokenizeRequest(model=model, ids=ids, skip_special_tokens=skip_special_tokens)
        return self._unary(self._generation.Detokenize, request).text

    def models(self) -> list[types.Model]:
        response = self._unary(self._generation.ListModels, generation_pb2.ListModelsRequest())
        return [_convert.model(m) for m in response.models]

    def end_session(self, session_id: str) -> bool:
        """True when the daemon knew the session."""
        return self._unary(self._generation.EndSession, generation_pb2.EndSessionRequest(session_id=session_id)).existed

    def status(self) -> types.ServerStatus:
        return _convert.status(self._unary(self._admin.Status, admin_pb2.StatusRequest()))

    def drain(self, timeout: float = 30.0) -> types.DrainResult:
        """Stops admission and waits up to ``timeout`` seconds for running requests; the rest is cut. Never tried twice."""
        try:
            response = self._admin.Drain(_convert.drain_request(timeout), timeout=timeout + self._timeout)
        except grpc.RpcError as error:
            raise _translate(error) from None
        return types.DrainResult(response.finished, response.cut)

    def resume(self) -> None:
        self._unary(self._admin.Resume, admin_pb2.ResumeRequest())

    def _unary(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        deadline = time.monotonic() + self._timeout
        backoff = FIRST_BACKOFF
        for attempt in range(self._retries + 1):
            try:
                return method(request, timeout=max(0.0, deadline - time.monotonic()))
            except grpc.RpcError as rpc_error:
                error = _translate(rpc_error)
                last = attempt == self._retries or time.monotonic() + backoff >= deadline
                if last or not isinstance(error, errors.Unavailable):
                    raise error from None
            time.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)
        raise AssertionError("not reached")


def _translate(error: grpc.RpcError) -> errors.MnemoError:
    if isinstance(error, grpc.Call):
        return errors.make_error(error.code(), error.details(), error.trailing_metadata())
    return errors.make_error(None, str(error), None)
