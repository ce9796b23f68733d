"""Entities: deciders' streams, live in this process from the first command on."""

import asyncio
import itertools
import typing
from collections import OrderedDict
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
from .passivation import LIVE, WORTH, Kept
from .racing import let_finish

MAILBOX = 1_000
"""How many commands may wait for one entity."""


class Entities:
    """Live ones from the one that has been silent the longest to the one that was used last. ``lock(stream)`` guards an
    activation."""

    def __init__(
        self, log: Log, doorman: Doorman, snapshots: Snapshots | None, lock: Callable[[str], asyncio.Lock]
    ) -> None:
        self._log, self._doorman, self._snapshots, self._lock = log, doorman, snapshots, lock
        self._live: OrderedDict[str, Activation[Any]] = OrderedDict()
        self._used: dict[str, float] = {}
        self._kept = Kept()
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
        while True:  # until the sender's deadline
            activation = await self._activate(decider, stream)
            try:
                events = await activation.command(command_id, request, lambda state: decider.decide(command, state))
                return Reply(activation.state, activation.folded.revision, events)
            except MovedError:
                if not activation.ended:
                    raise

    async def _activate(self, decider: Decider[Any, Any, Any], stream: str) -> Activation[Any]:
        async with self._lock(stream):
            activation = self._live.get(stream)
            if activation is None or activation.ended:
                for cls in decider.events:
                    self._log.codec.add(cls)
                if activation:
                    await let_finish(self._log, stream)
                activation = Activation(self._log, entity_fold(decider), stream, self._snapshots)
                await activation.start(self._doorman.writer, await self._kept.take(self._log, stream))
                if len(self._live) >= LIVE:
                    self._rest(next((name for name in self._live if name not in self._waiting), next(iter(self._live))))
                self._live[stream] = activation
            self._live.move_to_end(stream)
            self._used[stream] = asyncio.get_running_loop().time()
            return activation

    def _rest(self, stream: str) -> None:
        """Take an entity out of memory; its key and grant are kept."""
        activation = self._forget(stream)
        activation.snapshot(WORTH)
        if not activation.ended:
            self._kept.keep(activation.writer)

    def _forget(self, stream: str) -> Activation[Any]:
        self._used.pop(stream, None)
        return self._live.pop(stream)

    def sweep(self, idle: float) -> None:
        """Passivate what nobody has asked anything of for so many seconds."""
        until = asyncio.get_running_loop().time() - idle
        silent = itertools.takewhile(lambda stream: self._used[stream] < until, self._live)
        for stream in [stream for stream in silent if stream not in self._waiting]:
            self._rest(stream)

    def close(self) -> None:
        """Passivate all of them."""
        for activation in self._live.values():
            activation.snapshot()
        self._live.clear()
        self._used.clear()


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
