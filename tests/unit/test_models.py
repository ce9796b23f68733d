"""The protocol's own types, and the models that need no server."""

import asyncio
import json
import pickle
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_party.actors.errors import ConfigurationError, PartyError
from agent_party.actors.model import BY_NAME, RETRYABLE, bound, estimate, find_model
from agent_party.actors.models import (
    Cost,
    Message,
    Model,
    ModelAnswer,
    ModelBusyError,
    ModelError,
    ModelNoAnswerError,
    ModelRequest,
    ModelTimeoutError,
    ModelTooMuchError,
    Prices,
    RecordedModel,
    ScriptedModel,
    ToolCall,
    Usage,
    calling,
    hang,
)
from tests.unit.models_kit import request


async def complete(model: Model, asked: ModelRequest | None = None) -> tuple[ModelAnswer, list[str]]:
    emitted: list[str] = []
    return await model.complete(asked or request(), emitted.append), emitted


# The protocol


def test_a_request_has_the_same_digest_in_every_process() -> None:
    asked = request("hä", output={"b": 1, "a": {"d": 2, "c": 3}})
    other = request("hä", output={"a": {"c": 3, "d": 2}, "b": 1})
    assert asked.digest() == other.digest() != request("hö").digest()
    script = "from tests.unit.models_kit import request; print(request('hä').digest())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert said.stdout.strip() == request("hä").digest()


def test_what_is_recorded_reads_back() -> None:
    answer = ModelAnswer("t", [ToolCall("1", "f", "{}")], "stop", Usage(3, 2, 1), Cost(Decimal("0.10")), 0.5, "m")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=ModelAnswer) == answer
    asked = request("t", temperature=0.1, seed=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=ModelRequest) == asked


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1}, {"temperature": float("nan")}])
def test_requests_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        request(**options)
    with pytest.raises(ValueError, match="message"):
        ModelRequest(messages=[])


def test_no_call_can_use_more_than_its_estimate() -> None:
    asked = request("wörter " * 100, max_tokens=50)
    assert bound(asked).input_tokens >= len(("wörter " * 100).encode())
    model = ScriptedModel([], prices=Prices.of(1_000_000, 2_000_000))
    found = estimate(model, asked)
    assert found.cost == Cost(Decimal(found.usage.input_tokens + 100))
    assert estimate(ScriptedModel([]), asked).cost is None


def test_prices_are_exact() -> None:
    prices = Prices.of(0.1, 0.2, "0.05", "EUR")
    assert prices.cost(Usage(3, 0)) == Cost(Decimal("0.0000003"), "EUR")
    assert prices.cost(Usage(1_000_000, 1_000_000, 1_000_000)) == Cost(Decimal("0.25"), "EUR")
    assert prices.cost(Usage(1, 0, 5)).amount == Decimal("0.00000005")
    assert Prices(Decimal(1), Decimal(2)).cost(Usage(1_000_000, 0, 1_000_000)).amount == 1
    for wrong in ("-1", "nan", "inf", "much"):
        with pytest.raises(ConfigurationError):
            Prices.of(wrong, 1)


def test_the_tree_of_errors() -> None:
    kinds = set(ModelError.__subclasses__())
    assert kinds == set(BY_NAME.values())
    assert issubclass(ModelError, PartyError)
    assert {kind for kind in kinds if kind.retryable} == set(RETRYABLE) - {TimeoutError}
    with pytest.raises(ConfigurationError, match="agent a has no model 'b'; its models are: c"):
        find_model({"c": ScriptedModel([])}, "b", "a")


def test_models_are_there_without_their_drivers() -> None:
    script = "import sys, agent_party, agent_party.actors.models; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert not {"openai", "genai_prices", "httpx", "httpx2", "pydantic"} & set(said.stdout.split())


# Scripted


async def test_a_script_in_order() -> None:
    model = ScriptedModel(
        ["one two", calling("add", a=1), ModelBusyError("full")], prices=Prices.of(1_000_000, 1_000_000)
    )
    answer, emitted = await complete(model)
    assert (answer.text, emitted, answer.usage) == ("one two", ["one two"], Usage(1, 2))
    assert answer.cost == Cost(Decimal(3))
    answer, _ = await complete(model)
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [("add", {"a": 1})]
    with pytest.raises(ModelBusyError):
        await complete(model)
    with pytest.raises(ModelNoAnswerError, match="has 3 answers; this is call 4"):
        await complete(model)
    assert len(model.requests) == 4


async def test_a_script_by_function_in_pieces() -> None:
    model = ScriptedModel(lambda asked: asked.messages[-1].content.upper(), piece=2)
    answer, emitted = await complete(model, request("hällo"))
    assert (answer.text, emitted) == ("HÄLLO", ["HÄ", "LL", "O"])


async def test_a_script_that_hangs_or_says_too_much() -> None:
    model = ScriptedModel([hang, "x" * 100], limit=99, piece=10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(complete(model), 0.01)
    emitted: list[str] = []
    with pytest.raises(ModelTooMuchError):
        await model.complete(request(), emitted.append)
    assert len(emitted) == 9


# Recorded


async def test_answers_are_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    behind = ScriptedModel(["first", "second"], name="m", prices=Prices.of(1, 1))
    recording = RecordedModel(path, behind)
    first, _ = await complete(recording, request("a"))
    await complete(recording, request("b"))
    assert (await complete(recording, request("a")))[0] == first
    assert len(behind.requests) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    replaying = pickle.loads(pickle.dumps(RecordedModel(path)))
    assert await complete(replaying, request("a")) == (first, ["first"])
    assert (await complete(replaying, request("b")))[0].text == "second"
    assert (replaying.name, replaying.price(Usage(1, 1))) == ("m", None)
    assert recording.price(Usage(1, 1)) is not None


async def test_a_request_that_is_not_recorded(tmp_path: Path) -> None:
    model = RecordedModel(tmp_path / "none.jsonl")
    assert model.name == "recorded"
    with pytest.raises(ModelNoAnswerError, match=r"none\.jsonl holds no answer .* 'say'.*behind="):
        await complete(model)


async def test_errors_are_not_recorded(tmp_path: Path) -> None:
    model = RecordedModel(tmp_path / "a.jsonl", ScriptedModel([ModelTimeoutError("late"), "there"]))
    with pytest.raises(ModelTimeoutError):
        await complete(model)
    assert (await complete(model))[0].text == "there"


async def test_the_same_request_twice_at_once_has_one_answer(tmp_path: Path) -> None:
    path, met = tmp_path / "a.jsonl", asyncio.Barrier(2)

    class Slow(ScriptedModel):
        async def complete(self, request: ModelRequest, emit: Any) -> ModelAnswer:
            await asyncio.wait_for(met.wait(), 60)
            return await super().complete(request, emit)

    model = RecordedModel(path, Slow(["one", "two"]))
    answers = await asyncio.gather(complete(model), complete(model))
    assert answers[0][0] == answers[1][0]
    assert len(path.read_text().splitlines()) == 1


async def test_a_line_whose_writer_died_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    await complete(RecordedModel(path, ScriptedModel(["one"])), request("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    model = RecordedModel(path, ScriptedModel(["two"]))
    assert (await complete(model, request("a")))[0].text == "one"
    await complete(model, request("b"))
    assert path.read_bytes().startswith(whole)
    assert (await complete(RecordedModel(path), request("b")))[0].text == "two"


async def test_a_file_that_holds_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"digest": 3}\n')
    with pytest.raises(ConfigurationError, match=r"line 1 of .* is no recorded answer"):
        await complete(RecordedModel(path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await complete(RecordedModel(tmp_path))


def test_a_model_of_a_strangers_own_fits() -> None:
    class Echo:
        name = "echo"

        def price(self, usage: Usage) -> Cost | None:
            return None

        async def complete(self, request: ModelRequest, emit: Any) -> ModelAnswer:
            return ModelAnswer(request.messages[-1].content)

    model: Model = Echo()
    assert asyncio.run(model.complete(ModelRequest(messages=[Message("user", "x")]), print)).text == "x"
