"""Random conversations as the public protocol's Chat holds them, and transformers' arguments for the same ones."""

from __future__ import annotations

import json
import random
from typing import Any

WORDS = ["river", "Zürich", "東京", "a\\b", "{x}", "%s", "don't", '"quoted"', "<b>", "&amp;", "🙂", "12.5", "</tool>", "\t", "É", "ΑΣ"]
TOOL_NAMES = ["get_weather", "search", "add"]
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def sentence(rng: random.Random) -> str:
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 8)))
    if rng.random() < 0.3:
        text = rng.choice([" ", "\n", "\n\n", "  "]) + text
    if rng.random() < 0.3:
        text += rng.choice([" ", "\n", " \n"])
    if rng.random() < 0.2:
        text = text.replace(" ", "\n", 1)
    return text


def _tool(rng: random.Random, name: str) -> dict[str, Any]:
    properties = {
        key: {"type": kind, "description": sentence(rng)}
        for key, kind in [("city", "string"), ("count", "integer"), ("deep", "boolean")][: rng.randint(1, 3)]
    }
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": sentence(rng), "parameters": parameters}}


def _call(rng: random.Random, number: int, as_text: bool) -> dict[str, Any]:
    arguments: Any = {"city": sentence(rng), "count": rng.randint(0, 9), "deep": rng.random() < 0.5}
    if as_text:
        arguments = json.dumps(arguments)
    function = {"name": rng.choice(TOOL_NAMES), "arguments": arguments}
    return {"id": f"call{number:05d}", "type": "function", "function": function}


def _answer(rng: random.Random) -> str:
    text = sentence(rng)
    if rng.random() < 0.3:
        text = f"<think>\n{sentence(rng)}\n</think>\n\n{text}"
    return text


def conversation(rng: random.Random) -> dict[str, Any]:
    """A Chat as a dictionary with the names of its fields; JSON fields as text."""
    messages: list[dict[str, str]] = []
    if rng.random() < 0.5:
        messages.append({"role": rng.choice(["system", "system", "system", "developer"]), "content": sentence(rng)})
    has_tools = rng.random() < 0.4
    as_text = rng.random() < 0.2
    number = 0
    for turn in range(rng.randint(1, 3)):
        message = {"role": "user", "content": sentence(rng)}
        if rng.random() < 0.1:
            message["name"] = "alice"
        messages.append(message)
        if has_tools and rng.random() < 0.6:
            calls = []
            for _ in range(rng.choice([1, 1, 2])):
                number += 1
                calls.append(_call(rng, number, as_text))
            content = "" if rng.random() < 0.6 else _answer(rng)
            messages.append({"role": "assistant", "content": content, "tool_calls_json": json.dumps(calls)})
            for call in calls:
                messages.append(
                    {"role": "tool", "content": sentence(rng), "tool_call_id": call["id"], "name": call["function"]["name"]}
                )
        if turn < 2 and rng.random() < 0.7:
            messages.append({"role": "assistant", "content": _answer(rng)})
    if rng.random() < 0.05:
        messages.append({"role": rng.choice(["user", "critic", "ipython", "system"]), "content": sentence(rng)})
    chat: dict[str, Any] = {
        "messages": messages,
        "omit_generation_prompt": rng.random() < 0.2,
        "continue_final_message": messages[-1]["role"] == "assistant" and rng.random() < 0.5,
        "template_args": {},
    }
    if has_tools:
        chat["tools_json"] = json.dumps([_tool(rng, name) for name in TOOL_NAMES[: rng.randint(1, 3)]])
    if rng.random() < 0.3:
        chat["template_args"]["enable_thinking"] = rng.choice(["true", "false"])
    if rng.random() < 0.2:
        chat["template_args"]["date_string"] = "26 Jul 2024"
    if rng.random() < 0.1:
        chat["template_args"]["documents"] = json.dumps([{"title": "T", "text": sentence(rng)}])
    return chat


def with_texts(chat: dict[str, Any], change: Any) -> dict[str, Any]:
    """The chat with change(text) in place of each text of a message, a tool or a call."""

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return value if key in ("type", "id") else change(value)
        if isinstance(value, list):
            return [changed(item, key) for item in value]
        if isinstance(value, dict):
            return {name: changed(item, name) for name, item in value.items()}
        return value

    messages = []
    for message in chat["messages"]:
        made = dict(message, content=change(message["content"]))
        if "tool_calls_json" in message:
            made["tool_calls_json"] = json.dumps(changed(json.loads(message["tool_calls_json"])))
        messages.append(made)
    made_chat = dict(chat, messages=messages)
    if "tools_json" in chat:
        made_chat["tools_json"] = json.dumps(changed(json.loads(chat["tools_json"])))
    return made_chat


def request_of_child(chat: dict[str, Any]) -> dict[str, Any]:
    """The message that mnemod sends to the rendering process."""
    request = {key: value for key, value in chat.items() if key != "omit_generation_prompt"}
    request["add_generation_prompt"] = not chat["omit_generation_prompt"] and not chat["continue_final_message"]
    return request


def arguments_of_transformers(chat: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of render_jinja_template."""
    messages = []
    for message in chat["messages"]:
        made: dict[str, Any] = {key: value for key, value in message.items() if key != "tool_calls_json"}
        if "tool_calls_json" in message:
            made["tool_calls"] = json.loads(message["tool_calls_json"])
        messages.append(made)
    arguments: dict[str, Any] = dict(SPECIAL_TOKENS)
    for name, text in chat["template_args"].items():
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    arguments["conversations"] = [messages]
    arguments["tools"] = json.loads(chat["tools_json"]) if "tools_json" in chat else None
    arguments["continue_final_message"] = chat["continue_final_message"]
    arguments["add_generation_prompt"] = not chat["omit_generation_prompt"] and not chat["continue_final_message"]
    return arguments
