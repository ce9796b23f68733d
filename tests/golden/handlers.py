"""The handler whose recorded histories are `tasks_v0/` and `tasks_v1/`, and how the newest were recorded.

    python -m tests.golden.handlers

Today's code must go over all of them. Once it was released a folder stays as it is: new histories get a new one.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from agent_party import Agent, Party, StepError, Task
from agent_party.actors.bundle import bundle

HISTORIES = [Path(__file__).parent / name for name in ("tasks_v0", "tasks_v1")]
keeper = Agent("keeper")


def count(text: str) -> int:
    """An effect."""
    return len(text)


def fails() -> None:
    """An effect that fails."""
    raise ValueError("always")


@keeper.on("double")
async def double(task: Task, number: int) -> int:
    """A child's handler."""
    return 2 * number


@keeper.on("keep")
async def keep(task: Task, text: str) -> str:
    """Something of everything that a task awaits."""
    length = await task.step(count, text)
    page = await task.artifact("page", text)
    pair = await asyncio.gather(task.ask("double", number=length), task.step(count, text * 2))
    winner, _ = await task.first(task.sleep(0.001), task.signal("never"))
    seen = await task.memory.get("seen", 0)
    await task.memory.set("seen", seen + 1)
    chance = 0 <= task.random() < 1
    try:
        await task.step(fails)
        failed = ""
    except StepError as error:
        failed = error.kind
    word = await task.signal("word")
    told = await task.approval("publish", show={"page": page.name, "word": word})
    return f"{length} {pair} {winner} {chance} {failed} {word} {told.note}"


async def record(folder: Path) -> None:
    """One task that has finished, and one that waits for a person."""
    async with Party.open(agents=[keeper], journal=f"sqlite:///{folder}/log.db", runtime="local") as party:
        for name in ("waiting", "finished"):
            task = await party.ask(keep, text="ravens")
            await task.signal("word", "owls")
            async for state in task.watch(timeout=30):
                if state.finished:
                    break
                if any(state.waits[wait].kind == "approval" for wait in state.open):
                    if name == "waiting":
                        break
                    await task.approve("publish", note="fine")
                    await task.result(timeout=30)
            (HISTORIES[-1] / f"{name}.party").write_bytes(await bundle(party.stack.log, task.id, team=True))


def main() -> None:
    """Record them anew."""
    HISTORIES[-1].mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PARTY_STATE_DIR"] = str(Path(folder) / "state")
        asyncio.run(record(Path(folder)))
    print(*sorted(path.name for path in HISTORIES[-1].iterdir()))


if __name__ == "__main__":
    main()
