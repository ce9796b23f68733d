"""An app that fails, and what became of it: effects are counted."""

from collections import Counter

from agent_party import Agent, Task

done: Counter[str] = Counter()


def count(topic: str) -> int:
    done["count"] += 1
    return len(topic)


def find(topic: str) -> str:
    done["find"] += 1
    return topic.upper()


def measure(topic: str) -> int:
    done["measure"] += 1
    return len(topic)


async def facts(task: Task, topic: str) -> str:
    return await task.step(find, topic)


async def write(task: Task, topic: str, by: int = 0) -> str:
    letters = await task.step(count, topic)
    task.on_query("letters", lambda: letters)
    found = await task.ask("facts", topic=topic)
    return f"{topic}: {letters}/{letters // (letters // by)}, {found}"


async def write_well(task: Task, topic: str, by: int = 0) -> str:
    letters = await task.step(count, topic)
    found = await task.ask("facts", topic=topic)
    return f"{topic}: {letters}/{max(1, by)}, {found}"


async def write_otherwise(task: Task, topic: str, by: int = 0) -> str:
    await task.step(count, topic)
    return str(await task.step(measure, topic))


old, new, other, gone = (Agent("writer", version=str(n)) for n in range(1, 5))
for agent in (old, new, other, gone):
    agent.on("facts")(facts)
old.on("text.write")(write)
new.on("text.write")(write_well)
other.on("text.write")(write_otherwise)
