"""Views in Redis, shared by the processes of a cluster. Disposable: deleted, they are rebuilt from the log.

Documents are MessagePack, as in every other store, so that they are equal by hash: Lua's numbers would not hold a time
in microseconds and its tables no difference between an empty list and an empty map. So writes are merged here and whole
documents are stored, in one script together with the checkpoint, if the side's bytes are still those that were read
before the documents were. All keys of a party share one hash tag: on a Redis Cluster they lie in one slot.
"""

import asyncio
import copy
from collections.abc import Awaitable, Iterable
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from redis.asyncio import Redis

from ...eventstore.errors import StoreBusyError, StoreCorruptError, StoreError, WrongLogError
from ..ahead import Digest, Documents, DocumentsAhead, apply_to, touched
from ..projection import DEAD_LETTERS, Write, letter_of, letter_writes
from ..sink import MOST_LETTERS, NO_LETTERS, Checkpoint, Id, Letter, Letters, Named, Sizes
from .redis_errors import shown, translated
from .redis_scripts import CLAIM
from .redis_shared import DEADLINE, NOTHING, STORED, Known, Shared, Side

_PAGE = 1_000
_TRIES = 20
_LOOK = 2.0
_FIELDS = msgspec.msgpack.Decoder(dict[str, Any])
_END = b"\xff"


class RedisViews:
    """``log``: whose views they are. ``url``: ``redis://`` or ``rediss://``, with ``?prefix=`` for another name of the
    keys than one after the log. Keys of another party, and a Redis that may forget, are refused at the first call."""

    def __init__(self, url: str, log: bytes = b"") -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        prefix = options.pop("prefix", "") or f"party:{log.hex()[:16]}"
        self.url, self.prefix = url, "{" + prefix + "}:"
        self._address, self._log, self._live = parts._replace(query=urlencode(options)).geturl(), log, True
        self._shared = Shared(self._address)
        self._mine = log or b"no log"

    def beside(self) -> Self:
        other = copy.copy(self)
        other._live = False
        return other

    def _key(self, name: str) -> str:
        return self.prefix + name

    def _documents(self, generation: int) -> tuple[str, str]:
        """The keys of a side's documents and of their names."""
        key = self._key(f"documents:{generation}")
        return key, f"{key}:names"

    async def _call(self, call: Awaitable[Any]) -> Any:
        with translated(self._address):
            async with asyncio.timeout(DEADLINE):
                return await call

    async def _redis(self) -> Redis:
        """The client; at the first call, after a look at what is there."""
        if not self._shared.ready:
            async with self._shared.opening:
                if not self._shared.ready:
                    await self._open()
                    self._shared.ready = True
        return self._shared.client

    async def _open(self) -> None:
        redis = self._shared.client
        memory: dict[str, Any] = await self._call(redis.info("memory"))
        if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
            raise StoreError(
                f"{shown(self._address)}: this Redis forgets keys when memory is short (maxmemory-policy {policy}): "
                "views would lose documents unseen: CONFIG SET maxmemory-policy noeviction, or use another Redis"
            )
        keys = [self._key(name) for name in ("source", "side", "live")]
        if await self._call(redis.eval(CLAIM, len(keys), *keys, self._mine)) != self._mine:
            raise self._not_ours()

    def _not_ours(self) -> WrongLogError:
        return WrongLogError(
            f"{shown(self._address)}: the keys {self.prefix}* are another party's, or nobody knows whose: "
            "choose another name by ?prefix=, or delete them"
        )

    # What stands

    def _field(self, projection: Named, live: bool | None = None) -> str:
        return f"{projection.name}\0{int(self._live if live is None else live)}"

    async def _side(self, projection: Named, live: bool | None = None) -> Side:
        redis, field = await self._redis(), self._field(projection, live)
        return self._met(field, await self._call(redis.hget(self._key("side"), field)))

    def _met(self, field: str, raw: bytes | None) -> Side:
        side = self._read_side(raw)
        self._shared.meet(field, side)
        return side

    def _read_side(self, raw: bytes | None) -> Side:
        if not raw:
            return NOTHING
        try:
            generation, *rest = STORED.decode(raw)
        except msgspec.DecodeError as error:
            raise StoreCorruptError(
                f"{shown(self._address)}: somebody has changed {self._key('side')}: delete the keys {self.prefix}*, "
                "everything is projected anew"
            ) from error
        return Side(raw, generation, Checkpoint(*rest))

    async def checkpoint(self, projection: Named) -> Checkpoint:
        found = (await self._side(projection)).checkpoint
        return found._replace(sizes=dict(found.sizes))

    async def projections(self) -> list[str]:
        redis = await self._redis()
        found: dict[bytes, bytes] = await self._call(redis.hgetall(self._key("side")))
        names = [field.decode().split("\0") for field, raw in found.items() if self._read_side(raw).checkpoint.version]
        return sorted(name for name, live in names if live == str(int(self._live)))

    # Changes

    async def _as_of(self, projection: Named, before: Checkpoint) -> Side | None:
        """The side as it was at a checkpoint, if it is not known to be another by now."""
        side = self._shared.sides.get(self._field(projection))
        if side is None or side.checkpoint.turn != before.turn:
            side = await self._side(projection)
        return side if side.checkpoint.turn == before.turn else None

    async def apply(
        self,
        projection: Named,
        before: Checkpoint,
        after: Sizes,
        writes: Iterable[Write],
        letters: Letters = NO_LETTERS,
    ) -> Checkpoint | None:
        writes = [*writes, *letter_writes(projection, letters)]
        side = await self._as_of(projection, before)
        if side is None:
            return None
        names = touched(writes)
        old = await self._fetch(projection, side, names) if side.checkpoint.sizes else {}
        documents: Documents = {name: _decoded(raw, self._address) for name, raw in old.items() if raw is not None}
        for write in writes:
            apply_to(documents, write)
        new = {name: msgspec.msgpack.encode(fields) for name, fields in documents.items()}
        now = Checkpoint(dict(after), side.checkpoint.turn + 1, projection.version, side.checkpoint.paused)
        if not await self._store(projection, side, now, old, {name: new.get(name) for name in names}):
            return None
        return now

    async def _store(
        self,
        projection: Named,
        side: Side,
        now: Checkpoint,
        old: Known,
        new: Known,
        *,
        empty: bool = False,
    ) -> bool:
        """Put a checkpoint and documents in the place of what stands, if that is still ``side``."""
        redis, field = await self._redis(), self._field(projection)
        generation = side.generation or await self._call(redis.incr(self._key("generation")))
        raw = msgspec.msgpack.encode((generation, *now))
        gone = [_member(*name) for name, document in new.items() if document is None]
        come = [(_member(*name), document) for name, document in new.items() if document is not None]
        added = [_member(*name) for name, document in new.items() if document is not None and old.get(name) is None]
        documents, names = self._documents(generation)
        keys = [self._key("side"), documents, names, self._key("live"), self._key("source")]
        begins = empty or not side.checkpoint.sizes
        arguments: list[Any] = [field, side.raw, raw, int(begins), len(gone), len(come), len(added)]
        arguments += [projection.name if self._live else "", self._mine, *gone]
        for pair in come:
            arguments += pair
        for member in added:
            arguments += (0, member)
        done = await self._call(self._shared.apply(keys=keys, args=arguments))
        if done != 1:
            self._shared.forget(field)
            if done:
                raise self._not_ours()
            return False
        self._shared.move(field, side, Side(raw, generation, now), new, empty=begins)
        return True

    async def drop(self, projection: Named) -> None:
        for _ in range(_TRIES):
            side = await self._side(projection)
            now = Checkpoint({}, side.checkpoint.turn + 1, 0, side.checkpoint.paused)
            if await self._store(projection, side, now, {}, {}, empty=True):
                return
        raise self._contended(projection)

    async def pause(self, projection: Named, reason: str) -> None:
        for _ in range(_TRIES):
            side = await self._side(projection)
            now = side.checkpoint._replace(turn=side.checkpoint.turn + 1, paused=reason)
            if await self._store(projection, side, now, {}, {}):
                return
        raise self._contended(projection)

    def _contended(self, projection: Named) -> StoreBusyError:
        return StoreBusyError(f"{shown(self._address)}: {projection.name} is written all the time: try again")

    async def swap(self, projection: Named, live: Checkpoint, scratch: Checkpoint) -> bool:
        old, new = await self._side(projection, live=True), await self._side(projection, live=False)
        if (old.checkpoint.turn, new.checkpoint.turn) != (live.turn, scratch.turn) or not new.generation:
            return False
        stands = new.checkpoint._replace(turn=live.turn + 1, paused=old.checkpoint.paused)
        ends = Checkpoint(turn=scratch.turn + 1)
        redis = await self._redis()
        spare = old.generation or await self._call(redis.incr(self._key("generation")))
        keys = [self._key("side"), self._key("live"), *self._documents(spare), self._documents(new.generation)[0]]
        arguments: list[Any] = [
            self._field(projection, True),
            old.raw,
            msgspec.msgpack.encode((new.generation, *stands)),
        ]
        arguments += [self._field(projection, False), new.raw, msgspec.msgpack.encode((spare, *ends)), projection.name]
        done = await self._call(self._shared.swap(keys=keys, args=arguments))
        self._shared.forget(self._field(projection, True), self._field(projection, False))
        return bool(done)

    # Questions

    def ahead(self, projection: Named, before: Checkpoint) -> DocumentsAhead:
        return DocumentsAhead(projection, self if before.sizes else None)

    async def _fetch(self, projection: Named, side: Side, names: list[tuple[str, str]]) -> Known:
        """Documents of a side; those that were read or written at this very turn are known."""
        field = self._field(projection)
        known = self._shared.known(field, side)
        documents = {name: known[name] for name in names if name in known}
        missing = [name for name in names if name not in documents]
        if missing:
            redis, key = await self._redis(), self._documents(side.generation)[0]
            for first in range(0, len(missing), _PAGE):
                some = missing[first : first + _PAGE]
                found = await self._call(redis.hmget(key, [_member(*name) for name in some]))
                documents.update(zip(some, found, strict=True))
            self._shared.learn(field, side, documents)
        return documents

    async def read(self, projection: Named, view: str, key: str) -> dict[str, Any] | None:
        side = self._shared.sides.get(self._field(projection)) or await self._side(projection)
        raw = (await self._fetch(projection, side, [(view, key)]))[view, key]
        return None if raw is None else _decoded(raw, self._address)

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        await self._redis()
        raw = await self._call(self._shared.get(keys=[self._key("live")], args=[_member(view, key)]))
        return None if raw is None else _decoded(raw, self._address)

    async def scan(
        self, view: str, prefix: str = "", limit: int = 10_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        for _ in range(_TRIES):
            found = await self._scan(view, prefix, limit, after)
            if found is not None:
                return [(key, _decoded(raw, self._address)) for key, raw in found]
        raise StoreBusyError(f"{shown(self._address)}: projections are swapped all the time: try again")

    async def _scan(self, view: str, prefix: str, limit: int, after: str) -> list[tuple[str, bytes]] | None:
        """In pages, so that Redis is never held up; None if a rebuild was swapped in between two of them."""
        await self._redis()
        first = b"(" + _member(view, after) if after and after >= prefix else b"[" + _member(view, prefix)
        last, found = b"(" + _member(view, prefix) + _END, list[tuple[str, bytes]]()
        lives: list[bytes] | None = None
        while len(found) < limit:
            wanted = min(_PAGE, limit - len(found))
            live, *pairs = await self._call(self._shared.scan(keys=[self._key("live")], args=[first, last, wanted]))
            if lives is not None and sorted(live) != lives:
                return None
            lives = sorted(live)
            page = sorted((m, raw) for names, raws in zip(pairs[::2], pairs[1::2], strict=True)
                          for m, raw in zip(names, raws, strict=True))[:wanted]  # fmt: skip
            found += [(member.split(b"\0", 1)[1].decode(), raw) for member, raw in page if raw is not None]
            if len(page) < wanted:
                break
            first = b"(" + page[-1][0]
        return found[:limit]

    async def letters(self, projection: Named) -> dict[str, Letter]:
        found, after = dict[str, Letter](), (DEAD_LETTERS, "")
        while len(found) < MOST_LETTERS:
            page = [fields for (view, _), fields in await self.items(projection, after) if view == DEAD_LETTERS]
            found |= {letter.stream: letter for letter in map(letter_of, page)}
            if len(page) < _PAGE:
                break
            after = (DEAD_LETTERS, f"{projection.name}/{page[-1]['stream']}")
        return found

    async def digest(self, projection: Named) -> str:
        for _ in range(_TRIES):
            before = await self._side(projection)
            digest, after = Digest(before.checkpoint.sizes), Id()
            while page := await self.items(projection, after):
                for (view, key), fields in page:
                    digest.add(view, key, fields)
                after = page[-1][0]
            if await self._side(projection) == before:
                return digest.hex()
        raise self._contended(projection)

    async def items(self, projection: Named, after: Id = (), limit: int = _PAGE) -> list[tuple[Id, Any]]:
        side, redis = await self._side(projection), await self._redis()
        key, names = self._documents(side.generation)
        first = b"(" + _member(*after) if after else b"-"
        found = await self._call(redis.zrangebylex(names, first, b"+", 0, limit))
        raws = await self._call(redis.hmget(key, found)) if found else []
        listed = [(_id(member), _shown(raw)) for member, raw in zip(found, raws, strict=True)]
        if len(found) < limit and after[:1] != _UNLISTED:
            count, members = await self._call(redis.hlen(key)), await self._call(redis.zcard(names))
            if count != members:  # somebody was here: a document without a name, or a name without one
                listed.append(((*_UNLISTED, ""), {"documents": count, "names": members}))
        return listed

    async def changed(self, projection: Named, turn: int, timeout: float) -> None:
        redis = await self._redis()
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        listening = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await self._call(listening.subscribe(f"{self._key('side')}:{self._field(projection)}"))
            while (await self._side(projection)).checkpoint.turn == turn and (left := until - clock()) > 0:
                with translated(self._address):  # looked at again all the same: a message may be lost
                    await listening.get_message(timeout=min(left, _LOOK))
        finally:
            await listening.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._shared.close()


_UNLISTED = ("\U0010fffe",)


def _member(view: str, key: str) -> bytes:
    return f"{view}\0{key}".encode()


def _id(member: bytes) -> Id:
    view, _, key = member.decode("utf-8", "replace").partition("\0")
    return view, key


def _decoded(raw: bytes, url: str) -> dict[str, Any]:
    try:
        return _FIELDS.decode(raw)
    except msgspec.DecodeError as error:
        text = "somebody has changed a document: `party projection check` shows which, `rebuild` mends it"
        raise StoreCorruptError(f"{shown(url)}: {text}") from error


def _shown(raw: bytes | None) -> Any:
    """A document as it can be compared with another: what is none is shown as it lies there."""
    try:
        return {"no document": True} if raw is None else _FIELDS.decode(raw)
    except msgspec.DecodeError:
        return {"not a document": raw}
