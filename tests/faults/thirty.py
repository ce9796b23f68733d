"""A task of thirty waits of every kind: steps alone and together, children, timers, memory, an artifact, a signal, an
update, an approval, and a saga that is taken back."""

import asyncio
from collections.abc import Callable
from typing import Any

from agent_party import Agent, Approval, Party, Task, TaskHandle, step
from agent_party.actors.errors import SettledError
from agent_party.actors.task_state import TaskState

REQUEST = "thirty"
Note = Callable[[str], None]


def quiet(line: str) -> None:
    """Say nothing."""


def agents(note: Note = quiet, hour: float = 3600) -> list[Agent]:
    """``note(line)`` is called by each effect, once for each time it runs. ``hour``: how many seconds one lasts."""
    lead, leg = Agent("lead", version="1"), Agent("leg", version="1")

    @step()
    async def fetch(name: str) -> str:
        note(f"fetch {name}")
        return name.upper()

    async def unbook(name: str) -> None:
        note(f"unbook {name}")

    @step(undo=unbook)
    async def book(name: str) -> str:
        note(f"book {name}")
        return f"booked {name}"

    @step(retries=2, backoff=hour / 60, jitter=0)
    async def pay(amount: int) -> None:
        note(f"pay {amount}")
        raise ValueError("no money")

    @leg.on("leg.walk")
    async def walk(task: Task, name: str, hours: int) -> str:
        first = await task.step(fetch, name)
        await task.sleep(hours * hour)
        return first + str(await task.step(fetch, f"{name}-{hours}"))

    @lead.on("journey")
    async def journey(task: Task, names: list[str]) -> dict[str, Any]:
        extra: list[str] = []

        def add(name: str) -> int:
            extra.append(name)
            return len(extra)

        task.on_update("add", add)
        began, dice, ident = task.now(), task.random(), task.uuid()
        fetched = [await task.step(fetch, name) for name in names]
        together = await asyncio.gather(*(task.step(fetch, f"{name}!") for name in names))
        ways = {"west": 2, "east": 1}
        legs = await asyncio.gather(*(task.ask("leg.walk", name=name, hours=ways[name]) for name in ways))
        await task.memory.set("legs", legs)
        winner, _ = await task.first(task.sleep(20_000 * hour), task.signal("hurry"))
        try:
            await task.within(hour / 6, task.signal("never"))
        except TimeoutError:
            extra.append("late")
        kept = await task.artifact("plan", "\n".join(fetched))
        await task.checkpoint({"fetched": fetched})
        signed: Approval = await task.approval("go", show={"legs": legs, "plan": kept.name})
        try:
            async with task.saga() as saga:
                await saga.step(book, "room")
                await saga.step(book, "train")
                await task.step(pay, 100)
        except Exception as error:
            extra.append(type(error).__name__)
        await task.sleep(24 * hour)
        return {
            "fetched": fetched,
            "together": together,
            "memory": await task.memory.get("legs"),
            "winner": winner,
            "approved": signed.approved,
            "extra": extra,
            "recorded": (task.now() > began, 0 <= dice < 1, len(ident)),
        }

    return [lead, leg]


def waits_for(state: TaskState, kind: str, name: str) -> bool:
    """Whether a wait of this kind and name is open."""
    return any(state.waits[wait].kind == kind and state.waits[wait].name == name for wait in state.open)


async def drive(party: Party, request: str = REQUEST) -> Any:
    """Ask, signal, update, approve; each once, however often this is called."""
    task: TaskHandle[Any] = await party.using(request_id=request).ask("journey", names=["a", "b", "c"])
    async for state in task.watch():
        if state.finished:
            break
        if waits_for(state, "signal", "hurry"):
            await task.using(message_id=f"more {request}").update("add", name="more")
            await task.using(message_id=f"hurry {request}").signal("hurry")
        if waits_for(state, "approval", "go"):
            try:
                await task.approve("go")
            except SettledError:  # it was decided before a crash
                continue
    return await task.result()
