"""A journey is booked, the last booking fails, and what was booked before is taken back, also over a crash."""

import asyncio

from agent_party import Agent, Party, StepError, Task, step

booked: list[str] = []
travel = Agent("travel", version="1")


def cancel(what: str) -> None:
    """Take a booking back; nothing happens where there is none."""
    if what in booked:
        booked.remove(what)
        print(f"cancelled {what}")


@step(undo=cancel)
def book(what: str) -> str:
    """Book something."""
    if what == "balloon":
        raise ValueError("no balloon flies today")
    booked.append(what)
    print(f"booked {what}")
    return what


@travel.on("journey.book")
async def journey(task: Task, parts: list[str]) -> list[str]:
    """All parts, or none."""
    try:
        async with task.saga() as saga:
            return [await saga.step(book, part) for part in parts]
    except StepError as error:
        print(f"nothing is booked: {error.message}")
        return []


async def main() -> None:
    """Ask for two journeys."""
    async with Party.open(agents=[travel]) as party:
        first = await party.ask(journey, parts=["train", "hotel", "balloon"])
        assert await first.result() == []
        second = await party.ask(journey, parts=["train", "hotel"])
        assert await second.result() == booked == ["train", "hotel"]


if __name__ == "__main__":
    asyncio.run(main())
