"""Schedules: tasks that start others at the times of a cron line, in a time zone, until they are cancelled.

A schedule is a task like any other: it sleeps durably, begins anew after each time, can be paused, resumed, cancelled
and asked when it is due next. What handles it comes with every program that has joined any agent.
"""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, Literal

import msgspec

from .agent import Agent
from .errors import ConfigurationError
from .task import Task

Missed = Literal["skip", "once", "all"]
Overlap = Literal["wait", "allow"]
CAPABILITY = "party.schedule"
GRACE = 60.0
"""Seconds by which a time may be late and still counts as met."""
CATCH_UP = 1_000
"""How many missed times are made up for at most; the latest ones."""
_MICRO = 1_000_000
_MINUTE = 60 * _MICRO
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Schedule(msgspec.Struct, frozen=True):
    """``given``: the input of what is started. ``missed``: what becomes of times at which nothing ran: they are left
    out, made up for once, or each. ``overlap``: whether the next waits for the one before to end.
    """

    name: str
    capability: str
    cron: str
    zone: str = "UTC"
    missed: Missed = "skip"
    overlap: Overlap = "wait"
    given: dict[str, Any] = {}


def times(cron: str, zone: str, start: int, *, back: bool = False) -> Iterator[int]:
    """The times of a cron line after a moment, or before it, in microseconds since 1970. Where clocks are set forward,
    times that the day leaves out are taken right after; where they are set back, those that come twice are taken once,
    as Debian's cron does."""
    from cronsim import CronSim

    moment = (_EPOCH + timedelta(microseconds=start)).astimezone(_zone(zone))
    for found in CronSim(cron, moment, reverse=back):
        yield (found.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"there is no time zone {name!r}: use a name such as Europe/Berlin or UTC") from error


def checked(schedule: Schedule, now: int) -> Schedule:
    """The schedule, if it can be; `ConfigurationError` for a line that is none, or that never fires."""
    from cronsim import CronSimError

    try:
        next(times(schedule.cron, schedule.zone, now))
    except CronSimError as error:
        raise ConfigurationError(f"schedule {schedule.name!r}: {schedule.cron!r} is no cron line: {error}") from error
    except StopIteration:
        raise ConfigurationError(f"schedule {schedule.name!r}: {schedule.cron!r} never fires") from None
    return schedule


def due_now(schedule: Schedule, last: int, now: int) -> tuple[list[int], int]:
    """The times to start at, of those after ``last`` up to ``now``, and the next one after that."""
    before = (moment for moment in times(schedule.cron, schedule.zone, now + _MINUTE, back=True) if moment <= now)
    most = CATCH_UP if schedule.missed == "all" else 1
    passed = list(islice(takewhile(lambda moment: moment > last, before), most))[::-1]
    if schedule.missed == "skip":
        passed = [moment for moment in passed if now - moment <= GRACE * _MICRO]
    return passed, next(times(schedule.cron, schedule.zone, now))


schedules = Agent("party", description="starts tasks at set times")


@schedules.on(CAPABILITY)
async def keep(task: Task, schedule: Schedule, last: int = 0) -> None:
    """Start what is due, wait for what comes next, and begin anew."""
    now = task.now()
    last = last or now
    due, upcoming = due_now(schedule, last, now)
    task.on_query("next", lambda count=1: list(islice(times(schedule.cron, schedule.zone, now), count)))
    for moment in due:
        await _start(task, schedule)
        last = moment
    if not due:
        last = now
        await task.sleep_until(upcoming)
        last = upcoming - 1
    task.continue_as_new(schedule=schedule, last=last)


async def _start(task: Task, schedule: Schedule) -> None:
    if schedule.overlap == "allow":
        await task.using().start(schedule.capability, **schedule.given)
    else:
        await task.using(on_failure="ignore").ask(schedule.capability, **schedule.given)
