"""Talking to a model until it answers: its calls and those of its tools are steps, so a crash repeats none of them.

Each call of the model is a step ``model <name>`` whose input is the request, or what is new in it (see `Talks`), and
whose result is the `ModelAnswer`; each tool that it calls is a step or a child of its own. Going over a task again
gives the same requests, and takes their answers from the record.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

import msgspec

from ..eventstore.errors import PayloadError
from .effects import current_step
from .errors import CycleError, StepError, TaskCancelledError, TaskError
from .model import (
    BY_NAME,
    MAX_TOKENS,
    RETRYABLE,
    Cost,
    Emit,
    Estimate,
    Message,
    Model,
    ModelAnswer,
    ModelNonsenseError,
    ModelRefusedError,
    ModelRequest,
    ModelRoundsError,
    ToolCall,
    Usage,
    estimate,
)
from .packing import pack_input
from .steps import step
from .talks import More, Talks
from .tools import Describe, Tool, schema_of, tools_of

if TYPE_CHECKING:
    from .task import Task

T = TypeVar("T")
ROUNDS = 16
"""How often a model may be asked in one conversation, where the handler does not say."""
MOST_ROUNDS = 1_000
CORRECTIONS = 2
"""How often in a row a model is told what is wrong with its answer."""
RETRIES = 2
RESULT = 32_768
"""How many letters of a tool's result a model is shown."""


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """What came of a conversation. ``output``: of the type that was asked for, else None. ``messages``: the whole
    conversation, with which another can begin. ``usage`` and ``cost`` are those of all calls together; the cost is
    None if that of one is unknown. ``answer``: the model's last one."""

    text: str
    output: T
    messages: list[Message]
    usage: Usage
    cost: Cost | None
    answer: ModelAnswer


class ModelOptions(TypedDict, total=False):
    """What `Task.model` takes beside the messages and the type of the output.

    ``tools``: functions, handlers, or names of capabilities. ``system``: a message that comes first. ``max_tokens``: of
    each answer. ``retries`` and ``timeout``: of the step of each call. ``rounds``: how often the model may be asked.
    """

    tools: Sequence[Callable[..., Any] | str]
    system: str
    temperature: float | None
    max_tokens: int
    seed: int | None
    retries: int
    timeout: float | None
    rounds: int


async def converse(
    task: "Task",
    model: Model,
    name: str,
    messages: str | Sequence[Message],
    *,
    tools: Sequence[Callable[..., Any] | str] = (),
    output: Any = None,
    system: str = "",
    temperature: float | None = None,
    max_tokens: int = MAX_TOKENS,
    seed: int | None = None,
    retries: int = RETRIES,
    timeout: float | None = None,
    rounds: int = ROUNDS,
    describe: Describe | None = None,
    talks: Talks | None = None,
) -> Answer[Any]:
    """Ask the model, call the tools that it wants, and ask again, until it answers; see `Task.model`.

    ``retries`` and ``timeout`` are those of the step of each call of the model; only errors that asking again may mend
    are tried again. ``talks``: the conversations that this one may go on from. Raises `ModelError`s.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"a conversation of {rounds} rounds cannot be: give 1 to {MOST_ROUNDS:,}")
    known = await tools_of(task, tools, describe)
    form = None if output is None else Form(output)
    said = [Message("system", system)] if system else []
    said += [Message("user", messages)] if isinstance(messages, str) else messages
    talks = talks or Talks()
    answers: list[ModelAnswer] = []
    wrong: list[str] = []
    for _ in range(rounds):
        request = ModelRequest(
            messages=list(said),
            tools=[tool.spec for tool in known.values()],
            output=form.schema if form else None,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
        number, told = talks.told(request)
        call = _step(model, name, retries, timeout, request)
        answer = _numbered(await _call(task, model, name, call, request, told), len(answers))
        answers.append(answer)
        if answer.finish == "content_filter":
            raise ModelRefusedError(f"model {name} will not answer this: {answer.text}")
        said.append(Message("assistant", answer.text, answer.calls))
        talks.answered(number, request, said[-1])
        if answer.calls:
            results, complaint = await _use(task, known, answer.calls)
            said += results
        else:
            try:
                value = form.read(answer) if form else None
                return _answer(answers, said, value)
            except ModelNonsenseError as error:
                complaint = str(error)
                said.append(Message("user", f"Your answer cannot be used: {complaint}. Answer again."))
        wrong = [*wrong, complaint] if complaint else []
        if len(wrong) > CORRECTIONS:
            raise ModelNonsenseError(f"model {name} was told {CORRECTIONS} times what is wrong, and still: {complaint}")
    raise ModelRoundsError(f"model {name} has not come to an answer in {rounds} rounds: give more, or fewer tools")


class Form:
    """The type that an answer shall have. What is no object in JSON is put into one: servers want that."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self.schema = schema_of(kind, "answers of this type")
        self._wrapped = self.schema.get("type") != "object"
        if self._wrapped:
            self._kind = msgspec.defstruct("Answer", [("value", kind)], forbid_unknown_fields=True)
            self.schema = schema_of(self._kind, "answers of this type")

    def read(self, answer: ModelAnswer) -> Any:
        """The answer as the type; `ModelNonsenseError` says what does not fit. Words around the JSON are forgiven."""
        text = answer.text[answer.text.find("{") : answer.text.rfind("}") + 1]
        try:
            value = msgspec.json.decode(text, type=self._kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            cut = " (it was cut at the limit of tokens)" if answer.finish == "length" else ""
            raise ModelNonsenseError(f"it is no JSON of the schema that was asked for: {error}{cut}") from error
        return value.value if self._wrapped else value


Call = Callable[[ModelRequest | More], Any]


def _step(model: Model, name: str, retries: int, seconds: float | None, request: ModelRequest) -> Call:
    """One call of the model as a step. It is given what is recorded of the request; earlier versions recorded all."""

    async def call(told: ModelRequest | More) -> ModelAnswer:
        answer = await model.complete(request, _emitter())
        if not isinstance(answer, ModelAnswer):
            raise ModelNonsenseError(f"model {name} gives a {type(answer).__name__} and no ModelAnswer")
        return answer

    call.__qualname__ = f"model {name}"
    call.__formerly__ = lambda: pack_input(((request,), {}), "a request")  # type: ignore[attr-defined]
    return step(retries=retries, timeout=seconds, only=RETRYABLE)(call)


def _emitter() -> Emit:
    """Where the pieces of the running step's text go; nowhere, where nobody can watch."""
    publish: Emit | None = getattr(current_step(), "publish", None)
    return publish or (lambda piece: None)


async def _call(
    task: "Task", model: Model, name: str, call: Call, request: ModelRequest, told: ModelRequest | More
) -> ModelAnswer:
    try:
        async with _budgeted(task, model, request) as settle:
            answer: ModelAnswer = await task.step(call, told)
            settle(answer)
            return answer
    except StepError as error:
        kind = BY_NAME.get(error.kind)
        if kind is None:
            raise
        raise kind(f"model {name}: {error.message}") from error


@contextlib.asynccontextmanager
async def _budgeted(task: "Task", model: Model, request: ModelRequest) -> AsyncIterator[Callable[[ModelAnswer], None]]:
    """Reserve the most that a call can use, where the task keeps a budget; give what to settle it with.

    ``task.budget_for_call(estimate)``: an async context whose value has ``settle(usage, cost)``. Left without being
    settled, the call failed.
    """
    reserve: Callable[[Estimate], Any] | None = getattr(task, "budget_for_call", None)
    if reserve is None:
        yield lambda answer: None
        return
    async with reserve(estimate(model, request)) as reserved:
        yield lambda answer: reserved.settle(answer.usage, answer.cost)


def _numbered(answer: ModelAnswer, round: int) -> ModelAnswer:  # noqa: A002
    """With an id for each call that has none of its own: results are told apart by it."""
    if all(call.id for call in answer.calls):
        return answer
    calls = [
        call if call.id else msgspec.structs.replace(call, id=f"call_{round}_{number}")
        for number, call in enumerate(answer.calls)
    ]
    return msgspec.structs.replace(answer, calls=calls)


async def _use(task: "Task", tools: dict[str, Tool], calls: Sequence[ToolCall]) -> tuple[list[Message], str]:
    """Call the tools, at once; each result as a message, and what was wrong with the calls, if anything was."""
    wrong: list[str] = []
    wanted: list[Any] = []
    for call in calls:
        try:
            if call.name not in tools:
                raise ModelNonsenseError(f"there is no tool {call.name!r}; there are: {', '.join(tools) or 'none'}")
            wanted.append(_result(task, tools[call.name], tools[call.name].arguments(call)))
        except ModelNonsenseError as error:
            wrong.append(str(error))
            wanted.append(_said(f"error: {error}"))
    results = await asyncio.gather(*wanted)
    return [Message("tool", text, answers=call.id) for call, text in zip(calls, results, strict=True)], "; ".join(wrong)


async def _said(text: str) -> str:
    return text


async def _result(task: "Task", tool: Tool, arguments: dict[str, Any]) -> str:
    """What a tool comes to, as text for the model. Its errors are the model's affair; those of the task are not."""
    try:
        text = _shown(tool, await tool.run(arguments))
    except (StepError, TaskError, CycleError, PayloadError) as error:
        if isinstance(error, TaskCancelledError) and error.task == task.id:
            raise
        text = f"error: {error}"
    cut = len(text) - RESULT
    return f"{text[:RESULT]} [{cut:,} more letters]" if cut > 0 else text


def _shown(tool: Tool, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"error: the result of {tool.spec.name} has no form in JSON: {error}"


def _answer(answers: Sequence[ModelAnswer], messages: list[Message], output: Any) -> Answer[Any]:
    usage = sum((answer.usage for answer in answers), Usage())
    costs = [answer.cost for answer in answers]
    known = [cost for cost in costs if cost is not None]
    cost = None
    if len(known) == len(costs) and len({one.currency for one in known}) == 1:
        cost = Cost(sum((one.amount for one in known), Decimal(0)), known[0].currency)
    return Answer(answers[-1].text, output, messages, usage, cost, answers[-1])
