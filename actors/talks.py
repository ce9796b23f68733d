"""What is recorded of requests to models: of each only what is new in it, so that a conversation's record grows with
what is said, and not with its square."""

from typing import Any, NamedTuple

import msgspec

from .model import Message, ModelRequest

ENDS = 64
"""From how many conversations of a task a request may go on; from an older one it is recorded whole again."""
_OTHERS = tuple(name for name in ModelRequest.__struct_fields__ if name != "messages")


class More(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request that goes on from an earlier one of the same task, as it is recorded.

    ``after``: which one, counted from 0 in the order in which the handler made them. Its messages come first, then its
    answer, then ``messages``. ``changed``: what else of the request is not as it was there, by field.
    """

    after: int
    messages: list[Message]
    changed: dict[str, Any] = {}


class _End(NamedTuple):
    number: int
    request: ModelRequest
    answer: Message


class Talks:
    """How far the conversations of a task have come in this run of its handler. The same on replay: what is looked up
    here was said before, in the recorded order."""

    def __init__(self) -> None:
        self._made = 0
        self._ends: list[_End] = []

    def told(self, request: ModelRequest) -> tuple[int, ModelRequest | More]:
        """The number of a request, and how it is recorded."""
        number, self._made = self._made, self._made + 1
        before = max((end for end in self._ends if _goes_on(end, request)), key=_length, default=None)
        if before is None:
            return number, request
        changed = {
            name: getattr(request, name) for name in _OTHERS if getattr(request, name) != getattr(before.request, name)
        }
        return number, More(after=before.number, messages=request.messages[_length(before) :], changed=changed)

    def answered(self, number: int, request: ModelRequest, answer: Message) -> None:
        """A request has its answer: from here its conversation may go on."""
        self._ends = [end for end in self._ends if not _goes_on(end, request)][1 - ENDS :]
        self._ends.append(_End(number, request, answer))


def _length(end: _End) -> int:
    return len(end.request.messages) + 1


def _goes_on(end: _End, request: ModelRequest) -> bool:
    said = len(end.request.messages)
    return (
        len(request.messages) > said
        and request.messages[said] == end.answer
        and request.messages[:said] == end.request.messages
    )
