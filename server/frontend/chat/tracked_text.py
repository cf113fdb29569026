"""Strings that record which of their characters came from a request.

A chat template trims, splits, joins, replaces and formats the texts of a request. Tracked carries the spans of request
characters through each operation, so that they stay distinct from the template's own text in the rendered chat.

Two rules make it safe. An operation either computes its spans exactly and is checked against str's own result, or its whole
result counts as the request's. Where the second rule would attribute a control token of the template to the request, the
rendering is refused (Mixed) instead of giving a wrong result.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Sequence

from markupsafe import Markup
from markupsafe import escape as _escape

Spans = Sequence["tuple[int, int]"]

# Maximum number of spans of one text; beyond it, all of the text counts as the request's.
MAX_SPANS = 1 << 20


class Mixed(Exception):
    """An operation without tracking combined the template's own control tokens with text of the request."""


# Matches the control tokens of the vocabulary; matches nothing until set_control_tokens is called.
_control = re.compile("(?!)")


def set_control_tokens(texts: Iterable[str]) -> None:
    global _control
    ordered = sorted({text for text in texts if text}, key=len, reverse=True)
    _control = re.compile("|".join(map(re.escape, ordered)) if ordered else "(?!)")


class Tracked(str):
    """A str whose characters in `_spans` (ascending, disjoint, not adjacent) came from the request.

    Methods have the parameters and results of those of str; a result without spans is a plain str. __eq__ and __hash__ are
    those of str: a template compares and looks up the text itself.
    """

    __slots__ = ("_spans",)
    _spans: Spans

    def __str__(self) -> str:
        return self

    def __add__(self, other: Any) -> Any:
        return plus(self, other) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return plus(other, self) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: Any) -> Any:
        return times(self, count)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> Any:
        return modulo(self, values)

    def __rmod__(self, pattern: Any) -> Any:
        return modulo(pattern, self) if isinstance(pattern, str) else NotImplemented

    def __getitem__(self, key: Any) -> str:
        text = str.__getitem__(self, key)
        if isinstance(key, slice):
            begin, end, step = key.indices(len(self))
            if step == 1:
                return _cut(self, begin, max(begin, end), text)
            return concat([_cut(self, at, at + 1) for at in range(begin, end, step)])
        at = key.__index__()
        at += len(self) if at < 0 else 0
        return _cut(self, at, at + 1, text)

    def __iter__(self) -> Iterator[str]:
        return (_cut(self, at, at + 1) for at in range(len(self)))

    def __format__(self, spec: str) -> str:
        return format_value(self, spec)

    def strip(self, chars: Any = None) -> str:
        return _strip(self, str.lstrip(self, chars), str.strip(self, chars))

    def lstrip(self, chars: Any = None) -> str:
        text = str.lstrip(self, chars)
        return _strip(self, text, text)

    def rstrip(self, chars: Any = None) -> str:
        return _cut(self, 0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str) -> str:
        text = str.removeprefix(self, prefix)
        return _cut(self, len(self) - len(text), len(self), text)

    def removesuffix(self, suffix: str) -> str:
        return _cut(self, 0, len(str.removesuffix(self, suffix)))

    def split(self, sep: Any = None, maxsplit: Any = -1) -> Any:
        pieces = str.split(self, sep, maxsplit)
        at = 0
        for index, piece in enumerate(pieces):
            if sep is None:
                at = str.find(self, piece, at)  # a piece begins at the next non-blank character
            pieces[index] = _cut(self, at, at + len(piece), piece)
            at += len(piece) + (0 if sep is None else len(sep))
        return pieces

    def rsplit(self, sep: Any = None, maxsplit: Any = -1) -> Any:
        pieces = str.rsplit(self, sep, maxsplit)
        end = len(self)
        for index in range(len(pieces) - 1, -1, -1):
            piece = pieces[index]
            if sep is None:
                end = str.rfind(self, piece, 0, end) + len(piece)
            pieces[index] = _cut(self, end - len(piece), end, piece)
            end -= len(piece) + (0 if sep is None else len(sep))
        return pieces

    def splitlines(self, keepends: Any = False) -> Any:
        lines = str.splitlines(self, keepends)
        at = 0
        for index, line in enumerate(str.splitlines(self, True)):
            lines[index] = _cut(self, at, at + len(lines[index]), lines[index])
            at += len(line)
        return lines

    def partition(self, sep: str) -> Any:
        head, middle, tail = str.partition(self, sep)
        at = len(head)
        return _cut(self, 0, at), _cut(self, at, at + len(middle)), _cut(self, at + len(middle), len(self), tail)

    def rpartition(self, sep: str) -> Any:
        head, middle, tail = str.rpartition(self, sep)
        at = len(head)
        return _cut(self, 0, at), _cut(self, at, at + len(middle)), _cut(self, at + len(middle), len(self), tail)

    def replace(self, old: str, new: str, count: Any = -1) -> str:
        text = str.replace(self, old, new, count)
        if not old:
            return whole(text, self, new)
        pieces = Tracked.split(self, old, count)
        return _checked(text, concat(_between(new, pieces)), self, new)

    def join(self, parts: Any) -> str:
        parts = list(parts)
        text = str.join(self, parts)
        return _checked(text, concat(_between(self, parts)), self, parts)

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        data = str.encode(self, *args, **kwargs)
        return RequestBytes(data) if self._spans == ((0, len(self)),) else data

    def format(self, *args: Any, **kwargs: Any) -> str:  # the sandbox replaces it with its own
        return whole(str.format(self, *args, **kwargs), self, args, kwargs)

    def format_map(self, values: Any) -> str:
        return whole(str.format_map(self, values), self, values)

    def ljust(self, *args: Any) -> str:
        text = str.ljust(self, *args)
        return concat([self, str.__getitem__(text, slice(len(self), None))])

    def rjust(self, *args: Any) -> str:
        text = str.rjust(self, *args)
        return concat([str.__getitem__(text, slice(0, len(text) - len(self))), self])

    def center(self, *args: Any) -> str:
        text = str.center(self, *args)
        extra = len(text) - len(self)
        for left in {extra // 2, (extra + 1) // 2}:
            found = concat([text[:left], self, text[left + len(self) :]])
            if found == text:
                return found
        return whole(text, self)


def _by_segment(name: str) -> Any:
    native = getattr(str, name)

    def method(self: Tracked, *args: Any) -> str:
        text = native(self, *args)
        parts = []
        for begin, end, ours in _segments(self):
            part = native(str.__getitem__(self, slice(begin, end)), *args)
            parts.append(mark(part) if ours else part)
        # The case of a character may depend on its neighbours: the Greek sigma at the end of a word, the
        # first letter of a word.
        return _checked(text, concat(parts), self)

    method.__name__ = name
    return method


def _by_rule(name: str) -> Any:
    native = getattr(str, name)

    def method(self: Tracked, *args: Any, **kwargs: Any) -> Any:
        return whole(native(self, *args, **kwargs), self, args, kwargs)

    method.__name__ = name
    return method


for _name in ("upper", "lower", "casefold", "swapcase", "capitalize", "title"):
    setattr(Tracked, _name, _by_segment(_name))
for _name in ("expandtabs", "zfill", "translate"):
    setattr(Tracked, _name, _by_rule(_name))


class RequestBytes(bytes):
    """Bytes of a text that came entirely from the request. Text made from any bytes counts as the request's."""


class RequestMarkup(Markup):
    """Markup whose characters all count as the request's, as do results made from it."""

    def __str__(self) -> str:
        return mark(str.__str__(self))

    def __iter__(self) -> Iterator[str]:
        return iter(mark(str.__str__(self)))


def mark(text: str) -> str:
    """Returns the text marked as coming entirely from the request."""
    return track(text, ((0, len(text)),) if text else ())


def track(text: str, spans: Spans) -> Tracked:
    made = str.__new__(Tracked, text)
    made._spans = spans
    return made


def spans_of(text: str) -> Spans:
    if isinstance(text, Tracked):
        return text._spans
    return ((0, len(text)),) if isinstance(text, RequestMarkup) and text else ()


# Values that hold no text of a request, in addition to the types that is_tracked handles.
_CLEAN: set[type] = {int, float, bool, complex, type(None), range, str, Markup}


def clean_types(*types: type) -> None:
    """Declares that objects of these types hold no text of a request."""
    _CLEAN.update(types)


def is_tracked(value: Any, depth: int = 0) -> bool:
    """Returns whether any text in the value came from the request. True when that cannot be determined."""
    kind = type(value)
    if kind in _CLEAN:
        return False
    if isinstance(value, str):
        return bool(spans_of(value))
    if depth > 64:
        return True
    if kind is dict:
        return any(is_tracked(key, depth + 1) or is_tracked(item, depth + 1) for key, item in value.items())
    if kind in (list, tuple, set, frozenset):
        return any(is_tracked(item, depth + 1) for item in value)
    if kind is slice:
        return False
    return True


def _own_texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yields the texts in the value that did not come from the request."""
    if isinstance(value, RequestBytes):
        return
    if isinstance(value, (bytes, bytearray)):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, str):
        text, at = str.__str__(value), 0
        if isinstance(value, RequestMarkup):
            return
        for begin, end in spans_of(value):
            yield text[at:begin]
            at = end
        yield str.__str__(text)[at:]
    elif depth < 64 and isinstance(value, dict):
        for key, item in value.items():
            yield from _own_texts(key, depth + 1)
            yield from _own_texts(item, depth + 1)
    elif depth < 64 and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _own_texts(item, depth + 1)


def whole(result: Any, *operands: Any) -> Any:
    """Result of an operation without tracking: all of it is the request's if part of an operand is. Raises Mixed."""
    if not is_tracked(operands):
        return result
    if isinstance(result, str):
        for operand in operands:
            for own in _own_texts(operand):
                if _control.search(own):
                    raise Mixed("an operation on text that mixes its own control tokens with the request's text is not supported")
        return RequestMarkup(result) if isinstance(result, Markup) else mark(str.__str__(result))
    if isinstance(result, (list, tuple)) and type(result) in (list, tuple):
        return type(result)([whole(item, *operands) for item in result])
    if type(result) is dict:
        return {whole(key, *operands): whole(item, *operands) for key, item in result.items()}
    return result


def _checked(text: str, tracked: str, *operands: Any) -> str:
    return tracked if str.__eq__(text, tracked) is True else whole(text, *operands)


def concat(parts: Iterable[str]) -> str:
    """As "".join, with the spans of its parts. The result is no Markup, as with "".join."""
    parts = parts if type(parts) is list else list(parts)
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        if type(part) is not str:
            for begin, end in spans_of(part):
                if spans and spans[-1][1] == at + begin:
                    spans[-1] = (spans[-1][0], at + end)
                else:
                    spans.append((at + begin, at + end))
        at += len(part)
    text = "".join(parts)
    if not spans:
        return text
    if len(spans) > MAX_SPANS:
        return whole(text, parts)
    return track(text, spans)


def _cut(source: Tracked, begin: int, end: int, text: "str | None" = None) -> str:
    if text is None:
        text = str.__getitem__(source, slice(begin, end))
    spans = source._spans
    if len(spans) == 1 and spans[0][0] <= begin and end <= spans[0][1]:
        return track(text, ((0, end - begin),)) if end > begin else text
    kept = [(max(b, begin) - begin, min(e, end) - begin) for b, e in spans if b < end and e > begin]
    return track(text, kept) if kept and end > begin else text


def _strip(source: Tracked, left: str, both: str) -> str:
    begin = len(source) - len(left)
    return _cut(source, begin, begin + len(both), both)


def _segments(text: Tracked) -> Iterator["tuple[int, int, bool]"]:
    at = 0
    for begin, end in text._spans:
        if begin > at:
            yield at, begin, False
        yield begin, end, True
        at = end
    if at < len(text):
        yield at, len(text), False


def _between(separator: str, parts: Sequence[str]) -> "list[str]":
    mixed = [separator] * max(0, 2 * len(parts) - 1)
    mixed[::2] = parts
    return mixed


def plus(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        if isinstance(left, Markup) or isinstance(right, Markup):
            plain = [str.__str__(side) if type(side) is Tracked else side for side in (left, right)]
            return whole(plain[0] + plain[1], left, right)
        if type(left) is str and type(right) is str:
            return left + right
        return concat([left, right])
    return left + right


def times(left: Any, right: Any) -> Any:
    text, count = (left, right) if isinstance(left, str) else (right, left)
    if not isinstance(text, Tracked):
        return left * right
    made = str.__mul__(text, count)
    if made is NotImplemented or not made:
        return made
    if len(text._spans) * count > MAX_SPANS:
        return whole(made, text)
    return concat([text] * count)


_FIELD = re.compile(r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0\- +]*)(?P<width>\d*)(?P<precision>\.\d*)?[hlL]?(?P<type>[a-zA-Z%])")


def modulo(left: Any, right: Any) -> Any:
    """`left % right`, with exact spans for the fields that templates use: %s, %d and the like, by order or by name."""
    if not isinstance(left, str):
        return left % right
    if isinstance(left, Markup):
        return whole(left % _plain(right), left, right)
    native = str.__mod__(left, right)
    if not is_tracked((left, right)) and "c" not in left:
        return native
    parts: list[str] = []
    at = used = 0
    values = right if isinstance(right, tuple) else (right,)
    pattern = left if isinstance(left, Tracked) else track(left, ())
    for field in _FIELD.finditer(str.__str__(left)):
        parts.append(_cut(pattern, at, field.start()))
        at = field.end()
        if field["type"] == "%":
            parts.append("%")
            continue
        if field["key"] is not None and isinstance(right, dict):
            value = right.get(field["key"])
            spec = "%" + field[0][len(field["key"]) + 3 :]
        elif used < len(values):
            value, spec = values[used], field[0]
            used += 1
        else:
            return whole(native, left, right)
        if spec == "%s":
            parts.append(to_text(value))
        else:
            made = spec % (value,)
            parts.append(mark(made) if field["type"] == "c" else whole(made, value))
    parts.append(_cut(pattern, at, len(left)))
    return _checked(native, concat(parts), left, right)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return str.__str__(value) if type(value) is Tracked else value


def to_text(value: Any) -> str:
    """str(value), tracked."""
    if isinstance(value, str):
        return str.__str__(value) if type(value) is Markup else str(value)
    return str(value) if type(value) in _CLEAN else whole(str(value), value)


def format_value(value: Any, spec: str) -> str:
    """format(value, spec), tracked."""
    if not spec and isinstance(value, str):
        return to_text(value)
    made = format(str.__str__(value) if isinstance(value, Tracked) else value, spec)
    return mark(made) if spec.endswith("c") else whole(made, value, spec)


def escape(value: Any) -> Markup:
    return whole(_escape(_plain(value)), value)


def make_markup(value: Any = "") -> Markup:
    return whole(Markup(_plain(value)), value)


def markup_join(parts: Iterable[Any]) -> str:
    values = [part if isinstance(part, str) else to_text(part) for part in parts]
    if any(hasattr(value, "__html__") for value in values):
        return whole(Markup("").join(map(_plain, values)), values)
    return concat(values)


def byte_ranges(text: str) -> "list[int]":
    """Returns the spans as offsets into the UTF-8 form: begin, end, begin, end, ..."""
    ranges: list[int] = []
    plain = str.__str__(text)
    if plain.isascii():
        for begin, end in spans_of(text):
            ranges += (begin, end)
        return ranges
    at = offset = 0
    for begin, end in spans_of(text):
        offset += len(plain[at:begin].encode())
        ranges.append(offset)
        offset += len(plain[begin:end].encode())
        ranges.append(offset)
        at = end
    return ranges
