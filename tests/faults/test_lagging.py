"""A broker that was away shows less than there is, for a moment: whoever opens the log then waits for the rest."""

from pathlib import Path

import pytest

from agent_party.eventstore import lanes
from agent_party.eventstore.errors import LogRolledBack
from agent_party.eventstore.grants import Issuer
from agent_party.eventstore.tape import Entry
from tests.eventstore_kit import Site, notes
from tests.faults.fated import FatedTape


class Lagging(FatedTape):
    """Shows the first ``shown`` entries only, the first ``times`` that it is asked for more."""

    shown, times = 0, 0

    async def read(self, lane: int, after: int, limit: int) -> list[Entry]:
        found = await super().read(lane, after, limit)
        if found and found[-1].place > self.shown and self.times:
            self.times -= 1
            return [entry for entry in found if entry.place <= self.shown]
        return found


async def lagging(folder: Path, times: int) -> tuple[Site, Lagging]:
    """A site whose tape shows less than its remembered checkpoint has."""
    site = Site(folder, "unconditional")
    log = await site.open()
    writer = await Issuer(log).writer("note/a")
    for revision in range(3):
        await log.append(writer, notes("x"), expected=revision)
    await log.close()
    tape = Lagging(site.memory)
    tape.shown, tape.times = len(site.memory.records) - 2, times
    return site, tape


@pytest.mark.parametrize("index", ["index.db", "fresh.db"])
async def test_what_is_shown_late_is_waited_for(index: str, tmp_path: Path) -> None:
    site, tape = await lagging(tmp_path, 20)
    log = await site.open(index, tape=tape)
    assert (await log.state("note/a")).revision == 3
    await site.close()


async def test_what_is_never_shown_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LAG", 0.3)
    site, tape = await lagging(tmp_path, 1_000_000)
    with pytest.raises(LogRolledBack):
        await site.open("fresh.db", tape=tape)
    await site.close()
