"""Foreign values among a log's records change nothing; with a bug in the rule they do, and that is noticed."""

from pathlib import Path

import pytest

from agent_party.eventstore import appending, index, log
from agent_party.eventstore.errors import EventStoreError
from tests.eventstore_kit import Site
from tests.faults.book import RULE_BUGS, planted
from tests.faults.foreign import changes_nothing


async def run(folder: Path) -> dict[str, int]:
    site = Site(folder, "unconditional")

    async def put(raws: list[bytes]) -> None:
        site.unconditional._place(raws)

    try:
        return (await changes_nothing(site, put)).findings
    finally:
        await site.close()


async def test_foreign_values_change_nothing(tmp_path: Path) -> None:
    findings = await run(tmp_path)
    assert findings["stale"] > 10
    assert findings["foreign"] > 20


@pytest.mark.parametrize("bug", sorted(RULE_BUGS))
async def test_a_bug_planted_in_the_rule_is_noticed(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (appending, index):
        monkeypatch.setattr(module, "judge", planted(bug))
    monkeypatch.setattr(log, "DEADLINE", 2.0)
    with pytest.raises((AssertionError, EventStoreError)):
        await run(tmp_path)
