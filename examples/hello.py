import asyncio

from agent_party import Agent, Party, Task

writer = Agent("writer", version="1")


@writer.on("text.write")
async def write(task: Task, topic: str) -> str:
    letters = await task.step(len, topic)  # done once: after a crash its recorded result is used
    return f"{topic} has {letters} letters"


async def main() -> None:
    async with Party.open(agents=[writer]) as party:  # embedded here; the same code runs on Ray
        task = await party.using(request_id="r1").ask(write, topic="hash chains")
        print(await task.result())


asyncio.run(main())
