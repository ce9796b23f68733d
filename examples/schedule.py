"""A report every morning in Tokyo, for a week: in virtual time, so that the week passes at once."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from agent_party import Agent, Task, step, testing

TOKYO = ZoneInfo("Asia/Tokyo")
reporter = Agent("reporter", version="1")
reports: list[datetime] = []


@step()
def write(moment: int) -> str:
    """Write a report."""
    reports.append(datetime.fromtimestamp(moment / 1_000_000, TOKYO))
    return f"report of {reports[-1]:%A, %H:%M}"


@reporter.on("report.write")
async def report(task: Task) -> str:
    """A report of now."""
    return await task.step(write, task.now())


async def main() -> None:
    """Set the schedule, and look at it each day for a week."""
    async with testing.party([reporter]) as party:
        schedule = await party.schedule("mornings", "report.write", cron="0 9 * * *", zone="Asia/Tokyo", missed="once")
        while len(reports) < 7:
            async for _ in schedule.watch(timeout=timedelta(days=1).total_seconds()):
                pass
        await schedule.cancel("the week is over")
        async for _ in schedule.watch():
            pass
    for moment in reports:
        print(f"{moment:%A %d %B, %H:%M %Z}")
    assert all((moment.hour, moment.minute) == (9, 0) for moment in reports)


if __name__ == "__main__":
    testing.run(main)
