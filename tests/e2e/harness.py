"""Starts mnemod on a free port of the loopback and calls it with plain grpcio: a client that shares no code with ours."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))
SEED = int(os.environ.get("MNEMO_SEED", "1"))


def _generate_stubs() -> None:
    """Stubs of our own protocols and of health and reflection, made from the .proto files with protoc."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="mnemo-e2e-stubs-")
    well_known = pathlib.Path(importlib.import_module("grpc_tools").__file__ or "").parent / "_proto"
    files = ["mnemo/v1/generation.proto", "mnemo/v1/admin.proto"]
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, out)


_generate_stubs()
from mnemo.v1 import admin_pb2, admin_pb2_grpc, generation_pb2, generation_pb2_grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

pb = generation_pb2
Code = grpc.StatusCode


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], timeout: float = 15.0, step: float = 0.02) -> Any:
    """The condition's first true value. Fails with `what` when the time is over."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {timeout} s"
        time.sleep(step)


def process_ended(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def scrape(address: str) -> str:
    """Samples of a Prometheus endpoint."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


class Daemon:
    """One mnemod with its workers. Its log is shown when a test fails inside `with`."""

    def __init__(
        self,
        model: pathlib.Path,
        *,
        workers: int = 1,
        settings: dict[str, Any] | None = None,
        config: pathlib.Path | None = None,
        host: str = "127.0.0.1",
        closed: tuple[int, ...] = (),
        listen: str | None = None,
        stderr: Any = None,
        prefix: tuple[str, ...] = (),
    ):
        self.port = free_port()
        self.address = listen or f"{host}:{self.port}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.command = [str(BIN / "mnemod"), "--listen", self.address, "--metrics-listen", self.metrics_address]
        self.command += ["--model", str(model), "--workers", str(workers)]
        if config is not None:
            self.command += ["--config", str(config)]
        for key, value in (settings or {}).items():
            self.command += ["--set", f"{key}={value}"]
        self._log = tempfile.NamedTemporaryFile(prefix="mnemod-", suffix=".log", delete=False)
        command = self.command
        if closed:  # standard descriptors that the process lacks at its start
            command = ["/bin/sh", "-c", 'exec "$0" "$@" ' + " ".join(f"{fd}>&-" for fd in closed), *command]
        command = [*prefix, *command]  # a program that sets limits and becomes mnemod
        error = self._log if stderr is None else stderr

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=error)

        self._start = start
        self.process = start()
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
        self.channel = grpc.insecure_channel(self.address, options=options)
        self.generation = generation_pb2_grpc.GenerationStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Daemon:
        try:
            self.wait_ready()
        except BaseException:
            self._show_log()
            self._end()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if kind is not None:
                self._show_log()
        finally:  # also when standard error has no reader
            self._end()

    def log(self) -> str:
        return pathlib.Path(self._log.name).read_text(errors="replace")

    def _show_log(self) -> None:
        print(f"--- {' '.join(self.command)}\n{self.log()[-8000:]}\n---", file=sys.stderr)

    def _end(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log.name)

    def crash(self) -> None:
        """Kills mnemod and starts it again at the same addresses, as systemd does."""
        self.process.kill()
        self.process.wait(10)
        self.process = self._start()
        self.wait_ready()

    def serving(self, service: str = "") -> bool:
        try:
            reply = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_ready(self, timeout: float = 60.0) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"mnemod ended with {self.process.returncode}"
            return self.serving()

        wait_for("mnemod ready", ready, timeout)

    def status(self) -> admin_pb2.StatusResponse:
        return self.admin.Status(admin_pb2.StatusRequest(), timeout=10)

    def model(self) -> pb.ListModelsResponse.Model:
        (model,) = self.generation.ListModels(pb.ListModelsRequest(), timeout=10).models
        return model

    def wait_workers(self, count: int, timeout: float = 30.0) -> None:
        def is_ready(worker: Any) -> bool:
            # A worker that was just killed is ready until mnemod has noticed.
            return worker.state == admin_pb2.StatusResponse.STATE_READY and not (worker.pid and process_ended(worker.pid))

        def all_ready() -> bool:
            return sum(is_ready(worker) for worker in self.status().workers) >= count

        wait_for(f"{count} workers ready", all_ready, timeout)

    def wait_idle(self, timeout: float = 15.0) -> None:
        """No request, and no page in use by one, on any worker."""

        def idle() -> bool:
            s = self.status()
            return (
                s.requests_running == 0
                and s.requests_queued == 0
                and s.tokens_in_flight == 0
                and all(w.kv_pages_used == 0 and w.requests_running == 0 for w in s.workers)
            )

        try:
            wait_for("idle", idle, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status()}") from None

    def generate(self, request: pb.GenerateRequest, timeout: float | None = 60.0) -> Result:
        """The whole answer, with a failure in the result's code."""
        return collect(self.generation.Generate(request, timeout=timeout))

    def metrics(self) -> str:
        return scrape(self.metrics_address)

    def attached(self, workers: int = 1) -> bool:
        """True when each of the first workers is attached to its memory service."""
        text = self.metrics()
        return all(f'mnemo_memory_service_attached{{worker="worker{i}"}} 1' in text for i in range(workers))


class MemoryService:
    """A mnemo-memory that is this test's child, not mnemod's."""

    def __init__(self, *arguments: str):
        self.folder = tempfile.TemporaryDirectory(prefix="mnemo-far-")
        self.socket = pathlib.Path(self.folder.name, "data.sock")
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.command = [str(BIN / "mnemo-memory"), "--name=far", f"--data-socket={self.socket}"]
        self.command += [f"--control-address=unix:{self.folder.name}/control.sock", f"--metrics-listen={self.metrics_address}", *arguments]

    def __enter__(self) -> MemoryService:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()
        self.folder.cleanup()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        wait_for("mnemo-memory listens", lambda: self.socket.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.returncode

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Result:
    """The messages of one stream, checked for the order that the API promises."""

    def __init__(self) -> None:
        self.started: pb.Started | None = None
        self.prompt: list[pb.Token] = []
        self.prompt_start: int | None = None
        self.text = ""
        self.tokens: list[pb.Token] = []
        self.final: pb.Final | None = None
        self.code = Code.UNKNOWN
        self.details = ""
        self.trailers: dict[str, Any] = {}

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def devices(self) -> dict[int, set[str]]:
        """The device of each step of memory processing."""
        assert self.final is not None
        found: dict[int, set[str]] = {}
        for step in self.final.memory_steps:
            found.setdefault(step.step, set()).add(step.device)
        return found

    def add(self, message: pb.GenerateResponse) -> None:
        event = message.WhichOneof("event")
        assert self.final is None, "a message after Final"
        if event == "started":
            assert self.started is None and not self.tokens, "Started is not the first"
            self.started = message.started
        elif event == "prompt":
            assert self.started is not None and not self.tokens, "PromptTokens out of order"
            if self.prompt_start is None:
                self.prompt_start = message.prompt.start
            assert message.prompt.start == self.prompt_start + len(self.prompt)
            self.prompt.extend(message.prompt.tokens)
        elif event == "delta":
            assert self.started is not None, "a Delta before Started"
            self.text += message.delta.text
            self.tokens.extend(message.delta.tokens)
        else:
            assert event == "final" and self.started is not None
            self.final = message.final

    def end(self, call: Any) -> None:
        self.code = call.code()
        self.details = call.details() or ""
        self.trailers = dict(call.trailing_metadata() or ())
        assert (self.code == Code.OK) == (self.final is not None), f"{self.code} with final {self.final}"

    def check_ok(self) -> Result:
        assert self.code == Code.OK, f"{self.code}: {self.details}"
        return self


def collect(call: Any, on_token: Callable[[Result], None] | None = None) -> Result:
    result = Result()
    try:
        for message in call:
            result.add(message)
            if on_token is not None:
                on_token(result)
    except grpc.RpcError:
        pass
    result.end(call)
    return result


@contextlib.contextmanager
def silent_reader(daemon: Daemon) -> Iterator[Any]:
    """A call with a large answer that it does not read, so that the buffers between both ends fill. The answer can be read at the end."""
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        message = request([1, 2, 3], max_tokens=16000, ignore_eos=True)
        message.output.logprobs = 20
        yield generation_pb2_grpc.GenerationStub(channel).Generate(message)


def request(prompt: str | list[int] | None = None, *, max_tokens: int | None = 16, **sampling: Any) -> pb.GenerateRequest:
    """Greedy unless `temperature` says otherwise."""
    message = pb.GenerateRequest()
    if isinstance(prompt, str):
        message.prompt = prompt
    elif prompt is not None:
        message.token_ids.ids.extend(prompt)
    if max_tokens is not None:
        message.sampling.max_tokens = max_tokens
    sampling.setdefault("temperature", 0.0)
    for name, value in sampling.items():
        if name == "logit_bias":
            message.sampling.logit_bias.update(value)
        elif isinstance(value, (list, tuple)):
            getattr(message.sampling, name).extend(value)
        else:
            setattr(message.sampling, name, value)
    return message


def tiny_model(path: pathlib.Path, *, context: int = 16384, layers: int = 2, seed: int = 7, head_dim: int = 16) -> pathlib.Path:
    """A random llama of a few hundred kilobytes, with a vocabulary of bytes: fast, so that thousands of requests take seconds."""
    import gguf
    import numpy

    heads, kv_heads, ffn = 4, 2, 128
    dim = heads * head_dim
    rng = numpy.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(dim // heads)
    tokens = [_byte_token(b) for b in range(256)] + ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * 3)
    writer.add_token_merges([])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(257)
    writer.add_vocab_size(len(tokens))
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        writer.add_tensor(name, (rng.standard_normal((rows, columns)) * scale).astype(numpy.float32))

    matrix("token_embd.weight", len(tokens), dim, 1.0)
    writer.add_tensor("output_norm.weight", numpy.ones(dim, numpy.float32))
    # An output matrix of its own: with tied embeddings a random model repeats its last token.
    matrix("output.weight", len(tokens), dim, 0.3)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", numpy.ones(dim, numpy.float32))
        writer.add_tensor(prefix + "ffn_norm.weight", numpy.ones(dim, numpy.float32))
        matrix(prefix + "attn_q.weight", dim, dim, 0.3)
        matrix(prefix + "attn_k.weight", kv_heads * dim // heads, dim, 0.3)
        matrix(prefix + "attn_v.weight", kv_heads * dim // heads, dim, 0.3)
        matrix(prefix + "attn_output.weight", dim, dim, 0.3)
        matrix(prefix + "ffn_gate.weight", ffn, dim, 0.2)
        matrix(prefix + "ffn_up.weight", ffn, dim, 0.2)
        matrix(prefix + "ffn_down.weight", dim, ffn, 0.2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_token(byte: int) -> str:
    """A byte as byte-level vocabularies write it (OpenAI's GPT-2 encoder): printable ones as they are, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + [b for b in range(256) if b not in printable].index(byte))


@contextlib.contextmanager
def seeded(name: str) -> Iterator[random.Random]:
    """A random generator for a test; a failure prints the seed."""
    try:
        yield random.Random(f"{SEED}-{name}")
    except BaseException:
        print(f"seed: MNEMO_SEED={SEED} ({name})", file=sys.stderr)
        raise
