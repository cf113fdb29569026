"""Types of requests and answers. Times are seconds; pieces are raw bytes that may be part of a character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Union

FinishReason = Literal["eos", "stop", "length", "unspecified"]


class GenerateOptions(TypedDict, total=False):
    """Keywords of ``generate`` and ``stream``. An absent keyword takes the daemon's default."""

    model: str
    parse_special: bool  # control-token text in a prompt becomes control tokens
    add_special: bool  # begin-of-text and the like in front of a prompt
    session_id: str
    request_id: str
    priority: int
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    logit_bias: Mapping[int, float]
    logprobs: int
    prompt_logprobs: int
    prompt_logprobs_from: int
    include_special_tokens: bool
    decode_from: int
    attention: str  # a method of the protocol (AttentionMethod) in lower case, such as token_topk
    token_budget: int  # of sparse attention, as what follows
    threshold: float  # with block_gate, instead of token_budget
    keep_first: int
    keep_last: int
    reuse_interval: int
    first_stage_tokens: int  # with cascade
    key_bits: int  # with token_topk: 2, 4 or 8
    placement: Literal["inline", "memory_service"]
    omit_generation_prompt: bool  # with messages
    continue_final_message: bool  # with messages
    template_args: Mapping[str, Any]  # with messages; a value that is no string goes as JSON
    tools: Sequence[Mapping[str, Any]]  # with messages
    timeout: float  # seconds, for the whole call


@dataclass(frozen=True)
class Message:
    role: str  # a role of the model's template: system, user, assistant, tool, ...
    content: str
    name: str = ""
    tool_call_id: str = ""  # of a tool's answer
    tool_calls: Sequence[Mapping[str, Any]] = ()  # that the assistant made


@dataclass(frozen=True)
class Alternative:
    id: int
    piece: bytes
    logprob: float


@dataclass(frozen=True)
class Token:
    id: int
    piece: bytes
    logprob: float | None = None
    rank: int | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Started:
    request_id: str
    model: str
    seed: int
    prompt_token_count: int


@dataclass(frozen=True)
class PromptTokens:
    start: int  # position of the first one
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Delta:
    text: str  # may be empty
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timing:
    queue: float
    prefill: float
    decode: float
    time_to_first_token: float
    total: float


@dataclass(frozen=True)
class DeviceEnergy:
    device: str
    joules: float
    source: str  # rapl | nvml | rocm_smi | xrt | model


@dataclass(frozen=True)
class Final:
    finish_reason: FinishReason
    stop_matched: str
    usage: Usage
    timing: Timing
    replays: int
    joules: float | None  # None = no counter and no model on that machine
    energy: tuple[DeviceEnergy, ...]


Event = Union[Started, PromptTokens, Delta, Final]


@dataclass(frozen=True)
class Completion:
    """A whole generation."""

    text: str
    tokens: tuple[Token, ...]
    prompt_tokens: tuple[Token, ...]  # with prompt_logprobs; the first has position prompt_start
    prompt_start: int
    started: Started
    final: Final

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def finish_reason(self) -> FinishReason:
        return self.final.finish_reason

    @property
    def usage(self) -> Usage:
        return self.final.usage

    @property
    def timing(self) -> Timing:
        return self.final.timing


@dataclass(frozen=True)
class Tokens:
    ids: list[int]
    pieces: list[bytes]


@dataclass(frozen=True)
class Model:
    name: str
    architecture: str
    parameters: int
    weight_bytes: int
    context_tokens: int
    vocabulary: int
    quantization: str
    attention_methods: tuple[str, ...]
    is_default: bool
    workers_ready: int
    bos_token_id: int | None
    end_token_ids: tuple[int, ...]
    features: tuple[str, ...]
    numerics_id: str


@dataclass(frozen=True)
class WorkerStatus:
    name: str
    address: str
    state: str  # starting | ready | draining | down | unspecified
    model: str
    device: str
    pid: int
    restarts: int
    requests_running: int
    kv_pages_used: int
    kv_pages_cached: int
    kv_pages_total: int
    detail: str


@dataclass(frozen=True)
class ServerStatus:
    version: str
    uptime: float
    draining: bool
    requests_running: int
    requests_queued: int
    tokens_in_flight: int
    workers: tuple[WorkerStatus, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class DrainResult:
    finished: int
    cut: int
