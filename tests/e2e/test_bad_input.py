"""Bad input of every kind gets a clear error, and the daemon continues to serve."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import grpc
import models
import pytest
from harness import BIN, Code, Daemon, pb, request, seeded, tiny_model

NAN = float("nan")


def _with(change: Callable[[pb.GenerateRequest], Any], prompt: Any = "hello") -> pb.GenerateRequest:
    req = request(prompt, max_tokens=2)
    change(req)
    return req


def _chat(*messages: tuple[str, str], **fields: Any) -> pb.GenerateRequest:
    req = request(max_tokens=2)
    req.chat.SetInParent()
    for role, content in messages:
        req.chat.messages.add(role=role, content=content)
    for name, value in fields.items():
        setattr(req.chat, name, value)
    return req


# Requests, each with the words that the message must have.
INVALID: dict[str, tuple[pb.GenerateRequest, str]] = {
    "no input": (request(), "input"),
    "empty prompt": (request(""), "prompt"),
    "empty ids": (_with(lambda r: r.token_ids.SetInParent(), None), "token_ids"),
    "over the context": (request([5] * 9000), "context"),
    "id below 0": (request([5, -1]), "token_ids"),
    "id past the vocabulary": (request([5, 49152]), "token_ids"),
    "NaN temperature": (request("x", temperature=NAN), "temperature"),
    "infinite temperature": (request("x", temperature=float("inf")), "temperature"),
    "temperature below 0": (request("x", temperature=-0.1), "temperature"),
    "temperature above 5": (request("x", temperature=5.1), "temperature"),
    "top_k below 0": (request("x", top_k=-1), "top_k"),
    "top_p 0": (request("x", top_p=0.0), "top_p"),
    "top_p above 1": (request("x", top_p=1.1), "top_p"),
    "NaN top_p": (request("x", top_p=NAN), "top_p"),
    "min_p below 0": (request("x", min_p=-0.1), "min_p"),
    "min_p above 1": (request("x", min_p=1.1), "min_p"),
    "repetition 0": (request("x", repetition_penalty=0.0), "repetition_penalty"),
    "NaN repetition": (request("x", repetition_penalty=NAN), "repetition_penalty"),
    "presence 3": (request("x", presence_penalty=3.0), "presence_penalty"),
    "frequency -3": (request("x", frequency_penalty=-3.0), "frequency_penalty"),
    "max_tokens below 0": (request("x", max_tokens=-1), "max_tokens"),
    "10,000 stop strings": (request("x", stop=[f"s{i}" for i in range(10_000)]), "stop"),
    "17 stop strings": (request("x", stop=["s"] * 17), "stop"),
    "empty stop string": (request("x", stop=["a", ""]), "stop"),
    "long stop string": (request("x", stop=["s" * 257]), "stop"),
    "stop token past the vocabulary": (request("x", stop_token_ids=[49152]), "stop_token_ids"),
    "bias on a bad id": (request("x", logit_bias={-1: 1.0}), "logit_bias"),
    "bias too large": (request("x", logit_bias={1: 101.0}), "logit_bias"),
    "NaN bias": (request("x", logit_bias={1: NAN}), "logit_bias"),
    "1,025 biases": (request("x", logit_bias={i: 1.0 for i in range(1025)}), "logit_bias"),
    "21 logprobs": (_with(lambda r: setattr(r.output, "logprobs", 21)), "logprobs"),
    "logprobs below 0": (_with(lambda r: setattr(r.output, "logprobs", -1)), "logprobs"),
    "21 prompt logprobs": (_with(lambda r: setattr(r.output, "prompt_logprobs", 21)), "prompt_logprobs"),
    "prompt_logprobs_from below 0": (_with(lambda r: setattr(r.output, "prompt_logprobs_from", -1)), "prompt_logprobs_from"),
    "decode_from 0": (_with(lambda r: setattr(r.output, "decode_from", 0)), "decode_from"),
    "decode_from past the prompt": (_with(lambda r: setattr(r.output, "decode_from", 500)), "decode_from"),
    "session with a blank": (_with(lambda r: setattr(r, "session_id", "a b")), "session_id"),
    "long session": (_with(lambda r: setattr(r, "session_id", "a" * 65)), "session_id"),
    "long request id": (_with(lambda r: setattr(r, "request_id", "a" * 129)), "request_id"),
    "request id with a newline": (_with(lambda r: setattr(r, "request_id", "a\nb")), "request_id"),
    "no messages": (_chat(), "messages"),
    "small token budget": (_with(lambda r: setattr(r.attention, "token_budget", 67)), "attention.token_budget"),
    "key bits of 3": (_with(lambda r: setattr(r.attention, "key_bits", 3)), "attention.key_bits"),
    "threshold without a gate": (_with(lambda r: setattr(r.attention, "threshold", 0.5)), "attention.threshold"),
    "unknown attention": (_with(lambda r: setattr(r.attention, "method", 99)), "attention.method"),
    "no role": (_chat(("", "hello")), "role"),
    "tools that are no list": (_chat(("user", "hello"), tools_json="{}"), "chat.tools_json"),
    "tools that are no JSON": (_chat(("user", "hello"), tools_json="[{"), "chat.tools_json"),
}

UNIMPLEMENTED: dict[str, tuple[pb.GenerateRequest, str]] = {
    "block_gate": (_with(lambda r: setattr(r.attention, "method", pb.ATTENTION_METHOD_BLOCK_GATE)), "trained gate"),
    "token_indexer": (_with(lambda r: setattr(r.attention, "method", pb.ATTENTION_METHOD_TOKEN_INDEXER)), "trained indexer"),
    "retrieval": (_with(lambda r: setattr(r.retrieval, "method", "bm25")), "retrieval"),
    "context_memory": (_with(lambda r: setattr(r.context_memory, "method", "hmt")), "context_memory"),
    "json_schema": (request("x", json_schema="{}"), "json_schema"),
    "regex": (request("x", regex="a+"), "regex"),
    "grammar": (request("x", grammar="root ::= 'a'"), "grammar"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_argument_names_the_field(smol: Daemon, name: str) -> None:
    req, field = INVALID[name]
    result = smol.generate(req)
    assert result.code == Code.INVALID_ARGUMENT, f"{result.code}: {result.details}"
    assert field in result.details, result.details
    assert result.started is None


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_unimplemented_names_the_field(smol: Daemon, name: str) -> None:
    req, field = UNIMPLEMENTED[name]
    result = smol.generate(req)
    assert result.code == Code.UNIMPLEMENTED, f"{result.code}: {result.details}"
    assert field in result.details, result.details


def test_dense_attention_is_implemented(smol: Daemon) -> None:
    smol.generate(_with(lambda r: setattr(r.attention, "method", pb.ATTENTION_METHOD_DENSE))).check_ok()


def test_unknown_model(smol: Daemon) -> None:
    req = request("x")
    req.model = "gpt-17"
    result = smol.generate(req)
    assert result.code == Code.NOT_FOUND and "gpt-17" in result.details
    for call in (
        lambda: smol.generation.Tokenize(pb.TokenizeRequest(model="gpt-17", text="x"), timeout=10),
        lambda: smol.generation.Detokenize(pb.DetokenizeRequest(model="gpt-17", ids=[1]), timeout=10),
    ):
        with pytest.raises(grpc.RpcError) as info:
            call()
        assert info.value.code() == Code.NOT_FOUND


def test_a_message_over_the_limit(smol: Daemon) -> None:
    result = smol.generate(request("x" * (100 << 20)))
    assert result.code == Code.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_utf8_or_no_message(smol: Daemon) -> None:
    raw = smol.channel.unary_stream("/mnemo.v1.Generation/Generate", request_serializer=None, response_deserializer=None)
    for data in (b"\x12\x02\xff\xfe", b"\x12\x7f", b"\xff" * 1000):
        with pytest.raises(grpc.RpcError) as info:
            list(raw(data, timeout=20))
        assert info.value.code() in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.INTERNAL)


def test_bad_ids_of_detokenize(smol: Daemon) -> None:
    for ids in ([-1], [49152]):
        with pytest.raises(grpc.RpcError) as info:
            smol.generation.Detokenize(pb.DetokenizeRequest(ids=ids), timeout=10)
        assert info.value.code() == Code.INVALID_ARGUMENT and "ids" in (info.value.details() or "")


def test_the_server_still_serves(smol: Daemon) -> None:
    """The last test that uses the shared daemon."""
    assert smol.process.poll() is None
    assert "Paris" in smol.generate(request("The capital of France is")).check_ok().text
    smol.wait_idle()
    assert smol.status().workers[0].restarts == 0


def run_mnemod(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / "mnemod"), *arguments], capture_output=True, text=True, errors="replace", timeout=60)


def test_truncated_model_files(tmp_path: pathlib.Path) -> None:
    """A file cut at 50 random places, one after the other from the end: each time mnemod names the error of the file, and ends."""
    path = tmp_path / "cut.gguf"
    shutil.copyfile(models.find("smollm2"), path)
    size = path.stat().st_size
    with seeded("truncate") as rng:
        # Half of the cuts within the metadata, which is the smaller part.
        places = sorted([rng.randrange(size) for _ in range(25)] + [rng.randrange(2_000_000) for _ in range(25)], reverse=True)
        for place in places:
            os.truncate(path, place)
            result = run_mnemod("--model", str(path), "--listen", "127.0.0.1:0", "--metrics-listen", "")
            output = result.stdout + result.stderr
            assert result.returncode not in (0, -6, -11), f"cut at {place}: {result.returncode}\n{output}"
            assert "cut.gguf" in output, f"cut at {place}: {output}"


def test_wrong_model_files(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("this is no model\n" * 100)
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for path, word in ((text, "text.gguf"), (empty, "empty"), (tmp_path / "absent.gguf", "absent.gguf"), (tmp_path, str(tmp_path))):
        result = run_mnemod("--model", str(path), "--listen", "127.0.0.1:0", "--metrics-listen", "")
        assert result.returncode not in (0, -6, -11)
        assert word in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server:\n  lisen: 127.0.0.1:1\n", ["bad.yaml:2:", "lisen"]),
        ("servr: {}\n", ["bad.yaml:1:", "servr"]),
        ("engine:\n  max_running: many\n", ["bad.yaml:2:", "engine.max_running"]),
        ("engine:\n  max_running: 0\n", ["bad.yaml:2:", "engine.max_running", "1"]),
        ("engine: [1, 2]\n", ["bad.yaml:1:", "engine"]),
        ("engine:\n  - {\n", ["bad.yaml:"]),
    ],
)
def test_bad_configuration(tmp_path: pathlib.Path, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = run_mnemod("--config", str(path), "--check-config")
    output = result.stdout + result.stderr
    assert result.returncode not in (0, -6, -11), output
    for word in words:
        assert word in output, output


def test_metrics_over_ipv6(tmp_path: pathlib.Path) -> None:
    """The metrics server knows IPv4 alone: the message says so, and does not name a port in use."""
    result = run_mnemod("--listen", "127.0.0.1:0", "--metrics-listen", "[::1]:0", "--model", str(tiny_model(tmp_path / "tiny.gguf")))
    assert result.returncode not in (0, -6, -11)
    assert "server.metrics_listen" in result.stdout + result.stderr and "IPv4" in result.stdout + result.stderr


def test_missing_configuration_and_bad_overrides(tmp_path: pathlib.Path) -> None:
    for arguments, word in (
        (["--config", str(tmp_path / "absent.yaml")], "absent.yaml"),
        (["--set", "engine.max_runing=3"], "engine.max_runing"),
        (["--set", "engine.max_running=-3"], "engine.max_running"),
        (["--listen", f"unix:{tmp_path}/{'x' * 200}.sock"], "server.listen"),
        (["--listen", "::1:50051"], "server.listen"),
    ):
        result = run_mnemod(*arguments, "--check-config")
        assert result.returncode not in (0, -6, -11)
        assert word in result.stdout + result.stderr


def test_only_a_node_without_a_model_is_not_configured(tmp_path: pathlib.Path) -> None:
    """ExecCondition= of the unit skips such a node. Everything else starts, or fails with its error."""
    path = tmp_path / "node.yaml"
    path.write_text("model: {path: ''}\n")
    skipped = run_mnemod("--config", str(path), "--check-configured")
    assert skipped.returncode == 1 and "model.path is empty" in skipped.stderr
    model = tmp_path / "model.gguf"
    model.touch()
    for text in (f"model: {{path: {model}}}\n", "model: {path: /absent.gguf}\n", "no_such_key: 1\n"):
        path.write_text(text)
        assert run_mnemod("--config", str(path), "--check-configured").returncode == 0, text
    assert run_mnemod("--config", str(tmp_path / "absent.yaml"), "--check-configured").returncode == 0
