"""Values from the log as plain data for JSON and for people: packed values opened, bytes in hex, times in ISO form."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec

from ..actors.agent_events import Remembered
from ..actors.agent_state import AgentState
from ..actors.events import Checkpointed, Completed, Freed, Opened, Requested, Settled, Signed, Stated
from ..actors.statements import Approval, Statement
from ..actors.task_state import TaskState, WaitState

_PACKED: dict[type, frozenset[str]] = {
    Requested: frozenset({"input"}),
    Opened: frozenset({"input", "terms"}),
    Settled: frozenset({"value"}),
    Checkpointed: frozenset({"state"}),
    Completed: frozenset({"result"}),
    Remembered: frozenset({"value"}),
    Stated: frozenset({"statement"}),
    Statement: frozenset({"shown", "terms", "answer"}),
    Signed: frozenset({"statement"}),
    Freed: frozenset({"statement"}),
    Approval: frozenset({"statement"}),
    TaskState: frozenset({"input", "checkpoint", "result"}),
    WaitState: frozenset({"input", "terms"}),
}
"""Fields that hold MessagePack."""
_DEPTH = 100


def plain(value: Any, depth: int = 0) -> Any:
    """The value in the types that JSON has. What has no form there comes as its text."""
    if value is None or isinstance(value, bool | int) or type(value) is str:
        return value
    if depth > _DEPTH:
        return "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, str):
        return str(value)
    return _composed(value, depth + 1)


def _composed(value: Any, depth: int) -> Any:
    if isinstance(value, msgspec.Struct):
        return _struct(value, depth)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part, depth) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {_key(key): plain(part, depth) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, depth) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(part, depth) for part in value), key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), depth) for field in dataclasses.fields(value)}
    try:
        return plain(msgspec.to_builtins(value), depth)
    except (TypeError, ValueError):
        return str(value)


def _struct(value: msgspec.Struct, depth: int) -> dict[str, Any]:
    packed = _PACKED.get(type(value), frozenset())
    fields = {
        name: opened(part, depth) if name in packed and isinstance(part, bytes) else plain(part, depth)
        for name in value.__struct_fields__
        for part in [getattr(value, name)]
    }
    if isinstance(value, AgentState):
        fields["memory"] = {key: opened(packed, depth) for key, packed in value.memory.items()}
    return fields


def _key(key: Any) -> str:
    return key if type(key) is str else str(plain(key))


def opened(packed: bytes, depth: int = 0) -> Any:
    """A packed value, plain; in hex if it is not MessagePack."""
    try:
        return plain(msgspec.msgpack.decode(packed), depth)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return packed.hex()


def iso(microseconds: int) -> str:
    """A time of the log, microseconds since 1970, in ISO form; a number beyond the calendar comes as it is."""
    try:
        moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)
    except (ValueError, OverflowError, OSError):
        return f"{microseconds} µs since 1970"
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def short_time(microseconds: int) -> str:
    """The same for a table: to the second."""
    return iso(microseconds).partition(".")[0].replace("T", " ")


def changes(before: Any, after: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """What differs between two plain values: ``path``, and ``before`` and ``after`` where there was or is something."""
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(f"{path}.{key}" if path else key, key) for key in {**before, **after}]
        sides: tuple[Any, Any] = before, after
    elif isinstance(before, list) and isinstance(after, list):
        pairs = [(f"{path}[{index}]", index) for index in range(max(len(before), len(after)))]
        sides = dict(enumerate(before)), dict(enumerate(after))
    else:
        yield {"path": path, "before": before, "after": after}
        return
    for name, key in pairs:
        if key not in sides[0]:
            yield {"path": name, "after": sides[1][key]}
        elif key not in sides[1]:
            yield {"path": name, "before": sides[0][key]}
        else:
            yield from changes(sides[0][key], sides[1][key], name)
