import asyncio
from typing import Annotated

import msgspec

from agent_party import Agent, Party, RejectedError, Task, TaskHandle

cashier = Agent("cashier")


class Payment(msgspec.Struct):
    amount: Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # people fill it in and sign it: pages see JSON Schema
    account: str = "main"


@cashier.on("bill.pay")
async def pay(task: Task, to: str) -> str:
    given = await task.approval("pay", show={"to": to}, form=Payment, by=("ada", "bob", "role:boss"), need=2)
    people = " and ".join(one.person for one in given.signed)
    return f"{given.answer.amount} from {given.answer.account} to {to}, signed by {people}"


@cashier.on("bill.remind")
async def remind(task: Task, of: str) -> str:
    given = await task.approval("remind", show=of, by=("ada",), escalate=("role:boss",), escalate_after=0.2, expires=60)
    return f"{given.person} decided, in ada's absence"


@cashier.on("bill.forget")
async def forget(task: Task, of: str) -> str:
    try:
        await task.approval("forget", show=of, expires=0.2)
    except RejectedError as error:
        return str(error)
    return "forgotten"


async def asked(task: TaskHandle[str], *, escalated: bool = False) -> TaskHandle[str]:
    """The task, once it waits for people."""
    async for state in task.watch(timeout=30):
        if state.open and (state.waits[-1].escalated or not escalated):
            break
    return task


async def main() -> None:
    async with Party.open(agents=[cashier]) as party:
        await party.people.grant("boss", "cai")
        bill = await asked(await party.ask(pay, to="the baker"))
        await bill.approve(person="ada", answer=Payment(30))
        await bill.delegate(person="bob", to="dan")
        await bill.approve(person="dan", answer={"amount": 30})
        print(await bill.result(timeout=30))
        reminder = await asked(await party.ask(remind, of="the rent"), escalated=True)
        await reminder.approve(person="cai")
        print(await reminder.result(timeout=30))
        print(await (await party.ask(forget, of="the rent")).result(timeout=30))


asyncio.run(main())
