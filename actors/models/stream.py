"""An answer as an OpenAI-compatible server streams it: server-sent events, each a piece of the answer as JSON.

The formats: https://html.spec.whatwg.org/multipage/server-sent-events.html and
https://platform.openai.com/docs/api-reference/chat-streaming. Bytes come from outside, so each step here has a limit.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ..model import Count, Emit, ModelAnswer, ModelBusyError, ModelNonsenseError, ModelTooMuchError, ToolCall, Usage

MAX_CALLS = 128
"""How many tools an answer may call."""
_OVERHEAD = 65_536
_SHOWN = 200


class Events:
    """Splits bytes into the data of server-sent events; `ModelTooMuchError` for one over the limit of bytes."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit = name, limit + _OVERHEAD
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The events that these bytes complete."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        self.check(len(self._rest))
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
                self.check(self._size)
            elif not line:
                yield from self.end()

    def end(self) -> Iterator[bytes]:
        """The event that is complete because nothing follows it."""
        if self._data:
            yield b"\n".join(self._data)
        self._data, self._size = [], 0

    def check(self, size: int) -> None:
        """`ModelTooMuchError` if so many bytes are too many."""
        if size > self._limit:
            raise ModelTooMuchError(f"{self._name} sends more than {self._limit:,} bytes in one piece")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_chunks = msgspec.json.Decoder(_Chunk)


class _Tool:
    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []


class Assembly:
    """Puts an answer together from its pieces. ``limit``: bytes of text and arguments."""

    def __init__(self, name: str, limit: int, emit: Emit) -> None:
        self._name, self._limit, self._emit = name, limit, emit
        self._text: list[str] = []
        self._tools: dict[int, _Tool] = {}
        self._size = 0
        self._usage: Usage | None = None
        self._finish = self._model = ""
        self._refused = self._any = False

    def add(self, data: bytes) -> bool:
        """One event's data; False if it was the last. Raises `ModelNonsenseError` and `ModelTooMuchError`."""
        if data.strip() == b"[DONE]":
            self._finish = self._finish or "stop"
            return False
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeError) as error:
            shown = data[:_SHOWN].decode("utf-8", "replace")
            raise ModelNonsenseError(f"{self._name} sends what is no piece of an answer ({error}): {shown}") from error
        if chunk.error:
            raise ModelBusyError(f"{self._name} broke off its answer: {str(chunk.error)[:_SHOWN]}")
        self._model = chunk.model or self._model
        if chunk.usage:
            details = chunk.usage.prompt_tokens_details
            cached = (details and details.cached_tokens) or 0
            self._usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached)
        for choice in (chunk.choices or [])[:1]:
            self._any = True
            self._finish = choice.finish_reason or self._finish
            if delta := choice.delta or choice.message:
                self._extend(delta)
        return True

    def _extend(self, delta: _Delta) -> None:
        self._refused = self._refused or bool(delta.refusal)
        for text in (delta.content, delta.refusal):
            if text:
                self._count(text)
                self._text.append(text)
                self._emit(text)
        for place, call in enumerate(delta.tool_calls or []):
            tool = self._tools.setdefault(place if call.index is None else call.index, _Tool())
            if len(self._tools) > MAX_CALLS:
                raise ModelTooMuchError(f"{self._name} calls more than {MAX_CALLS} tools at once")
            tool.id = tool.id or call.id or ""
            if call.function:
                tool.name = tool.name or call.function.name or ""
                self._count(tool.name)
                self._count(call.function.arguments or "")
                tool.arguments.append(call.function.arguments or "")

    def _count(self, text: str) -> None:
        self._size += len(text.encode("utf-8", "replace"))
        if self._size > self._limit:
            raise ModelTooMuchError(f"the answer of {self._name} has more than {self._limit:,} bytes")

    def answer(self, bound: Usage) -> ModelAnswer:
        """The whole answer; ``bound`` is the usage where the server has not said any.

        Raises `ModelBusyError` if the server stopped in the middle, `ModelNonsenseError` if there is none.
        """
        if self._finish and not self._any:
            raise ModelNonsenseError(f"{self._name} ends without an answer")
        if not self._finish:
            raise ModelBusyError(f"{self._name} broke off in the middle of its answer")
        calls = [ToolCall(t.id, t.name, "".join(t.arguments) or "{}") for _, t in sorted(self._tools.items())]
        finish = "content_filter" if self._refused else self._finish
        usage = self._usage
        if usage is None:
            usage = Usage(bound.input_tokens, min(bound.output_tokens, self._size), estimated=True)
        return ModelAnswer("".join(self._text), calls, finish, usage, model=self._model or self._name)
