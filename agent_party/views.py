"""What the projections hold, for programs: ``party.views``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .actors.errors import ConfigurationError
from .cluster.projections import AnyWorker, workers
from .projections.catalogue import PROJECTIONS, VIEWS
from .projections.contexts import live
from .projections.projection import Projection
from .projections.worker import Worker

if TYPE_CHECKING:
    from .party import Party

WATCHED = 10_000
"""How many documents of a view can be watched at once."""
_LOOK = 5.0


class Change(NamedTuple):
    """A document as it is now; None if it is gone or has expired."""

    view: str
    key: str
    fields: dict[str, Any] | None


class ViewsHandle:
    """Views by name: ``names()`` says which there are. Each answer is as new as what this process has read of the log.

    What has expired is left out, by this process's clock; it holds no payload: inputs, results and texts are on the
    log, for those who may read them.
    """

    def __init__(self, party: "Party") -> None:
        self._party = party
        self._own: dict[str, Projection] = {}
        self._views: dict[str, str] = {}

    def add(self, projection: Projection, *views: str) -> AnyWorker:
        """Carry a projection of this program too; its views can be asked for from now on. Its worker.

        `ConfigurationError` if its name or one of its views is somebody else's. See docs/projections.md.
        """
        taken = sorted({projection.name} & PROJECTIONS.keys() | set(views) & VIEWS.keys())
        taken += sorted(view for view in views if self._views.get(view, projection.name) != projection.name)
        if taken or not views:
            raise ConfigurationError(
                f"{', '.join(taken) or projection.name}: choose names of your own, and name its views"
            )
        self._own[projection.name] = projection
        self._views |= dict.fromkeys(views, projection.name)
        return self._worker(projection)

    def _worker(self, projection: Projection) -> AnyWorker:
        return Worker(self._party.stack.log, projection, self._party.stack.views)

    def names(self) -> dict[str, str]:
        """Each view, and the projection that writes it; empty where all do."""
        return dict(sorted({**VIEWS, **self._views}.items()))

    async def get(self, view: str, key: str) -> dict[str, Any] | None:
        """A document, or None. `ConfigurationError` if there is no such view."""
        await self._catch_up(view)
        found = await self._party.stack.views.get(view, key)
        return found if live(found, self._now()) else None

    async def scan(
        self, view: str, prefix: str = "", *, limit: int = 1_000, after: str = ""
    ) -> list[tuple[str, dict[str, Any]]]:
        """Documents whose keys have a prefix, sorted by key, from the first one after a key on."""
        if limit < 1:
            raise ConfigurationError(f"limit must be 1 or more, not {limit}")
        await self._catch_up(view)
        found = list[tuple[str, dict[str, Any]]]()
        while len(found) < limit:
            page = await self._party.stack.views.scan(view, prefix, limit, after)
            found += [(key, fields) for key, fields in page if live(fields, self._now())]
            if len(page) < limit:
                break
            after = page[-1][0]
        return found[:limit]

    async def count(self, prefix: str = "status/") -> dict[str, int]:
        """How many tasks there are by ``status/``, ``agent/NAME/`` or ``capability/NAME/``, where there are any."""
        found = await self.scan("task-count", prefix, limit=WATCHED)
        return {key: fields["n"] for key, fields in found if fields["n"]}

    async def watch(self, view: str, prefix: str = "") -> AsyncIterator[Change]:
        """What is there, and then every change, until the caller stops. Changes that come close together are one.

        A view of more than `WATCHED` documents with this prefix is refused: choose a longer prefix.
        """
        known: dict[str, dict[str, Any]] = {}
        while True:
            carriers = await self._of(view)
            turns = [(await one.sink.checkpoint(one.projection)).turn for one in carriers]
            found = dict(await self.scan(view, prefix, limit=WATCHED + 1))
            if len(found) > WATCHED:
                raise ConfigurationError(f"{view} {prefix}* has over {WATCHED:,} documents: choose a longer prefix")
            for key in sorted(known.keys() | found.keys()):
                if known.get(key) != found.get(key):
                    yield Change(view, key, found.get(key))
            known = found
            await self._changed(carriers, turns)

    async def _changed(self, carriers: list[AnyWorker], turns: list[int]) -> None:
        """Wait until the log has grown or somebody has projected something, or for a while."""
        views = self._party.stack.views
        sinks = [views.changed(worker.projection, turn, _LOOK) for worker, turn in zip(carriers, turns, strict=True)]
        waiting = [asyncio.ensure_future(wait) for wait in (self._party.stack.log.changed(_LOOK), *sinks)]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in waiting:
                one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*waiting, return_exceptions=True)

    async def _catch_up(self, view: str) -> None:
        for worker in await self._of(view):
            await worker.catch_up()

    async def _of(self, view: str) -> list[AnyWorker]:
        """The workers of a view's projection, or of all."""
        known = self.names()
        if view not in known:
            raise ConfigurationError(f"there is no view {view}: there are {', '.join(known)}")
        if known[view] in self._own:
            return [self._worker(self._own[known[view]])]
        stack, found = self._party.stack, list[AnyWorker]()
        for name in [known[view]] if known[view] else sorted(PROJECTIONS):
            found += [stack.worker] if name == stack.worker.projection.name else await workers(stack, name)
        return found

    def _now(self) -> int:
        return self._party.stack.log.ambient.now()
