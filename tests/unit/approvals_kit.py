"""What tests of approvals by people share."""

from typing import Any

import msgspec

from agent_party import Agent, RejectedError, Task
from agent_party.actors.approvals import covered
from agent_party.actors.events import Refused
from agent_party.actors.packing import pack_input
from agent_party.actors.people import GrantRole, People, WithdrawRole
from agent_party.actors.statements import Decision
from tests.unit.world import DEADLINE, Process, World, until


class Order(msgspec.Struct, frozen=True):
    amount: int
    why: str = ""

    def __post_init__(self) -> None:
        if self.amount == 13:
            raise ValueError("13 is refused by the form itself")


def asking(**rules: Any) -> Agent:
    """An agent whose task asks for one approval, and tells how it ended."""
    agent = Agent("writer")

    @agent.on("publish")
    async def publish(task: Task) -> Any:
        try:
            answer = await task.approval("publish", show="ravens", **rules)
        except RejectedError as error:
            return f"no: {error}"
        assert rules.get("form") is None or isinstance(answer.answer, Order)
        return [[one.person for one in answer.signed], msgspec.to_builtins(answer.answer)]

    return agent


async def opened(world: World, *agents: Agent) -> Process:
    process = await world.process(*agents)
    await process.ask("t", "publish")
    await process.opened("t", "publish")
    return process


async def says(
    process: Process,
    person: str,
    decision: Decision = "approve",
    *,
    answer: Any = None,
    number: int = 0,
    **changed: Any,
) -> None:
    """A person signs exactly what is shown, under the terms that hold, and leaves it."""
    wait = (await process.state("t")).waits[number]
    packed = pack_input(answer, "it") if answer is not None else b""
    fields = {"terms": covered(wait), "answer": packed, **changed}
    await process.leave("t", await process.statement("t", number, decision, person, **fields))


async def refusals(process: Process, count: int) -> list[Refused]:
    """Why statements do not count, once there are so many."""

    async def look() -> list[Refused]:
        found = [e for c in await process.commits("task/t") for e in c.events if isinstance(e, Refused)]
        return found if len(found) >= count else []

    return list(await until(look))


async def role(process: Process, command: GrantRole | WithdrawRole) -> None:
    await process.host.send(People, "roles", command, process.log.ambient.random(16), DEADLINE)
