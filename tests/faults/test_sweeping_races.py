"""Writers and sweeps at once, at random speeds: whatever the log names can be read. Planted bugs are caught."""

import asyncio
import contextlib
import hashlib
import inspect
import random
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_party.eventstore import puts as puts_module
from agent_party.eventstore import sweeping as sweeping_module
from agent_party.eventstore.backends.blob_memory import MemoryBlobs
from agent_party.eventstore.blobs import Stored
from agent_party.eventstore.codec import Codec, event
from agent_party.eventstore.errors import BlobError, StoreBusyError
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.log import Log
from agent_party.eventstore.puts import Puts
from tests.eventstore_kit import Site

ROUNDS, WRITERS, COMMITS = 40, 3, 6


@event("page.named")
class Named(msgspec.Struct, frozen=True):
    """An event that names blobs."""

    attachments: list[bytes]


class Slow(MemoryBlobs):
    """Every call takes its time, before and after it takes effect; moves are two steps, as on S3."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    async def pause(self) -> None:
        for _ in range(self.rng.choice([0, 0, 1, 2, 5, 40])):
            await asyncio.sleep(0)

    async def put(self, name: bytes, content: bytes) -> None:
        await self.pause()
        await super().put(name, content)
        await self.pause()

    async def has(self, name: bytes) -> bool:
        await self.pause()
        found = await super().has(name)
        await self.pause()
        return found

    async def stored(self) -> AsyncIterator[Stored]:
        await self.pause()
        async for one in super().stored():
            yield one
        await self.pause()

    async def set_aside(self, name: bytes, run: str) -> None:
        await self.pause()
        if name in self.contents:
            self.set_apart[name, run] = self.contents[name], 0.0
            await self.pause()
            self.contents.pop(name, None)
        await self.pause()

    async def bring_back(self, name: bytes, run: str) -> None:
        await self.pause()
        if (name, run) in self.set_apart:
            self.contents.setdefault(name, self.set_apart[name, run][0])
            await self.pause()
            self.set_apart.pop((name, run), None)
        await self.pause()

    async def drop(self, name: bytes, run: str) -> None:
        await self.pause()
        await super().drop(name, run)

    async def note(self, key: str, content: bytes, *, new: bool = False) -> bool:
        await self.pause()
        done = await super().note(key, content, new=new)
        await self.pause()
        return done

    async def notes(self, prefix: str) -> dict[str, bytes]:
        await self.pause()
        found = await super().notes(prefix)
        await self.pause()
        return found

    async def remove_note(self, key: str) -> None:
        await self.pause()
        await super().remove_note(key)


async def writing(log: Log, rng: random.Random, stream: str) -> None:
    """Commits that name one of a few contents, which other writers put as well, soon or late after the put."""
    writer = await Issuer(log).writer(stream)
    for revision in range(COMMITS):
        content = bytes([rng.randrange(4)])
        name = hashlib.sha256(content).digest()
        await log.puts.put(name, content)
        if rng.random() < 0.3:  # given up
            for pin, _ in log.puts._held.pop(name, ()):
                log.puts.end(pin)
            await log.puts.put(name, content)
        for _ in range(rng.choice([0, 3, 80])):
            await asyncio.sleep(0)
        await log.append(writer, [Named([name])], expected=revision)


async def sweeping(log: Log, rng: random.Random, module: Any, over: asyncio.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(StoreBusyError):  # another one sweeps
            await module.sweep(log, older_than=-1.0)
        for _ in range(rng.choice([0, 5, 60])):
            await asyncio.sleep(0)


async def race(folder: Path, seed: int, module: Any = sweeping_module, pins: type[Puts] = Puts) -> None:
    """One race, by its seed; raises if in the end anything that is named cannot be read."""
    rng, site = random.Random(seed), Site(folder, "memory")
    site.blobs = Slow(rng)
    logs = [await site.open(f"{number}.db") for number in range(WRITERS + 2)]
    for log in logs:
        log.codec = log.opener._codec = Codec([Named])
        log.puts = pins(site.blobs, log.identity.log_id, log.ambient.random)
    over = asyncio.Event()
    try:
        sweeps = [asyncio.create_task(sweeping(log, rng, module, over)) for log in logs[WRITERS:]]
        try:
            await asyncio.gather(*(writing(log, rng, f"task/{n}") for n, log in enumerate(logs[:WRITERS])))
        finally:
            over.set()
        await asyncio.gather(*sweeps)
        for _ in range(3):
            await asyncio.gather(*(removal for log in logs for removal in log.puts._removals))
            await module.sweep(logs[0], older_than=-1.0)
        found = await sweeping_module.named_blobs(logs[0], {})
        assert found.unreadable == {}
        assert len(found.blobs) > 1
        for name in found.blobs:
            await site.blobs.get(name)
    finally:
        await site.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puts_module, "LINGER", 0.0)


async def test_nothing_that_is_named_is_lost(tmp_path: Path) -> None:
    for seed in range(ROUNDS):
        await race(tmp_path / str(seed), seed)


_AT_ONCE = """
    for one in plan.swept.set_aside:
        await log.blobs.set_aside(one.name, "now")
        await log.blobs.drop(one.name, "now")
"""
BUGS = {
    "deleted in one run": (
        sweeping_module,
        "    if not plan.swept.waiting:\n",
        _AT_ONCE + "    if not plan.swept.waiting:\n",
    ),
    "pins are not waited for": (
        sweeping_module,
        "if begun and not waiting else set()",
        "if begun else set()",
    ),
    "pins seen before it is set aside": (
        sweeping_module,
        "        seen = list(await log.blobs.notes(PINS))\n",
        "        seen = []\n",
    ),
    "put without a pin": (
        puts_module,
        "                await self._blobs.note(pin.key, msgspec.json.encode(Process.this()))\n",
        "",
    ),
    "a pin is taken away with the put": (
        puts_module,
        "        self.hold(pin, name)\n",
        "        self.end(pin)\n        self.hold(pin, name)\n        pin.open += 1\n",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_planted_bugs_are_caught(tmp_path: Path, bug: str) -> None:
    module, old, new = BUGS[bug]
    source, file = inspect.getsource(module), module.__file__ or ""
    assert source.count(old) == 1
    planted = types.ModuleType(f"{module.__name__}_planted")
    planted.__package__ = module.__package__
    exec(compile(source.replace(old, new), file, "exec"), planted.__dict__)
    planted.__dict__["LINGER"] = 0.0
    for seed in range(50 * ROUNDS):
        more: dict[str, Any] = {"module": planted} if module is sweeping_module else {"pins": planted.Puts}
        try:
            await race(tmp_path / str(seed), seed, **more)
        except (BlobError, AssertionError):
            return
    pytest.fail(f"{bug}: not caught")
