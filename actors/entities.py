"""Entities: deciders' streams, live in this process from the first command on."""

import asyncio
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from ..eventstore.codec import event_type
from ..eventstore.log import Log
from ..eventstore.snapshots import Snapshots
from .activation import Activation, Fold
from .decider import Decider, Reply, stream_of
from .doorman import Doorman
from .errors import DeadlineError, MailboxFullError, MovedError
from .packing import pack_input

MAILBOX = 1_000
"""How many commands may wait for one entity."""
LIVE = 20_000
_TRIES = 10


class Entities:
    """``lock(stream)`` guards an activation."""

    def __init__(
        self, log: Log, doorman: Doorman, snapshots: Snapshots | None, lock: Callable[[str], asyncio.Lock]
    ) -> None:
        self._log, self._doorman, self._snapshots, self._lock = log, doorman, snapshots, lock
        self._live: dict[str, Activation[Any]] = {}
        self._waiting: dict[str, int] = {}

    async def send(
        self, decider: type[Decider[Any, Any, Any]], name: str, command: Any, command_id: bytes, deadline: float
    ) -> Reply[Any]:
        """Have an entity handle a command. Raises `DeadlineError`, `MailboxFullError`, or what `decide` raised."""
        stream = stream_of(decider.kind, name)
        if self._waiting.get(stream, 0) >= MAILBOX:
            raise MailboxFullError(f"{MAILBOX:,} commands wait for {stream}: retry later with the same id")
        self._waiting[stream] = self._waiting.get(stream, 0) + 1
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                return await self._send(decider(), stream, command, command_id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError(f"{stream} did not answer within {deadline:g} s: ask again with the same id") from None
        finally:
            self._waiting[stream] -= 1
            if not self._waiting[stream]:
                del self._waiting[stream]

    async def _send(self, decider: Decider[Any, Any, Any], stream: str, command: Any, command_id: bytes) -> Reply[Any]:
        # The class is part of the request: two commands may have the same fields.
        request = pack_input((type(command).__qualname__, command), f"a command to {stream}")
        for _ in range(_TRIES):
            activation = await self._activate(decider, stream)
            try:
                events = await activation.command(command_id, request, lambda state: decider.decide(command, state))
                return Reply(activation.state, activation.folded.revision, events)
            except MovedError:
                if self._live.get(stream) is activation:
                    del self._live[stream]
        raise MovedError(f"{stream} is taken over again and again by other processes: retry later with the same id")

    async def _activate(self, decider: Decider[Any, Any, Any], stream: str) -> Activation[Any]:
        async with self._lock(stream):
            if stream not in self._live:
                for cls in decider.events:
                    self._log.codec.add(cls)
                activation: Activation[Any] = Activation(self._log, entity_fold(decider), stream, self._snapshots)
                await activation.start(self._doorman.writer)
                if len(self._live) >= LIVE:
                    self._live.pop(next(iter(self._live))).snapshot()
                self._live[stream] = activation
            return self._live[stream]

    def close(self) -> None:
        """Passivate all of them."""
        for activation in self._live.values():
            activation.snapshot()
        self._live.clear()


def entity_fold(decider: Decider[Any, Any, Any]) -> Fold[Any]:
    """The fold of an entity's stream."""

    def evolve(state: Any, commit: Any) -> Any:
        for event in commit.events:
            state = decider.evolve(state, event)
        return state

    # A program with other events, or other versions of them, must not skip what it could not read.
    marks = sorted((mark.name.decode(), mark.version) for mark in map(event_type, decider.events))
    program = "/".join([decider.kind, str(decider.state_version), *(f"{name}:{version}" for name, version in marks)])
    return Fold(decider.initial, evolve, _state_type(decider), program, trusted=False)


def _state_type(decider: Decider[Any, Any, Any]) -> Any:
    """The type of a decider's state, as its base class names it; else as its initial state shows."""
    for cls in type(decider).__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if typing.get_origin(base) is Decider and not isinstance(found := typing.get_args(base)[0], typing.TypeVar):
                try:
                    msgspec.msgpack.Decoder(found)
                except TypeError:  # a name as text, or a type that MessagePack cannot be decoded into
                    continue
                return found
    kind = type(decider.initial())
    return Any if kind is type(None) else kind
