"""The blocking and the asyncio client against a server in this process."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import grpc
import pytest
from conftest import FakeDaemon

import mnemo
from mnemo.v1 import generation_pb2


def test_stream_yields_started_deltas_and_one_final(daemon: FakeDaemon) -> None:
    with mnemo.Client(daemon.address) as client:
        events = list(client.stream("häj", request_id="me"))
    assert isinstance(events[0], mnemo.Started) and events[0].request_id == "me"
    assert [type(e) for e in events[1:-1]] == [mnemo.Delta] * 3
    assert "".join(e.text for e in events if isinstance(e, mnemo.Delta)) == "häj"
    final = events[-1]
    assert isinstance(final, mnemo.Final)
    assert final.finish_reason == "eos"
    assert final.timing.total == pytest.approx(1.5)
    assert final.joules is None


def test_generate_collects(daemon: FakeDaemon) -> None:
    with mnemo.Client(daemon.address) as client:
        completion = client.generate("abc", max_tokens=5, logprobs=1)
    assert completion.text == "abcab"
    assert completion.token_ids == [97, 98, 99, 97, 98]
    assert completion.finish_reason == "length"
    assert completion.usage == mnemo.Usage(3, 0, 5)
    assert completion.tokens[0].logprob == pytest.approx(-0.5)
    assert completion.tokens[0].alternatives == (mnemo.Alternative(1, b"\xff", -1.5),)


def test_every_option_reaches_the_request(daemon: FakeDaemon) -> None:
    with mnemo.Client(daemon.address) as client:
        client.generate(
            "x",
            model="m",
            parse_special=True,
            add_special=False,
            session_id="s",
            request_id="r",
            priority=-1,
            max_tokens=1,
            temperature=0.0,
            top_k=3,
            top_p=0.5,
            min_p=0.25,
            repetition_penalty=1.5,
            presence_penalty=-1.0,
            frequency_penalty=1.0,
            seed=2**64 - 1,
            stop=["a", "b"],
            stop_token_ids=[7],
            ignore_eos=True,
            logit_bias={5: -2.0},
            logprobs=0,
            prompt_logprobs=2,
            prompt_logprobs_from=1,
            include_special_tokens=True,
            decode_from=1,
            attention="token_topk",
            token_budget=512,
            key_bits=4,
            placement="memory_service",
            timeout=10.0,
        )
        client.generate(token_ids=[104, 105])
        client.generate(
            messages=[
                mnemo.Message("system", "be brief"),
                mnemo.Message("user", "hi", name="me"),
                mnemo.Message("assistant", "", tool_calls=[{"id": "1"}]),
                mnemo.Message("tool", "5", tool_call_id="1"),
            ],
            tools=[{"name": "f"}],
            continue_final_message=True,
            template_args={"enable_thinking": "false"},
        )
    first, second, third = daemon.requests
    sampling = first.sampling
    assert (first.model, first.parse_special, first.add_special, first.session_id, first.priority) == ("m", True, False, "s", -1)
    assert first.HasField("add_special") and first.WhichOneof("input") == "prompt"
    assert sampling.HasField("temperature") and sampling.temperature == 0.0
    assert (sampling.top_k, sampling.top_p, sampling.min_p, sampling.seed) == (3, 0.5, 0.25, 2**64 - 1)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.5, -1.0, 1.0)
    assert (list(sampling.stop), list(sampling.stop_token_ids), dict(sampling.logit_bias)) == (["a", "b"], [7], {5: -2.0})
    assert first.output.HasField("logprobs") and first.output.prompt_logprobs == 2 and first.output.decode_from == 1
    attention = first.attention
    assert generation_pb2.AttentionMethod.Name(attention.method) == "ATTENTION_METHOD_TOKEN_TOPK"
    assert (attention.token_budget, attention.key_bits) == (512, 4) and not attention.HasField("keep_first")
    assert attention.placement == generation_pb2.PLACEMENT_MEMORY_SERVICE and not second.HasField("attention")
    assert list(second.token_ids.ids) == [104, 105]
    assert not second.sampling.HasField("max_tokens") and not second.HasField("add_special")
    assert [m.role for m in third.chat.messages] == ["system", "user", "assistant", "tool"]
    assert third.chat.messages[2].tool_calls_json == '[{"id": "1"}]' and third.chat.messages[3].tool_call_id == "1"
    assert third.chat.tools_json == '[{"name": "f"}]'
    assert third.chat.continue_final_message and third.chat.template_args["enable_thinking"] == "false"


def test_wrong_calls_are_type_errors_and_send_nothing(daemon: FakeDaemon) -> None:
    bad: Any
    with mnemo.Client(daemon.address) as client:
        wrong: tuple[dict[str, Any], ...] = ({"token_ids": [1]}, {"heat": 3}, {"template_args": {}}, {"stop": "END"})
        for bad in ({}, *({"prompt": "a", **options} for options in wrong)):
            with pytest.raises(TypeError):
                client.stream(**bad)
    assert daemon.requests == []


@pytest.mark.parametrize("how", ["close", "forget", "error"])
def test_leaving_the_generator_cancels_the_request(daemon: FakeDaemon, how: str) -> None:
    with mnemo.Client(daemon.address) as client:
        events = client.stream("ab", max_tokens=1_000_000)
        assert isinstance(next(events), mnemo.Started)
        next(events)
        assert not daemon.cancelled.is_set()
        if how == "close":
            events.close()
        elif how == "forget":
            del events
            gc.collect()
        else:
            with pytest.raises(RuntimeError):
                events.throw(RuntimeError("caller failed"))
        assert daemon.cancelled.wait(10)


def test_deadline(daemon: FakeDaemon) -> None:
    with mnemo.Client(daemon.address) as client:
        with pytest.raises(mnemo.DeadlineExceeded) as info:
            client.generate("ab", max_tokens=1_000_000, timeout=0.2)
    assert info.value.code == "DEADLINE_EXCEEDED"


def test_errors_carry_code_message_and_pause(daemon: FakeDaemon) -> None:
    async def refuse(request: generation_pb2.GenerateRequest, context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "limits.max_queued", (("grpc-retry-pushback-ms", "250"),))

    daemon.handler = refuse
    with mnemo.Client(daemon.address) as client:
        with pytest.raises(mnemo.ResourceExhausted) as info:
            client.generate("x")
    assert (info.value.code, info.value.message, info.value.retry_after) == ("RESOURCE_EXHAUSTED", "limits.max_queued", 0.25)


def test_a_stream_without_final_is_an_error(daemon: FakeDaemon) -> None:
    async def nothing(request: generation_pb2.GenerateRequest, context: Any) -> None:
        return None

    daemon.handler = nothing
    with mnemo.Client(daemon.address) as client:
        assert list(client.stream("x")) == []
        with pytest.raises(mnemo.Internal):
            client.generate("x")


def test_unary_calls(daemon: FakeDaemon) -> None:
    with mnemo.Client(daemon.address) as client:
        assert client.tokenize("hi") == mnemo.Tokens([104, 105], [b"h", b"i"])
        assert client.detokenize([104, 255]) == "h\ufffd"
        (model,) = client.models()
        assert model.bos_token_id is None and model.attention_methods == ("ATTENTION_METHOD_DENSE",)
        assert client.end_session("known") and not client.end_session("other")
        status = client.status()
        assert status.uptime == pytest.approx(2.5) and status.workers[0].state == "ready"
        assert client.drain(1.5) == mnemo.DrainResult(4, 1)
        client.resume()


def test_unavailable_is_retried_but_a_drain_never(daemon: FakeDaemon) -> None:
    daemon.unavailable = 2
    with mnemo.Client(daemon.address) as client:
        assert client.status().version == "9"
        assert daemon.unary_calls == 3
        with pytest.raises(mnemo.Unavailable):
            client.drain(9.0)
    assert daemon.drains == 1
    daemon.unavailable = 100
    with mnemo.Client(daemon.address, retries=0) as client, pytest.raises(mnemo.Unavailable):
        client.status()
    assert daemon.unary_calls == 4


def test_nobody_there() -> None:
    began = time.monotonic()
    with mnemo.Client("127.0.0.1:1", retries=1) as client:
        with pytest.raises(mnemo.Unavailable):
            client.wait_ready(0.2)
        with pytest.raises(mnemo.Unavailable):
            client.models()
        with pytest.raises(mnemo.Unavailable):
            client.generate("x")
    assert time.monotonic() - began < 10


def test_asyncio_client(daemon: FakeDaemon) -> None:
    async def run() -> None:
        async with mnemo.aio.AsyncClient(daemon.address) as client:
            await client.wait_ready(10)
            answers = await asyncio.gather(*(client.generate(f"prompt {i}") for i in range(20)))
            assert [a.text for a in answers] == [f"prompt {i}" for i in range(20)]
            assert (await client.tokenize("hi")).ids == [104, 105]
            assert await client.detokenize([104]) == "h"
            assert (await client.models())[0].name == "fake"
            assert (await client.status()).version == "9"
            assert await client.drain(1.5) == mnemo.DrainResult(4, 1)
            assert not await client.end_session("other")
            await client.resume()
            with pytest.raises(mnemo.DeadlineExceeded):
                await client.generate("ab", max_tokens=1_000_000, timeout=0.2)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["aclose", "task"])
def test_asyncio_cancellation(daemon: FakeDaemon, how: str) -> None:
    async def run() -> None:
        async with mnemo.aio.AsyncClient(daemon.address) as client:
            if how == "aclose":
                events = client.stream("ab", max_tokens=1_000_000)
                await anext(events)
                await anext(events)
                await events.aclose()
            else:
                task = asyncio.create_task(client.generate("ab", max_tokens=1_000_000))
                while not daemon.requests:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await asyncio.to_thread(daemon.cancelled.wait, 10)

    asyncio.run(run())
