"""The asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
import grpc.aio
from typing_extensions import Self, Unpack

from mnemo import _convert, errors, types
from mnemo.client import CHANNEL_OPTIONS, FIRST_BACKOFF, MAX_BACKOFF
from mnemo.v1 import admin_pb2, admin_pb2_grpc, generation_pb2, generation_pb2_grpc

if TYPE_CHECKING:
    from mnemo.v1.admin_pb2_grpc import AdminAsyncStub
    from mnemo.v1.generation_pb2_grpc import GenerationAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncClient:
    """As ``mnemo.Client``, for one event loop; made inside it."""

    def __init__(self, address: str = "127.0.0.1:50051", *, timeout: float = 30.0, retries: int = 3) -> None:
        self._timeout = timeout
        self._retries = retries
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._generation = cast("GenerationAsyncStub", generation_pb2_grpc.GenerationStub(self._channel))
        self._admin = cast("AdminAsyncStub", admin_pb2_grpc.AdminStub(self._channel))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def wait_ready(self, timeout: float) -> None:
        """Returns when the connection stands; Unavailable after ``timeout`` seconds."""
        try:
            await asyncio.wait_for(self._channel.channel_ready(), timeout)
        except asyncio.TimeoutError:
            raise errors.Unavailable("UNAVAILABLE", f"no connection within {timeout} s") from None

    def stream(
        self,
        prompt: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        messages: Iterable[types.Message] | None = None,
        **options: Unpack[types.GenerateOptions],
    ) -> AsyncGenerator[types.Event, None]:
        """Yields the messages of the answer, the Final last. Closing the generator (``aclose``) or cancelling the task cancels the request."""
        request = _convert.build_request(prompt, token_ids, messages, options)
        return self._events(request, options.get("timeout"))

    async def _events(self, request: generation_pb2.GenerateRequest, timeout: float | None) -> AsyncGenerator[types.Event, None]:
        call = self._generation.Generate(request, timeout=timeout)
        try:
            async for message in call:
                event = _convert.event(message)
                if event is not None:
                    yield event
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from None
        finally:
            call.cancel()

    async def generate(
        self,
        prompt: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        messages: Iterable[types.Message] | None = None,
        **options: Unpack[types.GenerateOptions],
    ) -> types.Completion:
        """Sends the request and waits for the whole answer."""
        collector = _convert.Collector()
        async for event in self.stream(prompt, token_ids=token_ids, messages=messages, **options):
            collector.add(event)
        completion = collector.completion()
        if completion is None:
            raise errors.Internal("INTERNAL", "the daemon ended the stream without a Final message")
        return completion

    async def tokenize(self, text: str, *, model: str = "", add_special: bool = False, parse_special: bool = False) -> types.Tokens:
        response = await self._unary(self._generation.Tokenize, _convert.tokenize_request(text, model, add_special, parse_special))
        return types.Tokens(list(response.ids), list(response.pieces))

    async def detokenize(self, ids: Sequence[int], *, model: str = "", skip_special_tokens: bool = False) -> str:
        request = generation_pb2.DetokenizeRequest(model=model, ids=ids, skip_special_tokens=skip_special_tokens)
        return (await self._unary(self._generation.Detokenize, request)).text

    async def models(self) -> list[types.Model]:
        response = await self._unary(self._generation.ListModels, generation_pb2.ListModelsRequest())
        return [_convert.model(m) for m in response.models]

    async def end_session(self, session_id: str) -> bool:
        """True when the daemon knew the session."""
        request = generation_pb2.EndSessionRequest(session_id=session_id)
        return (await self._unary(self._generation.EndSession, request)).existed

    async def status(self) -> types.ServerStatus:
        return _convert.status(await self._unary(self._admin.Status, admin_pb2.StatusRequest()))

    async def drain(self, timeout: float = 30.0) -> types.DrainResult:
        """Stops admission and waits up to ``timeout`` seconds for running requests; the rest is cut. Never tried twice."""
        try:
            response = await self._admin.Drain(_convert.drain_request(timeout), timeout=timeout + self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from None
        return types.DrainResult(response.finished, response.cut)

    async def resume(self) -> None:
        await self._unary(self._admin.Resume, admin_pb2.ResumeRequest())

    async def _unary(self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        deadline = time.monotonic() + self._timeout
        backoff = FIRST_BACKOFF
        for attempt in range(self._retries + 1):
            try:
                return await method(request, timeout=max(0.0, deadline - time.monotonic()))
            except grpc.aio.AioRpcError as rpc_error:
                error = _translate(rpc_error)
                last = attempt == self._retries or time.monotonic() + backoff >= deadline
                if last or not isinstance(error, errors.Unavailable):
                    raise error from None
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)
        raise AssertionError("not reached")


def _translate(error: grpc.aio.AioRpcError) -> errors.MnemoError:
    return errors.make_error(error.code(), error.details(), error.trailing_metadata())
