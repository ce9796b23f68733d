"""What is recorded of a conversation: what is new in each request, from which the whole can be told."""

import asyncio
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Task
from agent_party.actors.events import Received
from agent_party.actors.models import Message, ModelRequest, ScriptedModel, calling
from agent_party.actors.packing import pack
from agent_party.actors.talks import More, Talks
from agent_party.actors.task_state import TaskState
from tests.unit.handlers_kit import no_pauses, result, world
from tests.unit.world import Process, World, until

__all__ = ["no_pauses", "world"]
LONG = "a long line " * 20
ROUNDS = 40


def look(n: int) -> str:
    """Says something long."""
    return f"{n} {LONG}"


def chatty(model: ScriptedModel, stop: int = 0) -> Agent:
    """Talks in two conversations, the second of which goes on from the first; waits for a signal in between."""
    agent = Agent("chatty", models={"main": model})

    @agent.on("talk")
    async def talk(task: Task) -> list[str]:
        first = await task.model("main", "go", tools=[look], rounds=ROUNDS + 1, system="be brief")
        await task.signal("go on")
        then = await task.model("main", [*first.messages, Message("user", "and?")], temperature=0.5)
        last = await task.model("main", [*then.messages, Message("user", "so?")], temperature=0.5, tools=[look])
        return [first.text, then.text, last.text]

    return agent


def scripted() -> ScriptedModel:
    return ScriptedModel([*(calling("look", n=n) for n in range(ROUNDS)), "one", "two", "three"])


def told(state: TaskState) -> list[dict[str, Any]]:
    asked = [wait.input for wait in state.waits if wait.name == "model main"]
    return [msgspec.msgpack.decode(given)[0][0] for given in asked]


async def at_the_signal(process: Process) -> None:
    async def stands() -> bool:
        state = await process.state("t")
        return any(wait.kind == "signal" for wait in state.waits)

    await until(stands)


def go_on() -> Received:
    return Received("signal", "go on", pack(None, ""), b"m" * 16)


async def talked(world: World, *models: ScriptedModel) -> TaskState:
    """What comes of it, in one process for each model: each but the last dies while the task waits for its signal."""
    process = await world.process(chatty(models[0]))
    await process.ask("t", "talk")
    await at_the_signal(process)
    for model in models[1:]:
        await world.kill(process)
        process = await world.process(chatty(model))
    await process.host.deliver("t", go_on())
    return await process.finished("t")


async def test_only_what_is_new_is_recorded(world: World) -> None:
    model = scripted()
    state = await talked(world, model)
    assert result(state) == ["one", "two", "three"]
    sizes = [len(wait.input) for wait in state.waits if wait.name == "model main"]
    assert max(sizes[2:]) <= min(sizes[2:ROUNDS]) + 100, "a round costs the same, however long the conversation"
    whole: list[list[Message]] = []
    for asked, sent in zip(told(state), model.requests, strict=True):
        new = msgspec.convert(asked["messages"], type=list[Message])
        if "after" in asked:
            before = whole[asked["after"]]
            new = [*before, sent.messages[len(before)], *new]
            assert sent.messages[len(before)].role == "assistant"
        whole.append(new)
    assert whole == [sent.messages for sent in model.requests]
    assert [asked.get("changed") for asked in told(state)][-3:-1] == [None, {"temperature": 0.5, "tools": []}]
    assert [call["name"] for call in told(state)[-1]["changed"]["tools"]] == ["look"]


async def test_a_crash_in_between_changes_nothing(world: World) -> None:
    first, second = scripted(), ScriptedModel(["two", "three"])
    state = await talked(world, first, second)
    assert result(state) == ["one", "two", "three"]
    assert (len(first.requests), len(second.requests)) == (ROUNDS + 1, 2)
    assert second.requests[1].messages[-2:] == [Message("assistant", "two"), Message("user", "so?")]


async def test_what_an_earlier_version_recorded_whole_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(Talks, "told", lambda self, request: (0, request))
        process = await world.process(chatty(scripted()))
        await process.ask("t", "talk")
        await at_the_signal(process)
        await world.kill(process)
    second = ScriptedModel(["two", "three"])
    process = await world.process(chatty(second))
    await process.host.deliver("t", go_on())
    state = await process.finished("t")
    assert result(state) == ["one", "two", "three"]
    assert ["after" in asked for asked in told(state)] == [False] * (ROUNDS + 1) + [True] * 2


def request(*texts: str, **more: Any) -> ModelRequest:
    roles = ("user", "assistant")
    return ModelRequest(messages=[Message(roles[n % 2], text) for n, text in enumerate(texts)], **more)  # type: ignore[arg-type]


def test_a_request_goes_on_from_the_longest_that_it_begins_with() -> None:
    talks = Talks()
    assert talks.told(request("a")) == (0, request("a"))
    talks.answered(0, request("a"), Message("assistant", "b"))
    other = request("a", "another", "c")
    assert talks.told(other) == (1, other), "another answer is another conversation"
    talks.answered(1, other, Message("assistant", "d"))
    assert talks.told(request("a", "b", "c"))[1] == More(after=0, messages=[Message("user", "c")])
    longer = request("a", "another", "c", "d", "e", seed=3)
    assert talks.told(longer)[1] == More(after=1, messages=[Message("user", "e")], changed={"seed": 3})
    assert talks.told(request("a", "another", "x"))[0] == 4
    assert isinstance(talks.told(request("a", "another", "x"))[1], ModelRequest)


def test_no_more_than_so_many_conversations_are_kept() -> None:
    talks = Talks()
    for n in range(70):
        number, _ = talks.told(request(str(n)))
        talks.answered(number, request(str(n)), Message("assistant", "b"))
    assert isinstance(talks.told(request("5", "b", "c"))[1], ModelRequest)
    assert isinstance(talks.told(request("6", "b", "c"))[1], More)


async def test_conversations_at_once_are_told_apart(world: World) -> None:
    model = ScriptedModel(lambda asked: f"{asked.messages[0].content} {len(asked.messages)}")
    agent = Agent("both", models={"main": model})

    async def chat(task: Task, name: str) -> str:
        said = [Message("user", name)]
        for n in range(3):
            said = [*(await task.model("main", said)).messages, Message("user", f"{name} {n}")]
        return said[-2].content

    @agent.on("both")
    async def both(task: Task) -> list[str]:
        found = await asyncio.gather(*(chat(task, name) for name in "abc"))
        await task.signal("go on")
        return found

    process = await world.process(agent)
    await process.ask("t", "both")
    await at_the_signal(process)
    await world.kill(process)
    process = await world.process(agent)
    await process.host.deliver("t", go_on())
    state = await process.finished("t")
    assert result(state) == ["a 5", "b 5", "c 5"]
    assert sum("after" in asked for asked in told(state)) == 6
