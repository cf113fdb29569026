"""The Jinja environment in which transformers renders chat templates, extended to track a request's text.

Source of environment, globals and continue_final_message: transformers.utils.chat_template_utils.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Callable, Iterable, Iterator

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

import tracked_text
from tracked_text import Tracked, concat, is_tracked, mark, plus, times, modulo, to_text, track, whole

# Roles whose names stay text of the template: some templates make a control token of them, such as <|user|>.
# Any other role is text of the request, so that it can never become a token that ends a turn.
USUAL_ROLES = frozenset(
    ["system", "developer", "user", "assistant", "model", "tool", "function", "ipython", "environment", "observation"]
)
CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class TemplateError(Exception):
    """The template does not compile."""


class OutputTooLarge(Exception):
    pass


class FieldError(Exception):
    """A field of the request is invalid; the text names it."""


class _Generation(jinja2.ext.Extension):
    """{% generation %} marks the model's output for training; in inference its body is rendered unchanged."""

    tags = {"generation"}

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _TemplateDict:
    """`dict` of a template: it makes dictionaries and has no other attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: B902: a template may name an attribute `self`
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: Any, value: Any) -> None:
        _check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no attributes that begin with an underscore: {name!r}")


def _raise_exception(message: Any) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return whole(datetime.now().strftime(str.__str__(pattern)), pattern)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return whole(text, value, indent, separators)


class _Formatter(jinja2.sandbox.SandboxedFormatter):
    """Tracked str.format of the sandbox; get_field, and with it the sandbox's checks, is inherited."""

    def tracked(self, pattern: str, args: Any, kwargs: Any) -> str:
        native = self.vformat(str.__str__(pattern), args, kwargs)
        if not is_tracked((pattern, args, kwargs)):
            return native
        if is_tracked(pattern):
            return whole(native, pattern, args, kwargs)
        parts: list[str] = []
        count = 0
        for literal, name, spec, conversion in self.parse(str.__str__(pattern)):
            parts.append(literal)
            if name is None:
                continue
            if name == "" or name[0] in ".[":
                name = f"{count}{name}"
                count += 1
            if "{" in (spec or ""):
                return whole(native, pattern, args, kwargs)
            value = self.convert_field(self.get_field(name, args, kwargs)[0], conversion)
            if conversion and conversion != "s":
                value = whole(value, args, kwargs)
            parts.append(tracked_text.format_value(value, spec or ""))
        made = concat(parts)
        return made if made == native else whole(native, pattern, args, kwargs)


_STR_METHODS = type("".upper)  # builtin methods
# Callables that return their arguments or rendered text, which is tracked already.
_PRECISE_TYPES: tuple[type, ...] = (
    jinja2.runtime.Macro,
    jinja2.runtime.BlockReference,
    jinja2.runtime.LoopContext,
    _TemplateDict,
)
_PRECISE_OWNERS: tuple[type, ...] = (
    Tracked,
    dict,
    list,
    tuple,
    _Generation,
    _TemplateDict,
    jinja2.runtime.LoopContext,
    jinja2.utils.Cycler,
    jinja2.utils.Joiner,
)


class TrackingEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "%"])
    concat = staticmethod(concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols], finalize=_finalize
        )
        self.binop_table.update({"+": plus, "*": times, "%": modulo})
        for name, function in list(self.filters.items()):
            if name not in _PRECISE_FILTERS:
                self.filters[name] = _guarded(function)
        self.filters.update(_TRACKED_FILTERS)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _TemplateDict()
        self.globals["namespace"] = _Namespace

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902: names may be keywords
        kind = type(__obj)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and not isinstance(owner, Tracked):
            if kind is _STR_METHODS and type(owner) is str and (args or kwargs) and is_tracked((args, kwargs)):
                __obj = getattr(track(owner, ()), __obj.__name__)
                owner = None
            result = super().call(__context, __obj, *args, **kwargs)
            return result if owner is None else whole(result, owner, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if kind in _PRECISE_TYPES or __obj is _Namespace or type(owner) in _PRECISE_OWNERS:
            return result
        if getattr(__obj, "is_tracking", False):
            return result
        return whole(result, owner, args, kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or isinstance(value.__self__, jinja2.utils.markupsafe.Markup):
            return wrapped
        pattern, is_map = value.__self__, value.__name__ == "format_map"

        def tracked_format(*args: Any, **kwargs: Any) -> str:
            if is_map:
                if kwargs or len(args) != 1:
                    raise TypeError("format_map() takes exactly one argument")
                args, kwargs = (), args[0]
            return _Formatter(self).tracked(pattern, args, kwargs)

        tracked_format.is_tracking = True  # type: ignore[attr-defined]
        return tracked_format


def _finalize(value: Any) -> Any:
    return value if type(value) is str or isinstance(value, jinja2.Undefined) else to_text(value)


def _guarded(function: Any) -> Any:
    """A filter whose text result counts as the request's when any of its arguments does."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not isinstance(result, str):
            return result
        clean = [arg for arg in args if not isinstance(arg, (jinja2.Environment, jinja2.nodes.EvalContext))]
        clean = [arg for arg in clean if not isinstance(arg, jinja2.runtime.Context)]
        return whole(result, clean, kwargs)

    for attribute in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, attribute):
            setattr(guarded, attribute, getattr(function, attribute))
    return guarded


def _do_format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise jinja2.exceptions.FilterArgumentError("can't handle positional and keyword arguments at the same time")
    return modulo(value if isinstance(value, str) else to_text(value), kwargs or args)


@jinja2.pass_eval_context
def _do_join(eval_context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if eval_context.autoescape:
        items = list(value)
        return whole(jinja2.filters.sync_do_join(eval_context, items, d, attribute), items, d)
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(eval_context.environment, attribute), value)
    return Tracked.join(track(to_text(d), tracked_text.spans_of(to_text(d))), map(to_text, value))


@jinja2.pass_eval_context
def _do_replace(eval_context: Any, s: Any, old: Any, new: Any, count: Any = None) -> str:
    if eval_context.autoescape:
        return whole(jinja2.filters.do_replace(eval_context, s, old, new, count), s, old, new)
    text = to_text(s)
    replaced = Tracked.replace(
        track(text, tracked_text.spans_of(text)), to_text(old), to_text(new), -1 if count is None else count
    )
    return replaced


def _by_method(name: str) -> Any:
    def method_filter(value: Any, *args: Any, **kwargs: Any) -> str:
        return getattr(value if isinstance(value, str) else to_text(value), name)(*args, **kwargs)

    return method_filter


def _do_trim(value: Any, chars: Any = None) -> str:
    return (value if isinstance(value, str) else to_text(value)).strip(chars)


def _do_center(value: str, width: int = 80) -> str:
    return (value if isinstance(value, str) else to_text(value)).center(width)


def _do_string(value: Any) -> str:
    return value if isinstance(value, str) else to_text(value)


# Filters that pass items on, or compute with methods of str only.
_PRECISE_FILTERS = frozenset(
    "abs attr batch count d default dictsort first float groupby int items last length list map max min random reject "
    "rejectattr reverse round select selectattr slice sort sum unique".split()
)
_TRACKED_FILTERS = {
    "capitalize": _by_method("capitalize"),
    "center": _do_center,
    "e": tracked_text.escape,
    "escape": tracked_text.escape,
    "format": _do_format,
    "join": _do_join,
    "lower": _by_method("lower"),
    "replace": _do_replace,
    "safe": tracked_text.make_markup,
    "string": _do_string,
    "tojson": _tojson,
    "trim": _do_trim,
    "upper": _by_method("upper"),
}


def _install() -> None:
    """Replaces the functions that compiled templates and Jinja's runtime use by tracked ones."""
    runtime: Any = jinja2.runtime
    runtime.concat = concat
    runtime.str_join = lambda parts: concat(map(to_text, parts))
    runtime.markup_join = tracked_text.markup_join
    runtime.escape = tracked_text.escape
    runtime.Markup = tracked_text.make_markup
    tracked_text.clean_types(
        jinja2.Undefined,
        jinja2.runtime.Macro,
        jinja2.runtime.BlockReference,
        jinja2.runtime.LoopContext,
        type(_raise_exception),
        type(_Namespace),
        _TemplateDict,
    )


_install()


def _role_names(tree: jinja2.nodes.Template) -> set[str]:
    """Returns the string constants that the template compares a role with."""
    names: set[str] = set()
    for compare in tree.find_all(jinja2.nodes.Compare):
        sides = [compare.expr, *(operand.expr for operand in compare.ops)]
        constants = {node.value for side in sides for node in _constants(side)}
        if any(_is_role(side) for side in sides):
            names |= {value for value in constants if isinstance(value, str)}
    return names


def _constants(node: jinja2.nodes.Node) -> Iterator[Any]:
    if isinstance(node, jinja2.nodes.Const):
        yield node
    elif isinstance(node, (jinja2.nodes.List, jinja2.nodes.Tuple)):
        yield from (item for item in node.items if isinstance(item, jinja2.nodes.Const))


def _is_role(node: jinja2.nodes.Node) -> bool:
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr == "role"
    if isinstance(node, jinja2.nodes.Getitem):
        return isinstance(node.arg, jinja2.nodes.Const) and node.arg.value == "role"
    return isinstance(node, jinja2.nodes.Name) and node.name == "role"


def _tracked_json(value: Any) -> Any:
    """Returns the value with all its texts, names of fields included, marked as the request's."""
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, list):
        return [_tracked_json(item) for item in value]
    if isinstance(value, dict):
        return {mark(key): _tracked_json(item) for key, item in value.items()}
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def parse_json(text: str) -> Any:
    """Raises ValueError, also for an unpaired surrogate."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return value


def _json_list(field: str, text: str, of_objects: bool) -> list:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise FieldError(f"{field}: not JSON: {error}") from None
    if not isinstance(value, list):
        raise FieldError(f"{field}: must be a JSON array")
    if of_objects:
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise FieldError(f"{field}[{index}]: must be a JSON object")
    return _tracked_json(value)


def _argument(text: str) -> Any:
    try:
        return _tracked_json(parse_json(text))
    except ValueError:
        return mark(text)


class ChatTemplate:
    """One template, compiled. Raises TemplateError."""

    def __init__(self, source: str, special_tokens: "dict[str, str]") -> None:
        self._environment = TrackingEnvironment()
        self._source = source
        self._special_tokens = special_tokens
        try:
            self._roles = USUAL_ROLES | _role_names(self._environment.parse(source))
            self._template = self._environment.from_string(source)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise TemplateError(f"line {error.lineno}: {error.message}") from None
        except Exception as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from None

    def render(self, chat: "dict[str, Any]", output_bytes: int) -> str:
        """Returns the rendered chat, tracked. Raises the template's own exceptions, FieldError, OutputTooLarge."""
        messages = [self._message(index, message) for index, message in enumerate(chat["messages"])]
        tools = _json_list("tools_json", chat["tools_json"], True) if chat.get("tools_json") else None
        values = dict(self._special_tokens)
        for name, text in chat.get("template_args", {}).items():
            if name in ("messages", "tools", "add_generation_prompt", "continue_final_message"):
                raise FieldError(f'template_args["{name}"]: the chat has a field of its own for it')
            values[name] = _argument(text)
        values.setdefault("documents", None)
        values.update(messages=messages, tools=tools, add_generation_prompt=chat["add_generation_prompt"])
        if not chat["continue_final_message"]:
            return self._run(values, output_bytes)
        final = messages[-1]["content"]
        if "content" not in self._source:
            raise FieldError("continue_final_message: the template does not use the content of messages")
        messages[-1]["content"] = plus(final, CONTINUE_TAG)
        rendered = self._run(values, output_bytes)
        tag = CONTINUE_TAG.strip()
        if str.strip(final) not in rendered or tag not in rendered:
            raise FieldError("continue_final_message: the template does not render the final message as it is")
        at = rendered.rindex(tag)
        kept = rendered[:at]
        return kept if rendered[at : at + len(CONTINUE_TAG)] == CONTINUE_TAG else kept.rstrip()

    def _message(self, index: int, message: "dict[str, str]") -> "dict[str, Any]":
        made: dict[str, Any] = {}
        for field, text in message.items():
            if field == "tool_calls_json":
                made["tool_calls"] = _json_list(f"messages[{index}].{field}", text, True)
            elif field == "role" and text in self._roles:
                made[field] = text
            else:
                made[field] = mark(text)
        return made

    def _run(self, values: "dict[str, Any]", output_bytes: int) -> str:
        template = self._template
        context = template.new_context(values)
        try:
            return concat(_bounded(template.root_render_func(context), output_bytes))
        except (OutputTooLarge, MemoryError):
            raise
        except Exception:
            return self._environment.handle_exception()


def _bounded(pieces: Iterable[str], most: int) -> "list[str]":
    kept: list[str] = []
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            raise OutputTooLarge
        kept.append(piece)
    return kept
