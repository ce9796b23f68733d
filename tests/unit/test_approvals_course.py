"""The course of an approval: forms, time, crashes, upgrades, and the rule of an agent."""

from typing import Any

import msgspec
import pytest

from agent_party import Agent, Approval, Task
from agent_party.actors import supervisor
from agent_party.actors.approvals import terms_of
from agent_party.actors.errors import ConfigurationError
from agent_party.actors.events import Escalated, Signed
from agent_party.actors.people import GrantRole
from agent_party.actors.statements import decoded
from agent_party.actors.task_state import TaskState
from tests.unit.approvals_kit import Order, asking, opened, refusals, role, says
from tests.unit.handlers_kit import failure, result, world
from tests.unit.world import Clock, World, until

__all__ = ["world"]
HOUR = 3_600.0
"""Seconds: longer than any of these tests takes, however slow the machine; the clock is set to have them pass."""

# Forms


async def test_a_form_is_filled_in_signed_and_typed(world: World) -> None:
    process = await opened(world, asking(form=Order))
    terms = terms_of((await process.state("t")).waits[0])
    assert terms.form is not None
    assert set(terms.form["$defs"]["Order"]["properties"]) == {"amount", "why"}
    for answer in (None, {"amount": "x"}, {"amount": 13}):
        await says(process, "ada", answer=answer)
    reasons = [one.reason for one in await refusals(process, 3)]
    assert "lacks an answer" in reasons[0]
    assert "amount must be a whole number" in reasons[1]
    assert "13 is refused by the form itself" in reasons[2]
    await says(process, "ada", answer={"amount": 3})
    assert result(await process.finished("t")) == [["ada"], {"amount": 3, "why": ""}]


async def test_an_answer_left_while_nobody_ran_the_task_is_judged_by_its_type_too(world: World) -> None:
    first = await opened(world, asking(form=Order))
    await world.kill(first)
    person = await world.process()
    await says(person, "ada", answer={"amount": 13})
    await says(person, "bob", answer={"amount": 4})
    second = await world.process(asking(form=Order))
    assert result(await second.finished("t"))[0] == ["bob"]
    assert "by the form itself" in (await refusals(second, 1))[0].reason


async def test_what_stands_behind_an_answer_is_heard_where_the_code_is_not(world: World) -> None:
    """Without its code a task can still be cancelled: the answer before that is judged by its schema alone."""
    first = await opened(world, asking(form=Order))
    await world.kill(first)
    person = await world.process()
    await says(person, "ada", answer={"amount": "x"})
    await person.leave("t", await person.statement("t", -1, "cancel"))
    other = await world.process(Agent("other"))
    await other.host.reconcile()
    assert (await other.finished("t")).status == "cancelled"


async def test_a_replay_gives_the_same_approval(world: World) -> None:
    agent = asking(form=Order, by=("ada", "bob"), need=2)
    seen: list[Approval[Order]] = []

    @agent.on("twice")
    async def twice(task: Task) -> bool:
        seen.append(await task.approval("publish", form=Order, by=("ada", "bob"), need=2))
        await task.approval("then")
        return seen[0] == seen[-1]

    process = await world.process(agent)
    await process.ask("t", "twice")
    await process.opened("t", "publish")
    for person in ("ada", "bob"):
        await says(process, person, answer={"amount": 1})
    await process.opened("t", "then")
    await world.kill(process)
    process = await world.process(agent)
    await says(process, "ada", number=1)
    assert result(await process.finished("t")) is True
    assert len(seen) > 1
    assert all([decoded(one.statement).person for one in each.signed] == ["ada", "bob"] for each in seen)


# Time


async def test_an_approval_expires(world: World) -> None:
    process = await world.process(asking(expires=0.05))
    await process.ask("t", "publish")
    state = await process.finished("t")
    assert state.waits[0].due > 0
    assert result(state) == "no: approval 'publish' has expired: nobody decided it in time"


async def test_what_was_signed_in_time_counts_also_where_it_is_read_late(world: World) -> None:
    agent = asking(expires=HOUR, form=Order)
    first = await opened(world, agent)
    await world.kill(first)
    person = await world.process()
    await says(person, "ada", answer={"amount": 1})
    person.let_pass(HOUR)
    await says(person, "bob", answer={"amount": 2})
    second = await world.process(agent, ambient=Clock(HOUR))
    assert result(await second.finished("t")) == [["ada"], {"amount": 1, "why": ""}]


async def test_it_expires_while_nobody_runs_the_task(world: World) -> None:
    agent = asking(expires=HOUR)
    first = await opened(world, agent)
    await world.kill(first)
    person = await world.process(ambient=Clock(HOUR))
    await says(person, "ada")
    second = await world.process(agent, ambient=Clock(HOUR))
    assert "has expired" in result(await second.finished("t"))
    assert "too late" in (await refusals(second, 1))[0].reason


async def test_it_is_escalated_once_also_over_a_crash(world: World) -> None:
    agent = asking(by=("ada",), escalate=("cai",), escalate_after=HOUR, expires=10 * HOUR)
    first = await opened(world, agent)
    terms = terms_of((await first.state("t")).waits[0])
    assert (await first.state("t")).due == terms.escalates
    await world.kill(first)
    second = await world.process(agent, ambient=Clock(HOUR))

    async def escalated() -> bool:
        return (await second.state("t")).waits[0].escalated

    await until(escalated)
    assert (await second.state("t")).due == terms.expires, "time next changes something when it expires"
    await world.kill(second)
    third = await world.process(agent, ambient=Clock(HOUR + 1))
    await says(third, "eve")
    await says(third, "cai")
    assert result(await third.finished("t"))[0] == ["cai"]
    events = [event for commit in await third.commits("task/t") for event in commit.events]
    assert sum(isinstance(event, Escalated) for event in events) == 1


async def test_before_it_is_escalated_those_behind_may_not_decide(world: World) -> None:
    process = await opened(world, asking(by=("ada",), escalate=("cai",), escalate_after=HOUR))
    await says(process, "cai")
    assert "later cai may" in (await refusals(process, 1))[0].reason
    await says(process, "ada")
    assert result(await process.finished("t"))[0] == ["ada"]


async def test_terms_that_cannot_be_fail_their_own_task(world: World) -> None:
    process = await world.process(asking(expires=-1), Agent("other"))
    await process.ask("t", "publish")
    kind, text = failure(await process.finished("t"))
    assert kind == "ConfigurationError"
    assert "expires must be seconds from now" in text


async def test_time_wakes_it_where_it_was_passivated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escalated, and later expired, each time while the task is not in memory, and without a round."""
    monkeypatch.setattr(supervisor, "ROUND", 3_600.0)
    agent = asking(by=("ada",), escalate=("cai",), escalate_after=HOUR, expires=2 * HOUR, form=Order)
    process = await opened(world, agent)

    async def rests() -> bool:
        process.host.passivation.idle = 0.0
        await process.host.passivation.sweep()
        return "t" not in process.host.cells

    async def escalated() -> bool:
        return (await process.state("t")).waits[0].escalated

    await until(rests)
    assert not await escalated()
    process.let_pass(HOUR)
    await until(escalated)
    await until(rests)
    await says(process, "ada", answer={"amount": 13})
    assert "by the form itself" in (await refusals(process, 1))[0].reason
    await until(rests)
    process.let_pass(HOUR)
    assert "has expired" in result(await process.finished("t"))


# Upgrades


async def test_a_task_that_waits_for_approval_survives_an_upgrade(world: World) -> None:
    """What was recorded decides: who may, how many, until when, and what they fill in."""
    first = await opened(world, asking(by=("ada", "bob"), need=2, expires=HOUR))
    await says(first, "ada")

    async def signed() -> bool:
        return bool((await first.state("t")).waits[0].signed)

    await until(signed)
    await world.kill(first)
    upgraded = asking(by=("eve",), expires=0.01)
    upgraded.version = "2"
    second = await world.process(upgraded)
    await says(second, "eve")
    assert "eve may not decide" in (await refusals(second, 1))[0].reason
    await says(second, "bob")
    assert result(await second.finished("t"))[0] == ["ada", "bob"]


async def test_a_form_that_an_upgrade_changed_stops_the_task_and_says_so(world: World) -> None:
    class Other(msgspec.Struct):
        colour: str

    def version(form: Any) -> Agent:
        agent = Agent("writer")

        @agent.on("publish")
        async def publish(task: Task) -> Any:
            await task.approval("publish", form=form)
            await task.approval("then")

        return agent

    process = await opened(world, version(Order))
    await says(process, "ada", answer={"amount": 1})
    await process.opened("t", "then")
    await world.kill(process)
    process = await world.process(version(Other))

    async def stopped() -> TaskState | None:
        state = await process.state("t")
        return state if state.status == "stopped" else None

    await says(process, "ada", number=1)  # which wakes it
    state = await until(stopped)
    assert "the form has changed since it was signed" in state.failure.message


# The rule of an agent


def ruled(approval: str) -> Agent:
    agent = Agent("writer", approval=approval)

    @agent.on("write")
    async def write(task: Task, topic: str) -> str:
        await task.approval("then")
        return topic

    return agent


async def test_an_agents_rule_is_asked_before_its_task_begins(world: World) -> None:
    process = await world.process(ruled("role:editor"))
    await role(process, GrantRole("editor", "bob", "root"))
    await process.ask("t", "write", topic="ravens")
    number = await process.opened("t", "start write")
    wait = (await process.state("t")).waits[number]
    assert number == 0
    assert msgspec.msgpack.decode(wait.input) == {"capability": "write", "input": {"topic": "ravens"}}
    assert terms_of(wait).by == ("role:editor",)
    await says(process, "ada")
    assert (await refusals(process, 1))[0].person == "ada"
    await says(process, "bob")
    await process.opened("t", "then")
    await world.kill(process)
    process = await world.process(ruled("automatic"))
    await says(process, "ada", number=1)
    assert result(await process.finished("t")) == "ravens"


@pytest.mark.parametrize(("before", "after"), [("person", "automatic"), ("person", "role:x"), ("automatic", "person")])
async def test_the_record_decides_whatever_the_rule_is_by_then(world: World, before: str, after: str) -> None:
    process = await world.process(ruled(before))
    await process.ask("t", "write", topic="ravens")
    await process.opened("t", "start write" if before == "person" else "then")
    await world.kill(process)
    process = await world.process(ruled(after))
    await says(process, "ada")
    if before == "person":
        await process.opened("t", "then")
        await says(process, "ada", number=1)
    assert result(await process.finished("t")) == "ravens"
    assert [wait.name for wait in (await process.state("t")).waits] == ["start write", "then"][before != "person" :]


async def test_a_task_that_is_not_approved_never_begins(world: World) -> None:
    process = await world.process(ruled("person"))
    await process.ask("t", "write", topic="ravens")
    await process.opened("t", "start write")
    await says(process, "ada", "reject", note="not now")
    assert failure(await process.finished("t")) == ("RejectedError", "ada rejected 'start write': not now")


async def test_an_approval_of_the_handlers_own_is_not_taken_for_the_agents(world: World) -> None:
    def version(approval: str) -> Agent:
        agent = Agent("writer", approval=approval)

        @agent.on("write")
        async def write(task: Task) -> str:
            return (await task.approval("start write", show="mine")).person

        return agent

    process = await world.process(version("automatic"))
    await process.ask("t", "write")
    await process.opened("t", "start write")
    await world.kill(process)
    process = await world.process(version("person"))
    await says(process, "ada")
    assert result(await process.finished("t")) == "ada"


@pytest.mark.parametrize("rule", ["roles", "role:", "role:A", "", "nobody"])
def test_a_rule_that_cannot_be_is_refused(rule: str) -> None:
    with pytest.raises(ConfigurationError, match="approval is automatic, person or role:NAME"):
        Agent("writer", approval=rule)


def test_a_role_without_a_name_is_that_of_the_agents() -> None:
    assert Agent("writer", approval="role").approval == "role:writer"


def test_events_that_were_written_before_are_read() -> None:
    old = msgspec.msgpack.encode({"wait": 1, "person": "ada", "statement": b"", "signature": b""})
    assert msgspec.msgpack.decode(old, type=Signed).seats == ()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"wait": 1}), type=Escalated).due == 0
