"""Conversations with tools, as durable steps of a task."""

import asyncio
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest

from agent_party import Task, step
from agent_party.actors.conversation import CORRECTIONS, RESULT, Form, converse
from agent_party.actors.errors import ConfigurationError
from agent_party.actors.events import Attempted
from agent_party.actors.models import (
    Message,
    ModelAnswer,
    ModelBusyError,
    ModelNonsenseError,
    ModelRefusedError,
    ModelRequest,
    ModelTimeoutError,
    Prices,
    ScriptedModel,
    ToolCall,
    at_once,
    calling,
    hang,
)
from agent_party.actors.task_state import TaskState
from agent_party.actors.tools import schema_of, tools_of
from tests.unit.handlers_kit import does, failure, no_pauses, result, run, world
from tests.unit.world import World, until

__all__ = ["no_pauses", "world"]


def add(a: int, b: int = 1) -> int:
    """Adds two numbers."""
    return a + b


def names(state: TaskState) -> list[str]:
    return [wait.name.split(".")[-1] for wait in state.waits]


async def talk(world: World, model: ScriptedModel, **options: Any) -> TaskState:
    """What a task comes to whose handler has this conversation, and returns its answer."""

    async def handler(task: Task) -> Any:
        return await converse(task, model, "main", "go", **options)

    return (await run(world, handler))[1]


# What it does


async def test_each_call_of_model_and_tool_is_a_step(world: World) -> None:
    model = ScriptedModel([calling("add", a=1, b=2), "three"], prices=Prices.of(1_000_000, 1_000_000))
    state = await talk(world, model, tools=[add], system="be brief", seed=4, temperature=0.0, max_tokens=9)
    answer = result(state)
    assert (answer["text"], answer["output"]) == ("three", None)
    assert names(state) == ["model main", "add", "model main"]
    asked = msgspec.msgpack.decode(state.waits[0].input, type=tuple[tuple[ModelRequest], dict[str, Any]])[0][0]
    assert asked == model.requests[0]
    assert asked.messages == [Message("system", "be brief"), Message("user", "go")]
    assert (asked.seed, asked.temperature, asked.max_tokens) == (4, 0.0, 9)
    settled = state.waits[2].settled
    assert settled is not None
    recorded = msgspec.msgpack.decode(settled.value, type=ModelAnswer)
    assert (recorded.text, recorded.usage.output_tokens, recorded.model) == ("three", 1, "scripted")
    assert recorded.cost is not None
    assert model.requests[1].messages[-1] == Message("tool", "3", answers="call_0_0")
    total = Decimal(answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"])
    assert Decimal(answer["cost"]["amount"]) == total > 3


async def test_tools_run_at_once_and_are_told_as_they_are(world: World) -> None:
    met = asyncio.Barrier(2)

    async def left(n: Annotated[int, msgspec.Meta(description="how many", ge=0)]) -> list[int]:
        """Meets the other one."""
        async with asyncio.timeout(60):
            await met.wait()
        return [n]

    async def right(*, function: str, capability: list[str] | None = None) -> dict[str, Any]:
        async with asyncio.timeout(60):
            await met.wait()
        return {"function": function, "capability": capability}

    model = ScriptedModel([at_once(calling("left", n=1), calling("right", function="f")), "met"])
    state = await talk(world, model, tools=[left, right])
    assert result(state)["text"] == "met"
    shown = [message.content for message in model.requests[1].messages[-2:]]
    assert [json.loads(text) for text in shown] == [[1], {"function": "f", "capability": None}]
    spec = model.requests[0].tools[0]
    assert (spec.name, spec.description) == ("left", "Meets the other one.")
    assert spec.parameters["properties"]["n"] == {"type": "integer", "minimum": 0, "description": "how many"}
    assert spec.parameters["required"] == ["n"]
    assert spec.parameters["additionalProperties"] is False


@dataclass
class Point:
    x: int
    y: int = 0


class Tree(msgspec.Struct):
    value: int
    left: "Tree | None" = None


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Point, '{"x": 1}', Point(1)),
        (Tree, 'Here:\n```json\n{"value": 1, "left": {"value": 2}}\n```', Tree(1, Tree(2))),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (int, '{"value": 3}', 3),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
async def test_output_of_a_type(world: World, kind: Any, text: str, expected: Any) -> None:
    model, found = ScriptedModel([text]), []

    async def handler(task: Task) -> None:
        found.append((await converse(task, model, "main", "go", output=kind)).output)

    await run(world, handler)
    assert found == [expected]
    schema = model.requests[0].output
    assert schema is not None
    assert schema["type"] == "object"
    assert schema == Form(kind).schema


def test_schemas_have_their_type_at_the_root() -> None:
    assert schema_of(Point, "it")["required"] == ["x"]
    assert "$defs" not in schema_of(Point, "it")
    assert "Tree" in schema_of(Tree, "it")["$defs"]
    with pytest.raises(ConfigurationError, match="it have no JSON schema"):
        schema_of(asyncio.Event, "it")


async def test_delegation_to_a_handler_and_by_name(world: World) -> None:
    async def helper(task: Task, topic: str) -> str:
        """Writes about a topic."""
        return f"about {topic}"

    async def described(capability: str) -> dict[str, Any]:
        return {"type": "object", "title": capability}

    calls = at_once(calling("helper", topic="a"), calling("other_helper", topic="b"))
    model = ScriptedModel([calls, "done"])

    async def handler(task: Task) -> str:
        tools = [helper, "other.helper"]
        return (await converse(task, model, "main", "go", tools=tools, describe=described)).text  # type: ignore[arg-type]

    agent = does(handler, helper)
    agent.on("other.helper")(helper)
    process = await world.process(agent)
    await process.ask("t", "handler")
    state = await process.finished("t")
    assert result(state) == "done"
    assert [wait.kind for wait in state.waits] == ["step", "step", "child", "child", "step"]
    assert [message.content for message in model.requests[1].messages[-2:]] == ["about a", "about b"]
    assert model.requests[0].tools[0].description == "Writes about a topic."
    assert model.requests[0].tools[1].parameters["title"] == "other.helper"


# What goes wrong


async def test_a_tool_that_raises_tells_the_model(world: World) -> None:
    @step(retries=1, backoff=0)
    def fails(a: int) -> None:
        raise OSError("no disk")

    async def child(task: Task) -> None:
        raise KeyError("gone")

    model = ScriptedModel([at_once(calling("fails", a=1), calling("child")), "so be it"])

    async def handler(task: Task) -> str:
        return (await converse(task, model, "main", "go", tools=[fails, child])).text

    _, state = await run(world, handler, child)
    assert result(state) == "so be it"
    first, second = (message.content for message in model.requests[1].messages[-2:])
    assert "OSError: no disk" in first
    assert second.startswith("error:")
    assert "gone" in second
    assert state.waits[1].settled is not None
    assert state.waits[1].settled.attempts == 2


async def test_a_result_that_is_long_or_has_no_form(world: World) -> None:
    def long() -> str:
        return "x" * (RESULT + 5)

    def odd() -> dict[Any, int]:
        return {b"\xff": 1, (1, 2): 3}

    model = ScriptedModel([at_once(calling("long"), calling("odd")), "done"])
    assert result(await talk(world, model, tools=[long, odd]))["text"] == "done"
    first, second = (message.content for message in model.requests[1].messages[-2:])
    assert first == "x" * RESULT + " [5 more letters]"
    assert second.startswith("error:")


NONSENSE = [
    (calling("no_such_tool"), "there is no tool 'no_such_tool'; there are: add"),
    (calling("add", a="one"), "Expected `int`"),
    (calling("add", a=1, c=2), "unknown field `c`"),
    (calling("add"), "missing required field `a`"),
    (ModelAnswer(calls=[ToolCall("1", "add", '{"a": 1')]), "truncated"),
    (ModelAnswer(calls=[ToolCall("1", "add", "[1]")]), "Expected `object`"),
    (ModelAnswer(calls=[ToolCall("1", "add", '{"a": "\\ud800"}')]), "arguments of add"),
]


@pytest.mark.parametrize(("answer", "told"), NONSENSE, ids=[told for _, told in NONSENSE])
async def test_nonsense_is_told_and_then_an_error(world: World, answer: ModelAnswer, told: str) -> None:
    model = ScriptedModel([answer, "better"])
    assert result(await talk(world, model, tools=[add]))["text"] == "better"
    assert told in model.requests[1].messages[-1].content
    model = ScriptedModel(lambda request: answer)
    async with asyncio.timeout(60):
        process = await world.process(does(stubborn(model)))
        await process.ask("stubborn", "handler")
        state = await process.finished("stubborn")
    kind, message = failure(state)
    assert kind == ModelNonsenseError.__name__
    assert told in message
    assert len(model.requests) == CORRECTIONS + 1


def stubborn(model: ScriptedModel) -> Any:
    async def handler(task: Task) -> str:
        return (await converse(task, model, "main", "go", tools=[add])).text

    return handler


async def test_output_that_does_not_fit_is_told_and_then_an_error(world: World) -> None:
    cut = ModelAnswer('{"x": ', finish="length")
    model = ScriptedModel([cut, '{"x": "one"}', '{"x": 1}'])
    assert result(await talk(world, model, output=Point))["output"]["x"] == 1
    told = [model.requests[n].messages[-1].content for n in (1, 2)]
    assert "cut at the limit of tokens" in told[0]
    assert "Expected `int`" in told[1]


async def test_only_errors_in_a_row_count(world: World) -> None:
    wrong, right = calling("nothing"), calling("add", a=1)
    model = ScriptedModel([*[wrong, right] * (CORRECTIONS + 1), "done"])
    assert result(await talk(world, model, tools=[add]))["text"] == "done"


async def test_a_bound_on_rounds(world: World) -> None:
    model = ScriptedModel(lambda request: calling("add", a=1))
    kind, message = failure(await talk(world, model, tools=[add], rounds=3))
    assert (kind, len(model.requests)) == ("ModelRoundsError", 3)
    assert "in 3 rounds" in message


@pytest.mark.parametrize(
    ("scripted", "kind"),
    [
        (ModelRefusedError("key"), "ModelRefusedError"),
        (ModelAnswer("no", finish="content_filter"), "ModelRefusedError"),
        (ModelNonsenseError("?"), "ModelNonsenseError"),
        (RuntimeError("a bug"), "StepError"),
    ],
)
async def test_what_is_not_worth_a_retry_is_asked_once(world: World, scripted: Any, kind: str) -> None:
    model = ScriptedModel([scripted, "never"])
    assert failure(await talk(world, model, retries=5))[0] == kind
    assert len(model.requests) == 1


async def test_what_is_worth_a_retry_is_asked_again(world: World) -> None:
    model = ScriptedModel([ModelBusyError("full"), ModelTimeoutError("late"), "there"])
    state = await talk(world, model)
    assert result(state)["text"] == "there"
    assert state.waits[0].settled is not None
    assert state.waits[0].settled.attempts == 3


async def test_a_server_is_not_asked_again_before_it_wants(world: World) -> None:
    model = ScriptedModel([ModelBusyError("full", retry_after=300), "there"])

    async def handler(task: Task) -> str:
        return (await converse(task, model, "main", "go")).text

    process = await world.process(does(handler))
    await process.ask("t", "handler")

    async def tried() -> list[int]:
        commits = await process.commits("task/t")
        return [e.next - c.time for c in commits for e in c.events if isinstance(e, Attempted)]

    (pause,) = await until(tried)
    assert pause > 200_000_000, "microseconds; the step's own pause would be a thousandth of a second"
    await process.host.cancel_here("t", "ada", "")
    assert len(model.requests) == 1


async def test_a_model_that_never_answers(world: World) -> None:
    model = ScriptedModel([hang])
    assert failure(await talk(world, model, timeout=0.02, retries=0))[0] == "ModelTimeoutError"


async def test_a_stranger_model_that_answers_something_else(world: World) -> None:
    class Odd(ScriptedModel):
        async def complete(self, request: ModelRequest, emit: Any) -> ModelAnswer:
            return "text"  # type: ignore[return-value]

    assert failure(await talk(world, Odd([])))[0] == "ModelNonsenseError"


def unnamed(*numbers: int) -> None: ...
def unreadable(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("tools", [[lambda: 1], [unnamed], [unreadable], [add, add], ["x" * 65], [add] * 129])
async def test_what_cannot_be_a_tool(world: World, tools: list[Any]) -> None:
    assert failure(await talk(world, ScriptedModel(["x"]), tools=tools))[0] == "ConfigurationError"


@pytest.mark.parametrize("rounds", [0, -1, 10_000])
async def test_rounds_that_cannot_be(world: World, rounds: int) -> None:
    assert failure(await talk(world, ScriptedModel(["x"]), rounds=rounds))[0] == "ValueError"


async def test_a_task_that_is_cancelled_does_not_go_on_with_its_model(world: World) -> None:
    """Its own end is no result of a tool. In a saga it has time to clean up, and could ask the model on."""
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    model = ScriptedModel([calling("slow"), "went on"])

    async def handler(task: Task) -> str:
        async with task.saga():
            return (await converse(task, model, "main", "go", tools=[slow])).text

    process = await world.process(does(handler))
    await process.ask("t", "handler")
    await asyncio.wait_for(started.wait(), 60)
    await process.host.cancel_here("t", "ada", "enough")
    assert (await process.finished("t")).status != "completed"
    await until(lambda: not process.host.cells)
    assert len(model.requests) == 1


# Tools


async def test_tools_can_be_looked_at_alone() -> None:
    tools = await tools_of(None, [add, "text.write"], None)  # type: ignore[arg-type]
    assert list(tools) == ["add", "text_write"]
    assert tools["add"].arguments(ToolCall("1", "add", '{"a": 2}')) == {"a": 2, "b": 1}
    assert tools["text_write"].arguments(ToolCall("1", "text_write", '{"any": 2}')) == {"any": 2}
    assert tools["add"].spec.parameters["properties"]["b"]["default"] == 1
