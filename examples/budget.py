import asyncio
from typing import Any

from agent_party import Agent, Budget, Party, Task, TaskHandle
from agent_party.actors.budgets import Spent

desk = Agent("desk")


async def look_up(topic: str) -> int:
    return 90 * len(topic)  # stands for a call that says how many tokens it used


@desk.on("topic.read")
async def read(task: Task, topic: str) -> int:
    async with task.budget.reserve(Spent.of(tokens=1_000), lambda used: Spent.of(tokens=used)):
        return await task.step(look_up, topic)  # it is opened with 1,000 reserved, and settled with what it used


@desk.on("topics.compare")
async def compare(task: Task, topics: list[str]) -> int:
    share = Budget.of(tokens=1_000)  # of this task's budget; what a child does not use of it comes back
    used = [await task.using(budget=share).ask(read, topic=topic) for topic in topics]
    return sum(used)


@desk.on("report.write")
async def write(task: Task, topics: list[str]) -> str:
    used = await task.ask(compare, topics=topics)  # without a share, it gets all that is left
    await task.budget.spend(tokens=50, money="0.05")
    return f"{len(topics)} topics read for {used} tokens; {task.budget.left} left"


async def held(task: TaskHandle[Any], party: Party) -> TaskHandle[Any] | None:
    """Which task of the tree waits for a person to raise its budget."""
    state = await task.state()
    if any(state.waits[number].asks_a_person for number in state.open):
        return task
    rows = await party.stack.registry.tasks(limit=20)
    below = [await held(party.task(row.id), party) for row in rows if row.parent == task.id]
    return next((found for found in below if found), None)


async def main() -> None:
    async with Party.open(agents=[desk]) as party:
        budget = Budget.of(tokens=1_700, money="0.10")
        task = await party.using(budget=budget).ask(write, topics=["ravens", "crows", "magpies"])
        asking = None
        while asking is None:
            await asyncio.sleep(0.01)
            asking = await held(task, party)
        _, _, shown = await asking.shown()
        print(shown["asks"])
        await asking.approve(note="the magpies too")  # adds just what is lacking
        print(await task.result(timeout=30))
        print((await task.state()).spent)


if __name__ == "__main__":
    asyncio.run(main())
