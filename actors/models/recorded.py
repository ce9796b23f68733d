"""A model that answers from a file: what another model once said to the same request."""

import asyncio
import os
from pathlib import Path

import msgspec

from ..errors import ConfigurationError
from ..model import Cost, Emit, Model, ModelAnswer, ModelNoAnswerError, ModelRequest, Usage

_SHOWN = 80


class _Line(msgspec.Struct):
    """One line of the file. The request stands there for people; its digest is what is looked up."""

    digest: str
    name: str
    request: ModelRequest
    answer: ModelAnswer


class RecordedModel:
    """Answers a request as the file at ``path`` does; with a model ``behind`` it, asks that once and writes it down.

    The file has a line of JSON a request: the same request (see `ModelRequest.digest`) has the same answer for ever,
    whichever model is behind; to ask again, delete its line. A request that is not recorded is a `ModelNoAnswerError`
    where nothing is behind. What is behind it may raise: errors are not recorded. The file holds what was asked and
    answered, in clear, readable by its owner only; it is not read again while the model lives.
    """

    def __init__(self, path: str | os.PathLike[str], behind: Model | None = None) -> None:
        self._path, self._behind = Path(path), behind
        self._known: dict[str, ModelAnswer] | None = None
        self._name = behind.name if behind else ""
        self._torn: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self._path), self._behind)

    @property
    def name(self) -> str:
        """That of the model behind it, or of the one that was recorded first."""
        if not self._name:
            self._load()
        return self._name or "recorded"

    def price(self, usage: Usage) -> Cost | None:
        """That of the model behind it. Replayed answers carry the cost that they had."""
        return self._behind.price(usage) if self._behind else None

    async def complete(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """The recorded answer, its text in one piece."""
        known, digest = self._load(), request.digest()
        answer = known.get(digest)
        if answer is not None:
            emit(answer.text)
            return answer
        if self._behind is None:
            last = request.messages[-1].content[:_SHOWN]
            raise ModelNoAnswerError(
                f"{self._path} holds no answer to request {digest[:12]} (its last message: {last!r}): "
                "record one with RecordedModel(path, behind=a model)"
            )
        answer = await self._behind.complete(request, emit)
        if digest in known:  # asked twice at once
            return known[digest]
        known[digest] = answer
        line = msgspec.json.encode(_Line(digest, self.name, request, answer))
        await asyncio.shield(asyncio.to_thread(self._append, line))
        return answer

    def _load(self) -> dict[str, ModelAnswer]:
        if self._known is not None:
            return self._known
        known: dict[str, ModelAnswer] = {}
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise ConfigurationError(f"the recorded answers in {self._path} cannot be read: {error}") from error
        *lines, rest = content.split(b"\n")
        self._torn = len(content) - len(rest) if rest else None  # its writer died over it
        for number, line in enumerate(lines, 1):
            try:
                found = msgspec.json.decode(line, type=_Line)
            except (msgspec.DecodeError, UnicodeError) as error:
                raise ConfigurationError(f"line {number} of {self._path} is no recorded answer: {error}") from error
            known.setdefault(found.digest, found.answer)
            self._name = self._name or found.name
        self._known = known
        return known

    def _append(self, line: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if self._torn is not None:
                    os.truncate(file, self._torn)
                    self._torn = None
                os.write(file, line + b"\n")
            finally:
                os.close(file)
        except OSError as error:
            raise ConfigurationError(f"the answer cannot be recorded in {self._path}: {error}") from error
