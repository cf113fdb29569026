"""Every field of a request against the protocol: a field that was forgotten here fails."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

import mnemo
from mnemo import _convert
from mnemo.v1 import generation_pb2

# Absent features: the daemon refuses them by name.
NOT_YET = {"retrieval", "context_memory", "sampling.json_schema", "sampling.regex", "sampling.grammar"}
# Keywords that differ from the field's name.
KEYWORDS = {"chat.tools_json": "tools", "attention.method": "attention"}
MESSAGE = "chat.messages."
INPUTS = {"prompt", "token_ids.ids"}
SAMPLES: dict[str, tuple[Any, Any]] = {
    "stop": (["a"], ["a"]),
    "stop_token_ids": ([7], [7]),
    "logit_bias": ({5: -1.5}, {5: -1.5}),
    "template_args": ({"thinking": False, "day": "Monday", "depth": 2}, {"thinking": "false", "day": "Monday", "depth": "2"}),
    "tools": ([{"type": "function"}], '[{"type": "function"}]'),
    "attention": ("cascade", generation_pb2.ATTENTION_METHOD_CASCADE),
    "placement": ("memory_service", generation_pb2.PLACEMENT_MEMORY_SERVICE),
}


def leaves(kind: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    for field in kind.fields:
        path = prefix + field.name
        if path in NOT_YET:
            continue
        inner = field.message_type
        if inner is not None and not inner.GetOptions().map_entry:
            yield from leaves(inner, path + ".")
        else:
            yield path, field


FIELDS = dict(leaves(generation_pb2.GenerateRequest.DESCRIPTOR))
OF_OPTIONS = [path for path in FIELDS if path not in INPUTS and not path.startswith(MESSAGE)]


def sample(path: str, keyword: str) -> tuple[Any, Any]:
    """A value of the keyword, and the expected value in the request."""
    if keyword in SAMPLES:
        return SAMPLES[keyword]
    kind = FIELDS[path].cpp_type
    value: Any = {FieldDescriptor.CPPTYPE_BOOL: True, FieldDescriptor.CPPTYPE_STRING: "text", FieldDescriptor.CPPTYPE_FLOAT: 0.5}.get(kind, 3)
    return value, value


@pytest.mark.parametrize("path", OF_OPTIONS)
def test_every_field_has_its_keyword(path: str) -> None:
    keyword = KEYWORDS.get(path, path.rsplit(".", 1)[-1])
    assert keyword in mnemo.GenerateOptions.__annotations__
    given, wanted = sample(path, keyword)
    options: Any = {keyword: given}
    if path.startswith("chat."):
        request = _convert.build_request(None, None, [mnemo.Message("user", "hi")], options)
    else:
        request = _convert.build_request("hi", None, None, options)
    value: Any = request
    for name in path.split("."):
        value = getattr(value, name)
    if isinstance(wanted, dict):
        assert dict(value) == wanted
    elif isinstance(wanted, list):
        assert list(value) == wanted
    else:
        assert value == wanted


def test_every_keyword_has_its_field() -> None:
    keywords = {KEYWORDS.get(path, path.rsplit(".", 1)[-1]) for path in OF_OPTIONS}
    assert set(mnemo.GenerateOptions.__annotations__) == keywords | {"timeout"}


def test_every_field_of_a_message() -> None:
    fields = {path.removeprefix(MESSAGE).removesuffix("_json") for path in FIELDS if path.startswith(MESSAGE)}
    assert fields == {field.name for field in dataclasses.fields(mnemo.Message)}
    message = mnemo.Message("assistant", "x", name="n", tool_call_id="c1", tool_calls=[{"id": "c1", "args": {"ä": 1}}])
    (sent,) = _convert.build_request(None, None, [message], {}).chat.messages
    assert (sent.role, sent.content, sent.name, sent.tool_call_id) == ("assistant", "x", "n", "c1")
    assert json.loads(sent.tool_calls_json) == [{"id": "c1", "args": {"ä": 1}}]


def test_every_attention_method_of_the_protocol_is_a_name() -> None:
    for value in generation_pb2.AttentionMethod.DESCRIPTOR.values[1:]:
        name = value.name.removeprefix("ATTENTION_METHOD_").lower()
        request = generation_pb2.GenerateRequest()
        _convert._set_attention(request, {"attention": name})
        assert request.attention.method == value.number
    with pytest.raises(ValueError):
        _convert._set_attention(request, {"attention": "no_method"})
