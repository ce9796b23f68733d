"""Work that many ask for at once is done once for all of them, and always begun after the call."""

import asyncio

import pytest

from agent_party.eventstore.errors import StoreError
from agent_party.eventstore.sharing import Shared


class Work:
    """Goes on until it is let go. ``begun`` counts."""

    def __init__(self) -> None:
        self.begun, self.gate = 0, asyncio.Event()
        self.error: StoreError | None = None
        self.shared = Shared(self.run)

    async def run(self) -> None:
        self.begun += 1
        await self.gate.wait()
        if self.error:
            raise self.error

    def call(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.shared())


async def turns(many: int = 5) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


async def test_calls_of_one_moment_are_one() -> None:
    work = Work()
    calls = [work.call() for _ in range(10)]
    work.gate.set()
    await asyncio.gather(*calls)
    assert work.begun == 1
    await work.shared()
    assert work.begun == 2


async def test_who_comes_while_it_is_under_way_has_another_that_begins_afterwards() -> None:
    work = Work()
    first = work.call()
    await turns()
    later = [work.call() for _ in range(10)]
    await turns()
    assert (work.begun, len(work.shared.tasks)) == (1, 2)
    work.gate.set()
    await asyncio.gather(first, *later)
    assert (work.begun, work.shared.tasks) == (2, [])


async def test_an_error_is_everybodys_and_not_the_next_ones() -> None:
    work = Work()
    work.error = StoreError("away")
    calls = [work.call() for _ in range(3)]
    await turns()
    later = work.call()
    await turns()
    work.gate.set()
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert said == [work.error] * 3
    with pytest.raises(StoreError, match="away"):
        await later
    work.error = None
    await work.shared()
    assert work.begun == 3


async def test_who_is_cancelled_takes_it_from_nobody() -> None:
    work = Work()
    gone, stays = work.call(), work.call()
    await turns()
    gone.cancel()
    await turns()
    work.gate.set()
    await stays
    assert gone.cancelled()
    assert work.begun == 1


async def test_closed_while_somebody_waits() -> None:
    work = Work()
    calls = [work.call() for _ in range(2)]
    await turns()
    calls.append(work.call())
    await turns()
    for task in work.shared.tasks:
        task.cancel()
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            await call
