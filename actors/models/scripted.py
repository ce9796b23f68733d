"""A model for tests: it says what it was told to say."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from ..model import (
    LIMIT,
    Cost,
    Emit,
    ModelAnswer,
    ModelNoAnswerError,
    ModelRequest,
    ModelTooMuchError,
    Prices,
    ToolCall,
    Usage,
)

REMEMBERED = 10_000
"""How many requests a scripted model keeps for tests to look at."""
Scripted = str | ModelAnswer | BaseException | Callable[[], Awaitable[Any]]


def calling(name: str, /, **arguments: Any) -> ModelAnswer:
    """An answer that calls a tool."""
    return ModelAnswer(calls=[ToolCall("", name, msgspec.json.encode(arguments).decode())], finish="tool_calls")


def at_once(*answers: ModelAnswer) -> ModelAnswer:
    """One answer that makes the calls of several."""
    return ModelAnswer(calls=[call for answer in answers for call in answer.calls], finish="tool_calls")


async def hang() -> None:
    """In a script: the model never answers, until the call is given up."""
    await asyncio.Event().wait()


class ScriptedModel:
    """Answers from a script, in order over all calls, or by a function of the request.

    An answer is a text, a `ModelAnswer`, an error to be raised (a `ModelTimeoutError`, say), or an async function to be
    awaited first, such as `hang`. A text over ``limit`` bytes is a `ModelTooMuchError`; one that fits no tool or type
    is nonsense like any model's. ``piece``: stream the text in pieces of so many letters. An order is kept by the
    object alone, so a script for several processes is a function. ``requests``: what it was asked, the latest last.
    """

    def __init__(
        self,
        script: Sequence[Scripted] | Callable[[ModelRequest], Scripted],
        *,
        name: str = "scripted",
        prices: Prices | None = None,
        piece: int = 0,
        limit: int = LIMIT,
    ) -> None:
        self._script = script if callable(script) else list(script)
        self._name, self._prices, self._piece, self._limit = name, prices, piece, limit
        self._next = 0
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """What it was called."""
        return self._name

    def price(self, usage: Usage) -> Cost | None:
        """By the prices it was given."""
        return self._prices.cost(usage) if self._prices else None

    async def complete(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """The next answer of the script; `ModelNoAnswerError` after the last one."""
        self.requests = [*self.requests[1 - REMEMBERED :], request]
        scripted = self._take(request)
        if isinstance(scripted, BaseException):
            raise scripted
        if not isinstance(scripted, str | ModelAnswer):
            await scripted()
            scripted = ModelAnswer()
        answer = ModelAnswer(scripted) if isinstance(scripted, str) else scripted
        self._stream(answer.text, emit)
        usage = answer.usage
        if usage == Usage():
            written = answer.text + "".join(call.arguments for call in answer.calls)
            usage = Usage(sum(_tokens(message.content) for message in request.messages), _tokens(written))
        cost = answer.cost or self.price(usage)
        return msgspec.structs.replace(answer, usage=usage, cost=cost, model=answer.model or self._name)

    def _take(self, request: ModelRequest) -> Scripted:
        number, self._next = self._next, self._next + 1
        if not isinstance(self._script, list):
            return self._script(request)
        if number >= len(self._script):
            raise ModelNoAnswerError(
                f"the script of {self._name} has {len(self._script)} answers; this is call {number + 1}"
            )
        return self._script[number]

    def _stream(self, text: str, emit: Emit) -> None:
        size = self._piece or max(1, len(text))
        told = 0
        for start in range(0, len(text), size):
            piece = text[start : start + size]
            told += len(piece.encode("utf-8", "replace"))
            if told > self._limit:
                raise ModelTooMuchError(f"the answer of {self._name} has more than {self._limit:,} bytes")
            emit(piece)


def _tokens(text: str) -> int:
    """Near enough to a tokenizer for a test: words."""
    return len(text.split())
