"""Puts that no accepted record names yet: what a sweep must not take from under a writer (see `sweeping`).

A process that puts a blob leaves a *pin* first, a note in the store with a name that never comes again, and takes it
away when every put that was begun under it is over: named by an accepted record, or given up for good. As long as the
outcome of an append is unknown its puts stay open, however long that is; a process that is paused keeps its pin, and
so does one that dies. No clock says that a pin is over: only its process, or whoever knows that the process is dead.
"""

import asyncio
import contextlib
import itertools
import os
import platform
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TypeVar

import msgspec

from .blobs import Blobs
from .errors import AppendError, StoreError, UnknownOutcomeError, WrongLogError
from .parts import parsed
from .verify import sha256

PINS, OWNER = "pins/", "log"
FRESH = 60.0
"""Seconds in which new puts are begun under the same pin."""
LINGER = 5.0
"""Seconds for which a pin without open puts is kept, so that the next put need not leave another."""
HOLD = 3_600.0
"""Seconds in which what was kept must be named; later, `Puts.naming` first makes sure that it is still there."""
T = TypeVar("T")


class Process(msgspec.Struct, frozen=True):
    """A process, so that others can tell whether it lives: of this boot and these process ids, or they cannot."""

    host: str
    pid: int
    started: str
    boot: str
    pids: str

    @classmethod
    def this(cls) -> "Process":
        """The one that asks."""
        return cls(platform.node(), os.getpid(), _started(os.getpid()), *_here())

    def is_dead(self, *, one_node: bool = False) -> bool:
        """Whether it is known to be dead. ``one_node``: all processes of the party are of this machine."""
        boot, pids = _here()
        if one_node and boot and self.boot and boot != self.boot:
            return True
        return bool(boot and pids) and (self.boot, self.pids) == (boot, pids) and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Pin:
    """One pin of this process. ``open``: puts that were begun under it and are not over."""

    def __init__(self, key: str, began: float) -> None:
        self.key, self.began, self.open = key, began, 0
        self.removal: asyncio.TimerHandle | None = None


class Puts:
    """The open puts of one process's log; belongs to its event loop."""

    def __init__(self, blobs: Blobs, log_id: bytes, random: Callable[[int], bytes]) -> None:
        self._blobs, self._log_id, self._random = blobs, log_id, random
        self._pin: Pin | None = None
        self._turn = asyncio.Lock()
        self._claimed = False
        self._held: dict[bytes, list[tuple[Pin, float]]] = {}
        self._doubtful: list[tuple[Pin, Callable[[], bool]]] = []
        self._removals: set[asyncio.Task[None]] = set()

    async def begin(self) -> Pin:
        """Before a put. Every pin that is given out must be given to `end` or `hold`."""
        now = asyncio.get_running_loop().time()
        self._settle(now)
        async with self._turn:
            if self._pin is None or now - self._pin.began > FRESH:
                await self.claim()
                pin = Pin(f"{PINS}{self._random(16).hex()}", now)
                await self._blobs.note(pin.key, msgspec.json.encode(Process.this()))
                old, self._pin = self._pin, pin
                if old and not old.open:
                    self._remove(old)
            pin = self._pin
            pin.open += 1
            if pin.removal:
                pin.removal.cancel()
                pin.removal = None
        return pin

    def end(self, pin: Pin) -> None:
        """A put is over: its blob is named, or nobody here will ever name it."""
        pin.open -= 1
        if not pin.open:
            if pin is self._pin:
                pin.removal = asyncio.get_running_loop().call_later(LINGER, self._remove, pin)
            else:
                self._remove(pin)

    def hold(self, pin: Pin, name: bytes) -> None:
        """A put is done, and its blob will be named by a later append; see `naming`."""
        self._held.setdefault(name, []).append((pin, asyncio.get_running_loop().time() + HOLD))

    async def put(self, name: bytes, content: bytes) -> None:
        """Put one blob and hold it."""
        pin = await self.begin()
        try:
            await self._blobs.put(name, content)
        except BaseException:
            self.end(pin)
            raise
        self.hold(pin, name)

    async def put_payload(self, content: bytes) -> None:
        """Put what the append that is under way names itself; the pin of `naming` stands."""
        await self._blobs.put(sha256(content), content)

    async def naming(
        self, names: Collection[bytes], append: Callable[[], Awaitable[T]], in_doubt: Callable[[], bool]
    ) -> T:
        """Append what names these blobs, and whatever the append itself puts, under a pin.

        `BlobError` if one of them is not there (any more); nothing is appended then. ``in_doubt``: whether it is
        still unknown what became of the append.
        """
        pin = await self.begin()
        held = {name: self._held.pop(name) for name in names if name in self._held}
        try:
            for name in names:
                if name not in held:
                    await self._still_there(name)
            appended = await append()
        except BaseException as error:
            for name, pins in held.items():
                self._held.setdefault(name, []).extend(pins)
            known = isinstance(error, AppendError) and not isinstance(error, UnknownOutcomeError)
            if not known and in_doubt():
                self._doubtful.append((pin, in_doubt))
            else:
                self.end(pin)
            raise
        for older, _ in itertools.chain(*held.values()):
            self.end(older)
        self.end(pin)
        return appended

    async def claim(self) -> None:
        """See that this store is this log's, and make it so if it is nobody's; `WrongLogError` if it is another's."""
        if self._claimed:
            return
        if not await self._blobs.note(OWNER, self._log_id.hex().encode(), new=True):
            await check_owner(self._blobs, self._log_id)
        self._claimed = True

    async def close(self) -> None:
        """Take away the pins whose puts are over. What is not named by now never will be, but for what is in doubt."""
        doubtful = {pin.key for pin, in_doubt in self._doubtful if in_doubt()}
        pins = {pin.key: pin for held in self._held.values() for pin, _ in held}
        if self._pin:
            pins[self._pin.key] = self._pin
        self._held, self._pin = {}, None
        for pin in pins.values():
            if pin.removal:
                pin.removal.cancel()
            if pin.key not in doubtful:
                self._remove(pin)
        await asyncio.gather(*self._removals, return_exceptions=True)

    async def _still_there(self, name: bytes) -> None:
        """See that a blob, and every part of a list, is there and not set aside, now that a pin stands; `BlobError`
        if it is gone."""
        content = await self._blobs.get(name)
        found = parsed(content)
        for part in found.parts if found else ():
            if not await self._blobs.has(part.blob):
                await self._blobs.put(part.blob, await self._blobs.get(part.blob))
        await self._blobs.put(name, content)

    def _settle(self, now: float) -> None:
        """Let go of what was held for too long, and of what is not in doubt any more."""
        for name, held in list(self._held.items()):
            kept = [one for one in held if one[1] > now]
            for pin, until in held:
                if until <= now:
                    self.end(pin)
            if kept:
                self._held[name] = kept
            else:
                del self._held[name]
        doubtful, self._doubtful = self._doubtful, []
        for pin, in_doubt in doubtful:
            if in_doubt():
                self._doubtful.append((pin, in_doubt))
            else:
                self.end(pin)

    def _remove(self, pin: Pin) -> None:
        if pin is self._pin:
            self._pin = None
        removal = asyncio.get_running_loop().create_task(self._take_away(pin))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _take_away(self, pin: Pin) -> None:
        with contextlib.suppress(StoreError):  # a pin that stays keeps too much, and harms nobody
            await self._blobs.remove_note(pin.key)


async def check_owner(blobs: Blobs, log_id: bytes) -> bool:
    """Whether a store is this log's; False if it is nobody's yet, `WrongLogError` if it is another's."""
    held = (await blobs.notes(OWNER)).get(OWNER)
    if held is not None and held != log_id.hex().encode():
        raise WrongLogError(
            f"these blobs are of log {held.decode(errors='replace')[:16]}, not of {log_id.hex()[:16]}: give each party "
            "a folder, bucket or prefix of its own"
        )
    return held is not None


def _here() -> tuple[str, str]:
    """This boot, and this space of process ids; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "", ""


def _started(pid: int) -> str:
    """When a process was started, in ticks since the boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
