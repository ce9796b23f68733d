"""Values as they are recorded: MessagePack, and errors as class name and text."""

import contextlib
import functools
import typing
import weakref
from collections.abc import Callable
from typing import Any

import msgspec

from ..eventstore.errors import PayloadError
from .events import Failure

MAX_VALUE = 16 * 1024 * 1024
"""Largest value that a task records in one piece, in bytes; what is larger is an artifact, or several."""
_MESSAGE = 2_000
_plain = msgspec.msgpack.Encoder()
_ordered = msgspec.msgpack.Encoder(order="deterministic")


def pack(value: Any, what: str) -> bytes:
    """A value as MessagePack; `PayloadError` says what cannot be stored."""
    return _packed(_plain, value, what)


def pack_input(value: Any, what: str) -> bytes:
    """The same, for what is compared on replay: the same bytes in every process, so sets and keys of dicts sorted."""
    try:
        return _packed(_ordered, value, what)
    except PayloadError:
        return _packed(_plain, value, what)  # keys that are not text, or that cannot be sorted, stay as they come


def _packed(encoder: msgspec.msgpack.Encoder, value: Any, what: str) -> bytes:
    try:
        packed = encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(
            f"{what} cannot be stored ({error}): use numbers, text, bytes, lists, dicts, dataclasses or Structs"
        ) from error
    if len(packed) > MAX_VALUE:
        raise PayloadError(f"{what} has {len(packed):,} bytes, over the limit of {MAX_VALUE:,}: keep it as an artifact")
    return packed


def unpack(data: bytes, kind: Any) -> Any:
    """A recorded value as its declared type; as it lies in MessagePack where the type cannot be decoded into."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (TypeError, msgspec.ValidationError):
        return msgspec.msgpack.decode(data)


def name_of(function: Callable[..., Any]) -> str:
    """A function's name, the same in every process."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


_returns: weakref.WeakKeyDictionary[Callable[..., Any], Any] = weakref.WeakKeyDictionary()


def returns(function: Callable[..., Any]) -> Any:
    """The declared type of what a function returns, as far as it can be found."""
    try:
        return _returns[function]
    except (KeyError, TypeError):  # not seen before, or one that cannot be remembered
        found = _declared(function)
    with contextlib.suppress(TypeError):
        _returns[function] = found
    return found


def _declared(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


def failure_of(error: BaseException) -> Failure:
    """An error as it can be recorded, whatever its text is."""
    try:
        text = str(error)
    except Exception:  # an error that cannot even say what it is
        text = ""
    if isinstance(error, TimeoutError) and not text:
        text = "it took longer than its timeout"
    return Failure(type(error).__name__, text[:_MESSAGE].encode("utf-8", "replace").decode())
