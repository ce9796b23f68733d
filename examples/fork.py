"""A task fails in production. Its file is gone over on a laptop with nothing called, forked there, and finishes."""

import asyncio
from pathlib import Path

from agent_party import Agent, Party, Task, TaskFailedError
from agent_party.actors.bundle import Bundle, bundle, write_private
from agent_party.actors.past import recorded
from agent_party.actors.rehearsal import rehearse
from agent_party.timetravel import changed, fork_task

called: list[str] = []
baker = Agent("baker", version="1")


def mix(flour: str) -> str:
    """An effect that is done once, and is dear."""
    called.append("mix")
    return f"dough of {flour}"


def bake(dough: str, degrees: int) -> str:
    """An effect."""
    called.append("bake")
    return f"{dough}, baked at {degrees}"


@baker.on("bread")
async def bread(task: Task, flour: str, degrees: int) -> str:
    """A loaf."""
    dough = await task.step(mix, flour)
    assert degrees > 100, "the oven is cold"
    return await task.step(bake, dough, degrees)


async def main() -> None:
    """Fail, export, debug, fork."""
    file = Path("failed.party")
    async with Party.open(agents=[baker], journal="sqlite:///production/log.db") as party:
        task = await party.ask(bread, flour="rye", degrees=20)
        try:
            await task.result()
        except TaskFailedError as error:
            print(error)
        write_private(file, await bundle(party.stack.log, task.id))
    called.clear()
    past = Bundle.read(file)
    told = await rehearse(await recorded(past, past.task), [baker], past)
    print(f"it asked again for {told.reached} wait, and raised {told.error!r}; called: {called}")
    async with Party.open(agents=[baker], journal="sqlite:///laptop/log.db") as party:
        change = changed({"degrees": 230})
        fork = await fork_task(party, past.task, at=None, change=change, past=past)
        print(f"{await fork.result()}; called: {called}")


if __name__ == "__main__":
    Path("failed.party").unlink(missing_ok=True)
    asyncio.run(main())
