"""The race beside the peers runs without them, verifies what was recorded, and its page says what its results say."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, world
from benchmarks.peers import __main__ as contest
from benchmarks.peers import page, race, servers, work
from benchmarks.peers.__main__ import main
from benchmarks.peers.field import FIELD, OURS, by_name, versions

PACKAGES = {"with_dbos", "with_langgraph", "with_temporal", "with_restate"}


class Recorded:
    """A contestant that says what it is told to."""

    def __init__(self, outcomes: list[str]) -> None:
        self.outcomes = outcomes

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        raise NotImplementedError

    async def recorded(self, task: str) -> Sequence[str]:
        return self.outcomes


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(work, "_executed", made)
    return made


def no_peers(entry: Any) -> dict[str, str]:
    if entry.module in PACKAGES:
        raise servers.MissingError("the package is not installed here")
    return versions(entry)


def test_a_short_run_needs_no_peer_and_verifies_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "versions", no_peers)
    monkeypatch.setattr(contest, "QUICK", race.QUICK._replace(within=float("inf")))  # however slow the machine is
    results = tmp_path / "results.json"
    assert main(["--short", "--json", "--results", str(results)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told == json.loads(results.read_text())
    assert set(told["verified"]) == {OURS, "rows"}
    assert all(" steps of " in text for text in told["verified"].values())
    assert set(told["missing"]) == {entry.name for entry in FIELD if entry.main and entry.module in PACKAGES}
    named = {(row["part"], row["name"]) for row in told["figures"]}
    assert named >= {(part, "Agent Party / unsigned rows") for part in race.PARTS}
    assert all(row["min"] > 0 for row in told["figures"])
    assert "did not take part" in page.section(told)


def test_an_unknown_contestant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["airflow"])
    assert "nobody is called airflow" in capsys.readouterr().err


async def test_a_contestant_that_fails_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = by_name("rows")._replace(name="broken", module="nowhere")
    monkeypatch.setattr(race, "versions", lambda entry: {})
    found = await race.race([broken], race.QUICK)
    assert not found.lines
    assert found.missing["broken"].startswith("it failed:")


async def test_agent_party_itself_may_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "versions", lambda entry: {})
    with pytest.raises(RuntimeError, match="Agent Party itself"):
        await race.race([by_name(OURS)], race.QUICK._replace(within=-1))


# The work


def test_every_outcome_is_another_of_the_same_size(executed: list[str]) -> None:
    first = work.effect(work.text("t", 0))
    second = work.effect(first)
    assert [first, second] == [work.text("t", 1), work.text("t", 2)]
    assert executed == [first, second]
    assert {len(text) for text in (first, second, work.text("u", 1))} == {work.SIZE}
    assert len({first, second, work.text("u", 1), work.text("u", 2)}) == 4


async def test_steps_that_are_missing_doubled_swapped_or_altered_are_noticed(executed: list[str]) -> None:
    given = work.text("t", 0)
    right = [given := work.effect(given) for _ in range(3)]
    assert await work.check(Recorded(right), {"t": 3}) == 3
    one, two, three = right
    for wrong in ([one, two], [one, two, two, three], [two, one, three], [one, two, three[:-1] + "?"]):
        with pytest.raises(AssertionError, match="outcomes are recorded"):
            await work.check(Recorded(wrong), {"t": 3})
    work.effect(one)
    with pytest.raises(AssertionError, match="executed twice"):
        await work.check(Recorded(right), {"t": 3})


async def test_steps_that_nobody_asked_for_are_noticed(executed: list[str]) -> None:
    right = [work.effect(work.text("t", 0))]
    work.effect(work.text("u", 0))
    with pytest.raises(AssertionError, match="no task asked for"):
        await work.check(Recorded(right), {"t": 1})


# Counting


def test_fsyncs_are_told_from_calls_that_need_not_wait(tmp_path: Path) -> None:
    report = tmp_path / "calls"
    report.write_text(
        "7 fsync(3) = 0\n8 fdatasync(4 <unfinished ...>\n7 <... fdatasync resumed>) = 0\n"
        "9 msync(0x1, 4096, MS_SYNC) = 0\n9 sync_file_range(5, 0, 0, 2) = 0\n9 +++ exited with 0 +++\n"
    )
    assert race.tally(report) == (2, 2)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not on this machine")
async def test_rows_and_agent_party_have_one_fsync_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "SETTLING", 0.5)
    both = await asyncio.gather(race.counted(by_name("rows")), race.counted(by_name(OURS)))
    for found in both:
        assert found[race.ALONE].durable == pytest.approx(1, abs=0.05)
        assert found[race.AT_ONCE].durable < 0.5


# Results


def told(ours: float, dbos: float, wal: float) -> race.Race:
    lines = {}
    for name, rate in ((OURS, ours), ("dbos", dbos), ("dbos-wal", wal), ("langgraph-default", 10 * ours)):
        rates = {part: [rate] for part in race.PARTS}
        lines[name] = race.Line({"sqlite": "3"}, rates, {race.ALONE: race.Syncs(1, 0)}, 2, 1)
    return race.Race(lines, {"restate": "npm is not on this machine"})


def test_a_goal_is_held_against_the_fastest_setting_of_equal_durability() -> None:
    found = {(figure.part, figure.name): figure for figure in page.figures(told(1_000, 100, 210))}
    assert found[race.ALONE, "Agent Party / DBOS, its default"].least is None
    missed = found[race.ALONE, "Agent Party / DBOS, write-ahead log"]
    assert (missed.least, missed.met) == (5, False)
    assert found[race.ALONE, "Agent Party / LangGraph graph, its default"].least is None


def test_the_section_shows_losses_weaker_durability_and_who_is_missing() -> None:
    facts = {"cores": 2, "python": "3.11", "load_at_start": 0.5}
    results = page.results(facts, told(1_000, 100, 210), race.LONG)
    section = page.section(results)
    assert "**missed**" in section
    assert "| LangGraph graph, its default * |" in section
    assert "**restate** did not take part: npm is not on this machine." in section
    other = f"before\n\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.written(other, results) == f"before\n\n{page.BEGIN}\n\n{section}\n{page.END}\nafter\n"


def test_the_docs_say_what_the_results_say() -> None:
    docs = page.DOCS.read_text()
    if page.RESULTS.exists():
        assert page.written(docs, json.loads(page.RESULTS.read_text())) == docs
    else:
        between = docs[docs.index(page.BEGIN) + len(page.BEGIN) : docs.index(page.END)]
        assert between.strip() == "", "figures without results"


# Growth


def test_a_snapshot_is_owed_evenly_by_the_steps_since_the_one_before() -> None:
    lumps = [growth.Lump(500, 1_000, 1), growth.Lump(1_000, 4_000, 2)]
    assert growth.owed(lumps, 1) == growth.Lump(1, 2, 0.002)
    assert growth.owed(lumps, 500) == growth.Lump(500, 2, 0.002)
    assert growth.owed(lumps, 501) == growth.Lump(501, 8, 0.004)
    assert growth.owed(lumps, 1_001) == growth.Lump(1_001, 0, 0)


def test_a_design_that_writes_its_whole_state_writes_more_with_each_step(tmp_path: Path) -> None:
    with world.sqlite_worlds(tmp_path) as worlds:
        worlds.grow(10)
        early = worlds.run(5)
        worlds.grow(100)
        assert worlds.run(5) > 6 * early
        worlds.verify(105)
        with pytest.raises(AssertionError):
            worlds.verify(104)
