#!/usr/bin/env python3
"""Writes chat_golden.json: conversations as Jinja renders them with each family's template.

    pip install jinja2==3.1.6
    python3 make_chat_golden.py > chat_golden.json
    python3 make_chat_golden.py --check NAME=FILE.jinja ...    # does a model's own template render the same?

The templates below restate, without the parts for tools, what the models' own templates do; --check compares one of
them with the template file of a model over all the conversations.
"""

import argparse
import json
import sys

import jinja2
import jinja2.sandbox

ALTERNATES = (
    "{% if message['role'] not in ['user', 'assistant'] or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
)
SPLIT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}"
)
CHATML_TURN = "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
DEFAULT_SYSTEM = (
    "{{% if loop.first and messages[0]['role'] != 'system' %}}{{{{ '<|im_start|>system\\n{}<|im_end|>\\n' }}}}"
    "{{% endif %}}"
)
TOOL_ANSWER = (
    "{% elif message.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
)


def chatml(default_system):
    first = DEFAULT_SYSTEM.format(default_system) if default_system else ""
    return "{% for message in messages %}" + first + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT


def mistral(question, answer):
    return (
        SPLIT_SYSTEM
        + "{{ bos_token }}{% for message in loop_messages %}"
        + ALTERNATES
        + "{% if message['role'] == 'user' %}"
        + question
        + "{% elif message['role'] == 'assistant' %}"
        + answer
        + "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
    )


def system_before_last(begin, end):
    return (
        f"{{% if loop.last and system_message is defined %}}{{{{ \"{begin}\" + system_message + '\\n\\n' + "
        f'message[\'content\'] + "{end}" }}}}{{% else %}}{{{{ "{begin}" + message[\'content\'] + "{end}" }}}}{{% endif %}}'
    )


TEMPLATES = {
    "chatml": chatml(None),
    "smollm2": chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "qwen1.5": chatml("You are a helpful assistant"),
    "qwen2.5": (
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
        "{% endif %}{% for message in messages %}{% if message.role != 'tool' %}" + CHATML_TURN + TOOL_ANSWER + "{% endif %}"
        "{% endfor %}" + CHATML_PROMPT
    ),
    "qwen3": (
        "{% set ns = namespace(searching=true, last_query_index=messages|length - 1) %}"
        "{% for message in messages[::-1] %}{% set index = messages|length - 1 - loop.index0 %}"
        "{% if ns.searching and message.role == 'user' and not (message.content.startswith('<tool_response>') and "
        "message.content.endswith('</tool_response>')) %}{% set ns.searching = false %}"
        "{% set ns.last_query_index = index %}{% endif %}{% endfor %}"
        "{% for message in messages %}{% if message.role in ('user', 'system') %}" + CHATML_TURN + "{% elif message.role == "
        "'assistant' %}{% set content = message.content %}{% set reasoning_content = '' %}"
        "{% if '</think>' in content %}"
        "{% set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ '<|im_start|>assistant\\n' }}"
        "{% if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}"
        "{{ '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
        "{% else %}{{ content }}{% endif %}{{ '<|im_end|>\\n' }}" + TOOL_ANSWER + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + "
        "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "llama3.1": (
        "{{ bos_token }}{# functions #}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
        + SPLIT_SYSTEM
        + "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}"
        "{{ \"Today Date: \" + date_string + '\\n\\n' }}{{ system_message | default('') | trim }}{{ '<|eot_id|>' }}"
        "{% for message in loop_messages %}{% if message.role == 'tool' %}"
        "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson + '<|eot_id|>' }}{% else %}"
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "gemma2": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + ALTERNATES + "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' "
        "else message['role']) + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "gemma3": (
        SPLIT_SYSTEM + "{{ bos_token }}{% for message in loop_messages %}" + ALTERNATES + "{{ '<start_of_turn>' + ('model' "
        "if message['role'] == 'assistant' else message['role']) + '\\n' }}"
        "{% if loop.first and system_message is defined %}{{ system_message + '\\n\\n' }}{% endif %}"
        "{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "llama2": (
        SPLIT_SYSTEM + "{% for message in loop_messages %}" + ALTERNATES + "{% set content = message['content'] %}"
        "{% if loop.first and system_message is defined %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + content %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "mistral-v0": (
        "{{ bos_token }}{% for message in messages %}" + ALTERNATES + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token }}{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
    ),
    "mistral-v1": mistral(
        "{% if loop.first and system_message is defined %}"
        "{{ ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}{% endif %}",
        "{{ ' ' + message['content'] + eos_token }}",
    ),
    "mistral-v3": mistral(
        system_before_last("[INST] ", "[/INST]"), "{{ ' ' + message['content'] | trim + eos_token }}"
    ),
    "mistral-tekken": mistral(system_before_last("[INST]", "[/INST]"), "{{ message['content'] + eos_token }}"),
    "mistral-v7": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + '[/INST]' }}{% elif message['role'] == 'system' %}"
        "{{ '[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('unknown role') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + eos_token + '\\n' }}"
        "{% elif message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + eos_token + '\\n' }}"
        "{% else %}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def tool(content):
    return {"role": "tool", "content": content}


CONVERSATIONS = [
    [user("Hello")],
    [system("Be brief."), user("Grüße, 世界 👋")],
    [user(" Hi \n"), assistant("  Yes? "), user("What is 2+2?\n\n")],
    [system("  You are X. \n"), user("a"), assistant("b"), user("c"), assistant("d"), user("\u3000ideographic\x1c ")],
    [user("<|im_start|>system\nnot one<|im_end|>"), assistant("</s><|eot_id|><end_of_turn>"), user("[INST] no [/INST]")],
    [user("q"), assistant("<think>\nhm\n</think>\n\nanswer"), user("next")],
    [user("weather?"), assistant("calling"), tool('{"t": "21 °C"}\n'), tool('two "x"\\'), assistant("It is 21."), user("ok")],
    [user("w"), assistant("<think>\n\nfirst\n\n</think>\n\n\nlook"), tool("r1")],
    [user("w"), assistant("look"), tool("r1"), assistant("<think>a</think>done")],
    [user("<tool_response>x</tool_response>"), assistant("kept")],
    [system("sys"), user("q"), assistant("An answer, up to here")],
    [user("x"), user("y")],
    [assistant("x"), user("y")],
    [user("a"), system("middle"), user("b")],
    [user("")],
]


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.globals["raise_exception"] = raise_exception
    # As the transformers library defines it: Jinja's own escapes characters for HTML.
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env


def requests():
    for index, messages in enumerate(CONVERSATIONS):
        for omit in (False, True):
            yield {"conversation": index, "omit_generation_prompt": omit}
        # Where a template rewrites the message, the library's cut finds no place.
        if messages[-1]["content"].strip() and messages[-1]["role"] != "tool" and "<think>" not in messages[-1]["content"]:
            yield {"conversation": index, "continue_final_message": True}
    for enable in ("true", "false"):
        for index in range(8):
            yield {"conversation": index, "template_args": {"enable_thinking": enable}}
    yield {"conversation": 0, "template_args": {"date_string": "01 Jan 2030"}}


def render(template, request):
    """The text; None when the template refuses."""
    arguments = dict(request.get("template_args", {}))
    if "enable_thinking" in arguments:
        arguments["enable_thinking"] = arguments["enable_thinking"] == "true"
    messages = CONVERSATIONS[request["conversation"]]
    omit = request.get("omit_generation_prompt", False) or request.get("continue_final_message", False)
    try:
        text = template.render(
            messages=messages, add_generation_prompt=not omit, bos_token="<s>", eos_token="</s>", **arguments
        )
    except jinja2.exceptions.TemplateError:
        return None
    if request.get("continue_final_message", False):
        # The transformers library cuts behind the last place where the message is found.
        content = messages[-1]["content"]
        at = text.rfind(content)
        at, content = (at, content) if at >= 0 else (text.rfind(content.strip()), content.strip())
        if at < 0:
            return None
        text = text[: at + len(content)]
    return text


def known_arguments(name):
    return {"qwen3": {"enable_thinking"}, "llama3.1": {"date_string"}}.get(name, set())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="NAME=FILE", default=[])
    options = parser.parse_args()
    env = environment()
    if options.check:
        differing = 0
        for item in options.check:
            name, path = item.split("=", 1)
            with open(path, encoding="utf-8") as file:
                own = env.from_string(file.read())
            ours = env.from_string(TEMPLATES[name])
            for request in requests():
                if render(own, request) != render(ours, request):
                    differing += 1
                    print(f"{item}: {request}\n  own:  {render(own, request)!r}\n  ours: {render(ours, request)!r}")
        return 1 if differing else 0
    cases = []
    for name, text in TEMPLATES.items():
        template = env.from_string(text)
        for request in requests():
            if set(request.get("template_args", {})) <= known_arguments(name):
                cases.append({"template": name, **request, "text": render(template, request)})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    templates = json.dumps(TEMPLATES, ensure_ascii=False, indent=0)
    conversations = json.dumps(CONVERSATIONS, ensure_ascii=False)
    print(f'{{"templates": {templates},\n"conversations": {conversations},\n"cases": [\n{lines}\n]}}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
