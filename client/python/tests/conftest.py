"""A daemon in this process: an asyncio gRPC server on a thread of its own, scripted by the tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mnemo.v1 import admin_pb2, admin_pb2_grpc, generation_pb2, generation_pb2_grpc

GenerateHandler = Callable[[generation_pb2.GenerateRequest, Any], Awaitable[None]]


class FakeDaemon(generation_pb2_grpc.GenerationServicer, admin_pb2_grpc.AdminServicer):
    def __init__(self) -> None:
        self.requests: list[generation_pb2.GenerateRequest] = []
        self.cancelled = threading.Event()
        self.unavailable = 0  # number of unary calls that fail first
        self.unary_calls = 0
        self.drains = 0
        self.handler: GenerateHandler | None = None
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = grpc.aio.server()
        generation_pb2_grpc.add_GenerationServicer_to_server(self, server)
        admin_pb2_grpc.add_AdminServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(0)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> None:
        self.requests.append(request)
        try:
            if self.handler is not None:
                await self.handler(request, context)
            else:
                await self._echo(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _echo(self, request: generation_pb2.GenerateRequest, context: Any) -> None:
        """Each character of the prompt is a token; max_tokens beyond its end starts again, with a pause between tokens."""
        text = request.prompt or "".join(m.content for m in request.chat.messages) or "".join(chr(i) for i in request.token_ids.ids)
        response = generation_pb2.GenerateResponse()
        response.started.request_id = request.request_id or "r1"
        response.started.model = "fake"
        response.started.seed = request.sampling.seed
        response.started.prompt_token_count = len(text)
        await context.write(response)
        limited = request.sampling.HasField("max_tokens")
        count = request.sampling.max_tokens if limited else len(text)
        for i in range(count):
            character = text[i % len(text)]
            response = generation_pb2.GenerateResponse()
            response.delta.text = character
            token = response.delta.tokens.add(id=ord(character), piece=character.encode())
            if request.output.HasField("logprobs"):
                token.logprob = -0.5
                token.rank = 0
                token.alternatives.add(id=1, piece=b"\xff", logprob=-1.5)
            await context.write(response)
            if i >= len(text):
                await asyncio.sleep(0.005)
        response = generation_pb2.GenerateResponse()
        response.final.finish_reason = generation_pb2.FINISH_REASON_LENGTH if limited else generation_pb2.FINISH_REASON_EOS
        response.final.usage.prompt_tokens = len(text)
        response.final.usage.completion_tokens = count
        response.final.timing.total.FromMilliseconds(1500)
        await context.write(response)

    async def _unary(self, context: Any) -> None:
        self.unary_calls += 1
        if self.unary_calls <= self.unavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no worker")

    async def Tokenize(self, request: generation_pb2.TokenizeRequest, context: Any) -> generation_pb2.TokenizeResponse:
        await self._unary(context)
        data = request.text.encode()
        return generation_pb2.TokenizeResponse(ids=list(data), pieces=[bytes([b]) for b in data])

    async def Detokenize(self, request: generation_pb2.DetokenizeRequest, context: Any) -> generation_pb2.DetokenizeResponse:
        return generation_pb2.DetokenizeResponse(text=bytes(request.ids).decode("utf-8", "replace"))

    async def ListModels(self, request: generation_pb2.ListModelsRequest, context: Any) -> generation_pb2.ListModelsResponse:
        model = generation_pb2.ListModelsResponse.Model(
            name="fake",
            is_default=True,
            vocabulary=256,
            bos_token_id=-1,
            end_token_ids=[2],
            attention_methods=[generation_pb2.ATTENTION_METHOD_DENSE],
        )
        return generation_pb2.ListModelsResponse(models=[model])

    async def EndSession(self, request: generation_pb2.EndSessionRequest, context: Any) -> generation_pb2.EndSessionResponse:
        return generation_pb2.EndSessionResponse(existed=request.session_id == "known")

    async def Status(self, request: admin_pb2.StatusRequest, context: Any) -> admin_pb2.StatusResponse:
        await self._unary(context)
        response = admin_pb2.StatusResponse(version="9", requests_running=2)
        response.uptime.FromMilliseconds(2500)
        response.workers.add(name="worker0", state=admin_pb2.StatusResponse.STATE_READY, kv_pages_used=3)
        return response

    async def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> admin_pb2.DrainResponse:
        self.drains += 1
        if request.timeout.ToMilliseconds() != 1500:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return admin_pb2.DrainResponse(finished=4, cut=1)

    async def Resume(self, request: admin_pb2.ResumeRequest, context: Any) -> admin_pb2.ResumeResponse:
        return admin_pb2.ResumeResponse()


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    fake = FakeDaemon()
    yield fake
    fake.close()
