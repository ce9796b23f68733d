"""An app whose tasks wait for people, for the tests of approvals from outside."""

from typing import Annotated

import msgspec

from agent_party import Agent, Task

cashier = Agent("cashier")


class Payment(msgspec.Struct):
    """A form."""

    amount: Annotated[int, msgspec.Meta(ge=1, le=100)]
    sure: bool = True
    why: str = ""


@cashier.on("bill.pay")
async def pay(task: Task, to: str) -> str:
    """Needs two people and a form."""
    given = await task.approval("pay", show={"to": to}, form=Payment, by=("ada", "role:boss"), need=2, expires=3600)
    return f"{given.answer.amount} to {to}, {given.answer.sure}"


@cashier.on("bill.see")
async def see(task: Task, to: str) -> str:
    """Needs one person, and nothing else."""
    return (await task.approval("see", show=to, by=("ada",))).person


@cashier.on("bill.loop")
async def loop(task: Task, turn: int) -> None:
    """Asks for one thing after the other under the same number."""
    await task.approval("turn", show=turn)
    task.continue_as_new(turn=turn + 1)
