"""Between protobuf messages and the types of this package."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import cast

from google.protobuf import duration_pb2

from mnemo import types
from mnemo.v1 import admin_pb2, generation_pb2

_SAMPLING_FIELDS = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "ignore_eos",
)
_OUTPUT_FIELDS = ("logprobs", "prompt_logprobs", "prompt_logprobs_from", "include_special_tokens", "decode_from")
_REQUEST_FIELDS = ("model", "parse_special", "add_special", "session_id", "request_id", "priority")
_CHAT_FIELDS = ("omit_generation_prompt", "continue_final_message", "template_args", "tools")
_ATTENTION_FIELDS = ("token_budget", "threshold", "keep_first", "keep_last", "reuse_interval", "first_stage_tokens", "key_bits")
_PLACEMENTS = {"inline": generation_pb2.PLACEMENT_WORKER, "memory_service": generation_pb2.PLACEMENT_MEMORY_SERVICE}
_FINISH_REASONS: dict[int, types.FinishReason] = {
    generation_pb2.FINISH_REASON_EOS: "eos",
    generation_pb2.FINISH_REASON_STOP: "stop",
    generation_pb2.FINISH_REASON_LENGTH: "length",
}


def build_request(
    prompt: str | None,
    token_ids: Sequence[int] | None,
    messages: Iterable[types.Message] | None,
    options: types.GenerateOptions,
) -> generation_pb2.GenerateRequest:
    """TypeError for a missing or doubled input, for an unknown option, and for a stop that is one string."""
    if sum(value is not None for value in (prompt, token_ids, messages)) != 1:
        raise TypeError("exactly one of prompt, token_ids and messages is needed")
    unknown = set(options) - set(types.GenerateOptions.__annotations__)
    if unknown:
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}")
    request = generation_pb2.GenerateRequest()
    if prompt is not None:
        request.prompt = prompt
    elif token_ids is not None:
        request.token_ids.SetInParent()
        request.token_ids.ids.extend(token_ids)
    elif messages is not None:
        request.chat.SetInParent()
        for message in messages:
            added = request.chat.messages.add(role=message.role, content=message.content, name=message.name, tool_call_id=message.tool_call_id)
            if message.tool_calls:
                added.tool_calls_json = json.dumps(list(message.tool_calls), ensure_ascii=False)
    chat_options = [name for name in _CHAT_FIELDS if name in options]
    if chat_options and messages is None:
        raise TypeError(f"{chat_options[0]} goes with messages only")
    if "template_args" in options:
        for name, value in options["template_args"].items():
            request.chat.template_args[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "tools" in options:
        request.chat.tools_json = json.dumps(list(options["tools"]), ensure_ascii=False)
    given = cast("dict[str, object]", options)
    # A read of request.chat does not make it present; a write of one of its fields does.
    for target, names in (
        (request, _REQUEST_FIELDS),
        (request.sampling, _SAMPLING_FIELDS),
        (request.output, _OUTPUT_FIELDS),
        (request.chat, _CHAT_FIELDS[:2]),
    ):
        for name in names:
            if name in given:
                setattr(target, name, given[name])
    if isinstance(options.get("stop"), str):  # a sequence of strings to Python and to mypy: its characters
        raise TypeError("stop: a list of strings is needed, not a string")
    request.sampling.stop.extend(options.get("stop", ()))
    request.sampling.stop_token_ids.extend(options.get("stop_token_ids", ()))
    request.sampling.logit_bias.update(options.get("logit_bias", {}))
    _set_attention(request, options)
    return request


def _set_attention(request: generation_pb2.GenerateRequest, options: types.GenerateOptions) -> None:
    """The message stays absent unless an option asks for it. ValueError for an unknown method or placement."""
    if "attention" in options:
        name = f"ATTENTION_METHOD_{options['attention'].upper()}"
        request.attention.method = cast("generation_pb2.AttentionMethod", generation_pb2.AttentionMethod.Value(name))
    given = cast("dict[str, object]", options)
    for field in _ATTENTION_FIELDS:
        if field in given:
            setattr(request.attention, field, given[field])
    if "placement" in options:
        if options["placement"] not in _PLACEMENTS:
            raise ValueError(f"placement: {options['placement']!r}; allowed: {', '.join(_PLACEMENTS)}")
        request.attention.placement = _PLACEMENTS[options["placement"]]


def seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos * 1e-9


def token(message: generation_pb2.Token) -> types.Token:
    return types.Token(
        id=message.id,
        piece=message.piece,
        logprob=message.logprob if message.HasField("logprob") else None,
        rank=message.rank if message.HasField("rank") else None,
        alternatives=tuple(types.Alternative(a.id, a.piece, a.logprob) for a in message.alternatives),
    )


def final(message: generation_pb2.Final) -> types.Final:
    timing = message.timing
    return types.Final(
        finish_reason=_FINISH_REASONS.get(message.finish_reason, "unspecified"),
        stop_matched=message.stop_matched,
        usage=types.Usage(message.usage.prompt_tokens, message.usage.cached_prompt_tokens, message.usage.completion_tokens),
        timing=types.Timing(
            queue=seconds(timing.queue),
            prefill=seconds(timing.prefill),
            decode=seconds(timing.decode),
            time_to_first_token=seconds(timing.time_to_first_token),
            total=seconds(timing.total),
        ),
        replays=message.replays,
        joules=message.energy.joules if message.HasField("energy") else None,
        energy=tuple(types.DeviceEnergy(d.device, d.joules, d.source) for d in message.energy.devices),
    )


def event(message: generation_pb2.GenerateResponse) -> types.Event | None:
    """None for an event of a newer daemon."""
    kind = message.WhichOneof("event")
    if kind == "started":
        s = message.started
        return types.Started(s.request_id, s.model, s.seed, s.prompt_token_count)
    if kind == "prompt":
        return types.PromptTokens(message.prompt.start, tuple(token(t) for t in message.prompt.tokens))
    if kind == "delta":
        return types.Delta(message.delta.text, tuple(token(t) for t in message.delta.tokens))
    if kind == "final":
        return final(message.final)
    return None


class Collector:
    """Joins the events of one generation."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._tokens: list[types.Token] = []
        self._prompt: list[types.Token] = []
        self._prompt_start = 0
        self._started: types.Started | None = None
        self._final: types.Final | None = None

    def add(self, item: types.Event) -> None:
        if isinstance(item, types.Delta):
            self._text.append(item.text)
            self._tokens.extend(item.tokens)
        elif isinstance(item, types.PromptTokens):
            if not self._prompt:
                self._prompt_start = item.start
            self._prompt.extend(item.tokens)
        elif isinstance(item, types.Started):
            self._started = item
        else:
            self._final = item

    def completion(self) -> types.Completion | None:
        """None when the daemon left out Started or Final."""
        if self._started is None or self._final is None:
            return None
        return types.Completion(
            text="".join(self._text),
            tokens=tuple(self._tokens),
            prompt_tokens=tuple(self._prompt),
            prompt_start=self._prompt_start,
            started=self._started,
            final=self._final,
        )


def model(message: generation_pb2.ListModelsResponse.Model) -> types.Model:
    return types.Model(
        name=message.name,
        architecture=message.architecture,
        parameters=message.parameters,
        weight_bytes=message.weight_bytes,
        context_tokens=message.context_tokens,
        vocabulary=message.vocabulary,
        quantization=message.quantization,
        attention_methods=tuple(generation_pb2.AttentionMethod.Name(m) for m in message.attention_methods),
        is_default=message.is_default,
        workers_ready=message.workers_ready,
        bos_token_id=message.bos_token_id if message.bos_token_id >= 0 else None,
        end_token_ids=tuple(message.end_token_ids),
        features=tuple(message.features),
        numerics_id=message.numerics_id,
    )


def status(message: admin_pb2.StatusResponse) -> types.ServerStatus:
    return types.ServerStatus(
        version=message.version,
        uptime=seconds(message.uptime),
        draining=message.draining,
        requests_running=message.requests_running,
        requests_queued=message.requests_queued,
        tokens_in_flight=message.tokens_in_flight,
        workers=tuple(
            types.WorkerStatus(
                name=w.name,
                address=w.address,
                state=admin_pb2.StatusResponse.State.Name(w.state).removeprefix("STATE_").lower(),
                model=w.model,
                device=w.device,
                pid=w.pid,
                restarts=w.restarts,
                requests_running=w.requests_running,
                kv_pages_used=w.kv_pages_used,
                kv_pages_cached=w.kv_pages_cached,
                kv_pages_total=w.kv_pages_total,
                detail=w.detail,
            )
            for w in message.workers
        ),
    )


def drain_request(timeout: float) -> admin_pb2.DrainRequest:
    request = admin_pb2.DrainRequest()
    request.timeout.FromNanoseconds(int(timeout * 1e9))
    return request


def tokenize_request(text: str, model_name: str, add_special: bool, parse_special: bool) -> generation_pb2.TokenizeRequest:
    return generation_pb2.TokenizeRequest(model=model_name, text=text, add_special=add_special, parse_special=parse_special)
