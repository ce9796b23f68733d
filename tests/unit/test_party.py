"""The front door: open, ask, wait, look, decide; on the embedded stores and the local runtime."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import agent_party
from agent_party import (
    Agent,
    Capabilities,
    Decider,
    Party,
    Task,
    TaskCancelledError,
    TaskFailedError,
    event,
)
from agent_party.actors.errors import (
    ConfigurationError,
    DeadlineError,
    InputError,
    SettledError,
    UnknownCapabilityError,
    UnknownTaskError,
)
from agent_party.actors.messages import Messages
from agent_party.eventstore.errors import IdReusedError, NewerSchemaError, PayloadError, UnknownEventError
from tests.unit.world import folder, until

writer = Agent("writer", description="writes")


class Text(msgspec.Struct):
    topic: str
    words: int


@writer.on("text.write")
async def write(task: Task, topic: str, words: int = 3) -> Text:
    task.progress(1, 2)
    return Text(await task.step(str.upper, topic), words)


@writer.on("text.publish")
async def publish(task: Task, topic: str) -> str:
    await task.approval("editor", show={"topic": topic})
    await task.approval("owner", show={"topic": topic})
    return topic


@writer.on("text.fail")
async def fail(task: Task) -> None:
    raise ValueError("no such luck")


@event("test.tallied")
class Tallied(msgspec.Struct, frozen=True):
    by: int


class Tally(Decider[int, int, Tallied]):
    kind = "tally"
    events: ClassVar[tuple[type, ...]] = (Tallied,)

    def initial(self) -> int:
        return 0

    def decide(self, command: int, state: int) -> Sequence[Tallied]:
        return [Tallied(command)]

    def evolve(self, state: int, event: Tallied) -> int:
        return state + event.by


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Any:
    with folder() as path:
        monkeypatch.setenv("PARTY_STATE_DIR", str(path / "state"))
        monkeypatch.chdir(path)
        yield path
        monkeypatch.undo()


@pytest.fixture
async def party(place: Path) -> AsyncIterator[Party]:
    async with Party.open(agents=[writer], runtime="local") as party:
        yield party


async def waits(party: Party, task: str, name: str) -> None:
    async def find() -> bool:
        state = await party.task(task).state()
        return any(state.waits[number].name == name for number in state.open)

    await until(find)


def test_every_public_name_has_a_docstring() -> None:
    for name in set(agent_party.__all__) - {"__version__"}:
        assert getattr(agent_party, name).__doc__, name


async def test_ask_by_function_and_by_name(party: Party) -> None:
    task = await party.ask(write, topic="ravens")
    assert await task.result(120) == Text("RAVENS", 3)
    assert await (await party.ask("text.write", topic="owls", words=1)).result(120) == Text("OWLS", 1)


async def test_a_request_id_is_one_task_for_ever(party: Party) -> None:
    first = await party.using(request_id="r1").ask(write, topic="ravens")
    again = await party.using(request_id="r1").ask(write, topic="ravens")
    other = await party.using(request_id="r2").ask(write, topic="ravens")
    assert first.id == again.id != other.id
    await first.result(120)
    assert await (await party.using(request_id="r1").ask(write, topic="ravens")).result(120) == Text("RAVENS", 3)
    with pytest.raises(IdReusedError):
        await party.using(request_id="r1").ask(write, topic="owls")


async def test_calls_that_are_refused(party: Party) -> None:
    async def stranger(task: Task) -> None: ...

    with pytest.raises(InputError, match="by name"):
        await party.ask(write, "ravens")
    with pytest.raises(InputError, match="Expected `str`"):
        await party.ask(write, topic=3)  # type: ignore[call-overload]
    with pytest.raises(UnknownCapabilityError):
        await party.ask(stranger)
    with pytest.raises(PayloadError, match=r"input of elsewhere"):
        await party.ask("elsewhere", what=object())
    with pytest.raises(ConfigurationError):
        party.using(within=-1)
    assert await party.stack.registry.tasks() == []


async def test_tasks_that_do_not_exist(party: Party) -> None:
    task = party.task("nobody")
    for call in (task.state(), task.result(), task.history(), task.approve(), task.cancel(), task.shown()):
        with pytest.raises(UnknownTaskError, match="nobody"):
            await call
    with pytest.raises(InputError):
        party.task("no such name")


async def test_what_a_task_came_to_is_raised(party: Party) -> None:
    with pytest.raises(TaskFailedError, match="ValueError: no such luck"):
        await (await party.ask(fail)).result(120)
    late = await party.using(within=0.01).ask(publish, topic="x")
    with pytest.raises(TaskFailedError, match=r"within 0\.01 seconds"):
        await late.result(120)


async def test_a_result_has_a_deadline(party: Party) -> None:
    task = await party.ask(publish, topic="x")
    for timeout in (0.0, 0.02):
        with pytest.raises(DeadlineError, match="it goes on"):
            await task.result(timeout)
    await task.cancel("enough")
    with pytest.raises(TaskCancelledError, match="enough"):
        await task.result(120)
    with pytest.raises(SettledError):
        await task.cancel()


async def test_approve_by_name_and_see_what_is_shown(party: Party) -> None:
    task = await party.ask(publish, topic="ravens")
    await waits(party, task.id, "editor")
    assert await task.shown() == (0, "editor", {"topic": "ravens"})
    with pytest.raises(SettledError, match="no open approval 'owner'"):
        await task.approve("owner")
    await task.approve("editor", note="fine")
    await waits(party, task.id, "owner")
    await task.reject(note="no", person="bob")
    with pytest.raises(TaskFailedError, match="bob rejected 'owner': no"):
        await task.result(120)
    with pytest.raises(SettledError):
        await task.approve()


async def test_several_persons_at_once(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    task, all_left = await party.ask(publish, topic="x"), asyncio.Event()
    await waits(party, task.id, "editor")
    genuine = Messages.read_inbox

    async def read_inbox(messages: Messages) -> None:
        await all_left.wait()  # who comes after the first one counted would find nothing to approve
        await genuine(messages)

    monkeypatch.setattr(Messages, "read_inbox", read_inbox)
    await asyncio.gather(*(task.approve("editor", person=f"p{n}") for n in range(6)))
    all_left.set()
    await waits(party, task.id, "owner")
    state = await task.state()
    assert state.waits[0].settled is not None
    assert msgspec.msgpack.decode(state.waits[0].settled.value)["person"].startswith("p")
    assert len([c async for c in party.stack.log.read(f"inbox/{task.stream}")]) == 6
    assert len((await party.stack.log.state(f"inbox/{task.stream}")).grants) == 0


async def test_a_watch_whose_time_is_up_shows_what_the_task_has_come_to(party: Party) -> None:
    """Else a program that was held up would be told that a task has not finished which has."""
    task, seen = await party.ask(write, topic="ravens"), list[str]()
    async for state in task.watch(0.01):
        seen.append(state.status)
        await task.result(60)
        await asyncio.sleep(0.02)
    assert seen[-1] == "completed"
    idle = await party.ask(publish, topic="ravens")
    assert [state.finished async for state in idle.watch(0)][-1] is False


async def test_history_state_and_watch(party: Party) -> None:
    task = await party.ask(write, topic="ravens")
    seen = [state.status async for state in task.watch(30)]
    assert seen[-1] == "completed"
    entries = await task.history()
    names = [entry.event for entry in entries]
    assert names[0] == "task.requested"
    assert names[-1] == "task.completed"
    assert {"wait.opened", "wait.settled", "task.progressed", "task.started"} <= set(names)
    assert [entry.revision for entry in entries] == sorted(entry.revision for entry in entries)
    last = entries[-1].revision
    states = [await task.state(at=revision) for revision in range(1, last + 1)]
    assert states[0].status == "requested"
    assert states[-1] == await task.state()
    assert await task.history(last) == [entry for entry in entries if entry.revision == last] or last


async def test_the_state_that_lives_is_the_state_that_is_read(party: Party) -> None:
    """Times included: what a live task has folded is what anyone folds from the log."""
    task = await party.ask(publish, topic="x")
    await waits(party, task.id, "editor")
    live = await party.runtime.host.activate(task.id)  # type: ignore[attr-defined]
    assert live.state == await task.state()


async def test_an_entity(party: Party) -> None:
    tally = party.entity(Tally, "t")
    assert (await tally.send(2, command_id="a")).state == 2
    assert (await tally.send(2, command_id="a")).state == 2
    with pytest.raises(IdReusedError):
        await tally.send(3, command_id="a")
    await tally.send(5)
    assert [await tally.state(at=at) for at in (0, 1, 2)] == [0, 2, 7]
    assert await tally.state() == 7
    assert await party.entity(Tally, "other").state() == 0


async def test_an_agent_can_be_looked_at(party: Party) -> None:
    state = await party.agent("writer").state()
    assert state.phase == "running"
    assert state.registered is not None
    assert sorted(state.registered.capabilities) == ["text.fail", "text.publish", "text.write"]
    assert [entry.event for entry in await party.agent("writer").history()] == ["agent.registered", "agent.joined"]


async def test_a_party_goes_on_where_it_was(place: Path) -> None:
    async with Party.open(agents=[writer], runtime="local") as party:
        task = await party.ask(publish, topic="x")
        await waits(party, task.id, "editor")
    async with Party.open(agents=[writer], runtime="local") as party:
        await party.task(task.id).approve()
        await waits(party, task.id, "owner")
        await party.task(task.id).approve()
        assert await party.task(task.id).result(120) == "x"
    async with Party.open(runtime="local") as party:
        assert await party.task(task.id).result(120) == "x"
        assert (await party.stack.registry.agents())[0].hosts == 0
    assert list((place / ".party" / "hosts").iterdir()) == []


async def test_nothing_is_left_open(place: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = asyncio.all_tasks()
        async with Party.open(agents=[writer], runtime="local") as party:
            await (await party.ask(write, topic="x")).result(120)
            await party.ask(publish, topic="x")
        assert asyncio.all_tasks() == before


async def test_a_party_that_cannot_open_leaves_nothing_behind(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="same name"):
        await Party.open(agents=[writer, writer], runtime="local").start()
    before = asyncio.all_tasks()
    broken = Party.open(agents=[Agent("fine")], runtime="local")
    broken.agents.append(object())  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        await broken.start()
    assert asyncio.all_tasks() == before
    assert not (place / ".party" / "hosts").exists() or list((place / ".party" / "hosts").iterdir()) == []


async def test_the_form_with_a_connection(place: Path) -> None:
    gate = Agent(
        name="gate", capabilities=[Capabilities.AUTHENTICATION], connection="sqlite:///elsewhere/log.db"
    ).initialize(config={"security_level": "enterprise"})
    async with Party.open(agents=[gate], runtime="local") as party:
        (row,) = await party.stack.registry.agents()
        assert (row.name, row.capabilities) == ("gate", ("authentication",))
        task = await party.ask(Capabilities.AUTHENTICATION, user="ada")
        assert (await task.state()).status == "requested"
    assert (place / "elsewhere" / "log.db").exists()


async def test_an_app_is_found_by_name(place: Path) -> None:
    async with Party.open(app="tests.unit.test_party:writer", runtime="local") as party:
        assert (await party.agent("writer").state()).phase == "running"
    for app in ("tests.unit.test_party", "no.such:thing", "tests.unit.test_party:nothing", "asyncio:run"):
        with pytest.raises(ConfigurationError, match="--app"):
            Party.open(app=app)


# What is on the log and not in the code


async def test_events_of_another_program(place: Path) -> None:
    async with Party.open(runtime="local") as party:
        await party.entity(Tally, "t").send(1)

    @event("test.tallied", version=2, upcast={1: lambda old: {**old, "unit": "x"}})
    class Newer(msgspec.Struct, frozen=True):
        by: int
        unit: str

    class NewerTally(Tally):
        events: ClassVar[tuple[type, ...]] = (Newer,)

        def decide(self, command: int, state: int) -> Sequence[Any]:
            return [Newer(command, "y")]

    async with Party.open(runtime="local") as party:
        assert (await party.entity(NewerTally, "t").send(2)).state == 3
    async with Party.open(runtime="local") as party:
        with pytest.raises(NewerSchemaError, match="schema 2, this program knows 1"):
            await party.entity(Tally, "t").state()
        with pytest.raises(NewerSchemaError):
            await party.entity(Tally, "t").send(1)

    class Without(Tally):
        events: ClassVar[tuple[type, ...]] = ()

    async with Party.open(runtime="local") as party:
        with pytest.raises(UnknownEventError, match=r"test\.tallied"):
            await party.entity(Without, "t").state()
    async with Party.open(runtime="local") as party:
        assert await party.entity(NewerTally, "t").state() == 3, "nothing was lost"


async def test_many_small_tasks_run_to_their_end(party: Party) -> None:
    async def one(n: int) -> Text:
        return await (await party.ask(write, topic=str(n))).result(120)

    for start in range(0, 200, 50):
        texts = await asyncio.gather(*(one(n) for n in range(start, start + 50)))
        assert [text.topic for text in texts] == [str(n) for n in range(start, start + 50)]
    rows = await party.stack.registry.tasks(limit=1_000)
    assert {row.status for row in rows} == {"completed"}
    assert len(rows) == 200
