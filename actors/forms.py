"""Forms: what a person is asked to fill in. A type where the code is, its JSON Schema everywhere else.

`misfit` checks what msgspec writes of JSON Schema 2020-12, so that a page or a command line can check an answer without
the type. What a schema cannot say (a format, a check in ``__post_init__``) is found where the answer is accepted.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import ConfigurationError, InputError

Schema = Mapping[str, Any]
DEPTH = 32
_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "less than"),
    "multipleOf": (lambda value, bound: math.isclose(math.remainder(value, bound), 0, abs_tol=1e-9), "a multiple of"),
}
_SIZES: dict[str, tuple[str, Callable[[int, int], bool], str]] = {
    "minLength": ("string", int.__ge__, "at least {} characters"),
    "maxLength": ("string", int.__le__, "at most {} characters"),
    "minItems": ("array", int.__ge__, "at least {} items"),
    "maxItems": ("array", int.__le__, "at most {} items"),
    "minProperties": ("object", int.__ge__, "at least {} entries"),
    "maxProperties": ("object", int.__le__, "at most {} entries"),
}


def schema_of(form: Any) -> dict[str, Any]:
    """The JSON Schema of a type; `ConfigurationError` for one that has none."""
    try:
        return msgspec.json.schema(form)
    except (TypeError, ValueError) as error:
        name = getattr(form, "__qualname__", form)
        raise ConfigurationError(f"{name} cannot be a form ({error}): use a msgspec.Struct of plain types") from error


def as_answer(value: Any) -> Any:
    """A form's values in the types that JSON has; `InputError` for what has no form there."""
    try:
        return msgspec.to_builtins(value, str_keys=True, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the answer cannot be signed ({error}): give it as JSON or as the form's type") from error


def typed(answer: Any, form: Any) -> Any:
    """An answer as the form's type; `InputError` says what does not fit."""
    try:
        return msgspec.convert(answer, form)
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the answer does not fit the form: {error}") from error


def resolved(schema: Schema, whole: Schema) -> Schema:
    """What a schema refers to, by ``$ref`` within the whole."""
    for _ in range(DEPTH):
        ref = schema.get("$ref")
        if not isinstance(ref, str):
            return schema
        schema = whole.get("$defs", {}).get(ref.removeprefix("#/$defs/"), {})
    return schema


def completed(answer: Any, schema: Schema, whole: Schema, depth: int = 0) -> Any:
    """An answer that fits, with what it leaves out as the form has it then: two that mean the same are the same."""
    schema = resolved(schema, whole)
    if "anyOf" in schema and depth < DEPTH:
        fits = (one for one in schema["anyOf"] if not any(_misfits(answer, one, whole, "", depth)))
        return completed(answer, next(fits, {}), whole, depth + 1)
    if isinstance(answer, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        left_out = {name: part["default"] for name, part in known.items() if "default" in part and name not in answer}
        parts = {name: known.get(name, more) for name in answer}
        inner = {name: part if isinstance(part, Mapping) else {} for name, part in parts.items()}
        return left_out | {name: completed(answer[name], inner[name], whole, depth + 1) for name in answer}
    items = schema.get("items")
    if isinstance(answer, list) and isinstance(items, Mapping):
        return [completed(item, items, whole, depth + 1) for item in answer]
    return answer


def misfit(answer: Any, whole: Schema) -> str:
    """What of an answer does not fit a schema, in words that name the place; empty if it fits."""
    return next(_misfits(answer, whole, whole, "", 0), "")


def _misfits(value: Any, schema: Schema, whole: Schema, at: str, depth: int) -> Iterator[str]:
    where = at or "the answer"
    if depth > DEPTH:
        yield f"{where} is nested too deep"
        return
    schema = resolved(schema, whole)
    if "anyOf" in schema:
        found = [list(_misfits(value, one, whole, at, depth + 1)) for one in schema["anyOf"]]
        if all(found):
            yield found[0][0] if len(found) == 1 else f"{where} must be {described(schema, whole)}, not {_brief(value)}"
        return
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield f"{where} must be {described(schema, whole)}, not {_brief(value)}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where} must be {schema['const']!r}, not {_brief(value)}"
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES and not _is(kind, value):
        yield f"{where} must be {described(schema, whole)}, not {_brief(value)}"
        return
    yield from _bounds(value, schema, where)
    if isinstance(value, dict):
        yield from _in_object(value, schema, whole, at, depth)
    elif isinstance(value, list | tuple):
        first = schema.get("prefixItems", [])
        for number, item in enumerate(value):
            inner = first[number] if number < len(first) else schema.get("items", {})
            if inner is False:
                yield f"{where} has more than {len(first)} items"
            elif isinstance(inner, Mapping):
                yield from _misfits(item, inner, whole, f"{at}[{number}]", depth + 1)


def _in_object(value: dict[Any, Any], schema: Schema, whole: Schema, at: str, depth: int) -> Iterator[str]:
    known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{at or 'the answer'} lacks {name!r}" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        inner = known.get(name, more)
        if inner is False:
            yield f"{at or 'the answer'} has {name!r}, which the form does not ask for"
        elif isinstance(inner, Mapping):
            yield from _misfits(item, inner, whole, f"{at}.{name}" if at else str(name), depth + 1)


def _bounds(value: Any, schema: Schema, where: str) -> Iterator[str]:
    if _TYPES["number"](value):
        for name, (holds, words) in _BOUNDS.items():
            if name in schema and not holds(value, schema[name]):
                yield f"{where} must be {words} {schema[name]}, not {_brief(value)}"
    for name, (kind, fits, words) in _SIZES.items():
        if name in schema and _is(kind, value) and not fits(len(value), schema[name]):
            yield f"{where} must have {words.format(schema[name])}, not {len(value)}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{where} must match {schema['pattern']}, not {_brief(value)}"


def described(schema: Schema, whole: Schema) -> str:
    """What a schema asks for, in a few words."""
    schema = resolved(schema, whole)
    if "anyOf" in schema:
        return " or ".join(described(one, whole) for one in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    kind = str(schema.get("type", "anything"))
    words = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    words |= {"array": "a list", "object": "an object", "null": "nothing"}
    return words.get(kind, kind) + (f" ({schema['format']})" if "format" in schema else "")


def _is(kind: str, value: Any) -> bool:
    try:
        return _TYPES[kind](value)
    except (OverflowError, ValueError):  # an infinite number is no whole one
        return False


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
