"""What a supervisor says of a store that is away: once, and again after a while."""

import pytest

from agent_party.actors import supervisor
from agent_party.eventstore.errors import StoreError
from tests.unit.world import a_world


async def trouble(why: str) -> None:
    raise StoreError(why)


async def test_the_same_trouble_is_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        host = (await world.process()).host
        for why in ("Redis is away", "Redis is away", "the bucket is away", "Redis is away"):
            await host._supervisor._noted(trouble(why))
        assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
            "Redis is away",
            "the bucket is away",
        ]
        monkeypatch.setattr(supervisor, "SAID_AGAIN", 0.0)
        await host._supervisor._noted(trouble("Redis is away"))
        assert len(caplog.records) == 3
