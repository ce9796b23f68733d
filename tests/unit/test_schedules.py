"""Schedules: when they fire, what they make up for, and what cannot be one."""

from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_party import Agent, Task
from agent_party.actors.errors import ConfigurationError
from agent_party.actors.schedules import CATCH_UP, Schedule, checked, due_now, times

MINUTE = 60_000_000
NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1_000_000


def every(minutes: int = 1, **more: Any) -> Schedule:
    return Schedule("s", "work", f"*/{minutes} * * * *", **more)


def test_times_stand_in_the_zone_also_where_clocks_change() -> None:
    before, after = islice(times("0 9 * * *", "Europe/Berlin", at(2026, 3, 28)), 2)
    assert (before, after) == (at(2026, 3, 28, 8), at(2026, 3, 29, 7))
    left_out = next(times("30 2 * * *", "Europe/Berlin", at(2026, 3, 29)))
    assert left_out == at(2026, 3, 29, 1)  # 02:30 is not there that night: it fires at 03:00
    twice = list(islice(times("30 2 * * *", "Europe/Berlin", at(2026, 10, 24, 12)), 2))
    assert twice[1] - twice[0] >= 24 * 60 * MINUTE


@pytest.mark.parametrize(
    ("missed", "seconds", "due"),
    [("skip", 0, 1), ("skip", 59, 1), ("once", 0, 1), ("all", 0, 10)],
)
def test_missed_times(missed: Any, seconds: int, due: int) -> None:
    found, upcoming = due_now(every(missed=missed), NOON - 10 * MINUTE, NOON + seconds * 1_000_000)
    assert len(found) == due
    assert found[-1] == NOON
    assert upcoming == NOON + MINUTE


def test_a_time_that_was_missed_by_long_is_left_out_or_made_up_for() -> None:
    hourly = Schedule("s", "work", "0 * * * *")
    assert due_now(hourly, NOON - 90 * MINUTE, NOON + 2 * MINUTE)[0] == []
    assert due_now(every(missed="all"), 0, NOON)[0] == [NOON - n * MINUTE for n in range(CATCH_UP)][::-1]


@given(st.integers(0, 3_000), st.integers(0, 3_000), st.sampled_from(["skip", "once", "all"]))
def test_each_time_is_due_once_however_often_one_looks(first: int, second: int, missed: Any) -> None:
    schedule = every(7, missed=missed)
    start, middle, end = NOON, NOON + first * 1_000_000, NOON + (first + second) * 1_000_000
    one, _ = due_now(schedule, start, middle)
    two, _ = due_now(schedule, max([start, *one]), end)
    assert not set(one) & set(two)
    if missed == "all":
        assert [*one, *two] == due_now(schedule, start, end)[0]


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("30 2 30 2 *", "UTC", "30 2 30 2"),
        ("0 0 31 4,6 *", "UTC", "0 0 31 4,6"),
        ("often", "UTC", "no cron line"),
        ("* * * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("* * * * *", "../../etc/passwd", "no time zone"),
    ],
)
def test_what_cannot_be_a_schedule(cron: str, zone: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("*", r"\*")):
        checked(Schedule("s", "work", cron, zone), NOON)


def test_a_schedule_starts_work_for_a_month_and_survives() -> None:
    import agent_party.testing as testing

    agent, started = Agent("worker"), list[int]()

    @agent.on("report")
    async def report(task: Task, kind: str) -> str:
        started.append(task.now())
        return kind

    async def main() -> None:
        async with testing.party([agent], seed=1) as party:
            now = party.stack.log.ambient.now
            handle = await party.schedule("daily", "report", cron="0 9 * * *", zone="Asia/Tokyo", kind="daily")
            again = await party.schedule("daily", "report", cron="0 9 * * *", zone="Asia/Tokyo", kind="daily")
            assert again.id == handle.id
            begun = now()
            state = await handle.state()
            while len(started) < 30:
                state = [state async for state in handle.watch(timeout=86_400)][-1]
            assert (await handle.query("next", count=2))[0] >= now()
            assert now() - begun >= 29 * 86_400 * 1_000_000
            assert state.begun >= 30
            assert len(state.waits) < 10

    testing.run(main, seed=1)
    assert all(moment % (86_400 * 1_000_000) < 1_000_000 for moment in started)
    assert all(b - a >= 23 * 60 * MINUTE for a, b in pairwise(started))
