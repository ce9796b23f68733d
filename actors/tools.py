"""What a model may call: typed functions, which become steps, and capabilities, which become children."""

import copy
import functools
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import ConfigurationError
from .model import ModelNonsenseError, ToolCall, ToolSpec

if TYPE_CHECKING:
    from .task import Task

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANYTHING: Mapping[str, Any] = {"type": "object", "additionalProperties": True}
Describe = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Gives the JSON schema of a capability's input, as far as it is known now."""


class Tool:
    """A tool of one conversation. ``input``: the type its arguments are read as; None: any object."""

    def __init__(self, spec: ToolSpec, input: Any, run: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:  # noqa: A002
        self.spec, self.run = spec, run
        self._input = input

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """The arguments of a call, converted; `ModelNonsenseError` tells the model what does not fit."""
        try:
            given = msgspec.json.decode(call.arguments, type=self._input or dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ModelNonsenseError(f"the arguments of {call.name} do not fit: {error}") from error
        if self._input is None:
            return dict(given)
        return {name: getattr(given, name) for name in self._input.__struct_fields__}


async def tools_of(
    task: "Task", given: Sequence[Callable[..., Any] | str], describe: Describe | None
) -> dict[str, Tool]:
    """The tools by the names that the model calls them by. `ConfigurationError` for what cannot be a tool.

    A function that takes a `Task` first is a handler, and text a capability's name: to call it is to delegate. What is
    known of a capability by name is recorded, so that a task that is gone over again tells the model the same.
    """
    if len(given) > MAX_TOOLS:
        raise ConfigurationError(f"{len(given)} tools are more than the {MAX_TOOLS} that there may be")
    tools: dict[str, Tool] = {}
    for target in given:
        tool = await _capability(task, target, describe) if isinstance(target, str) else _function(task, target)
        if tool.spec.name in tools:
            raise ConfigurationError(f"two tools are called {tool.spec.name}: give one of them another name")
        tools[tool.spec.name] = tool
    return tools


def _function(task: "Task", function: Callable[..., Any]) -> Tool:
    from .task import Task

    name = getattr(function, "__name__", type(function).__name__)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be a tool's name: give a function with a name of its own")
    parameters, hints = _signature(name, function)
    handles = bool(parameters) and hints.get(parameters[0].name) is Task
    kind = _input(name, parameters[handles:], hints)
    spec = ToolSpec(name, inspect.getdoc(function) or "", schema_of(kind, f"the arguments of {name}"))
    if handles:
        return Tool(spec, kind, lambda arguments: task.ask(function, **arguments))
    by_place = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]

    def run(arguments: dict[str, Any]) -> Awaitable[Any]:
        places = [arguments.pop(place) for place in by_place]
        return task.step(function, *places, **arguments)

    return Tool(spec, kind, run)


async def _capability(task: "Task", capability: str, describe: Describe | None) -> Tool:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", capability)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{capability!r} cannot be a tool: a tool's name has 1 to 64 letters")

    schema = dict(_ANYTHING)
    if describe is not None:

        async def look(capability: str) -> dict[str, Any]:
            return dict(await describe(capability))

        look.__qualname__ = f"tool {capability}"
        schema = await task.step(look, capability)
    return Tool(
        ToolSpec(name, f"Delegates to {capability}.", schema), None, lambda given: task.ask(capability, **given)
    )


def _signature(name: str, function: Callable[..., Any]) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"the signature of {name} cannot be read: {error}") from error
    return parameters, hints


def _input(name: str, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> Any:
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{name} cannot be a tool: *args, **kwargs and unnamed inputs cannot be told")
        field: tuple[Any, ...] = (parameter.name, hints.get(parameter.name, Any))
        if parameter.default is not parameter.empty:
            default = parameter.default
            plain = default is None or isinstance(default, str | int | float | bool)  # told to the model, then
            field += (default if plain else msgspec.field(default_factory=functools.partial(copy.deepcopy, default)),)
        fields.append(field)
    try:
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the signature of {name} cannot be told to a model: {error}") from error


def schema_of(kind: Any, what: str) -> dict[str, Any]:
    """The JSON schema of a type, with the type itself at its root: some servers follow no reference there."""
    try:
        schema = msgspec.json.schema(kind)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{what} have no JSON schema: {error}") from error
    root = schema.get("$ref", "").removeprefix("#/$defs/")
    if not root:
        return schema
    others = {name: one for name, one in schema["$defs"].items() if name != root}
    inlined = dict(schema["$defs"][root])
    if f'"#/$defs/{root}"' in msgspec.json.encode([inlined, others]).decode():
        others = schema["$defs"]  # it refers to itself
    return {**inlined, "$defs": others} if others else inlined
