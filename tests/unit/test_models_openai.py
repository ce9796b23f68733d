"""The client of OpenAI-compatible servers, against one that behaves and one that does not."""

import asyncio
import email.utils
import pickle
import socket
import sys
import time
from decimal import Decimal
from typing import Any

import pytest

from agent_party.actors.errors import ConfigurationError
from agent_party.actors.models import (
    Cost,
    Message,
    ModelBusyError,
    ModelError,
    ModelNonsenseError,
    ModelRefusedError,
    ModelRequest,
    ModelTimeoutError,
    ModelTooMuchError,
    OpenAICompatible,
    Prices,
    ToolCall,
    ToolSpec,
    Usage,
)
from agent_party.actors.models.openai_compatible import LONGEST_WAIT
from tests.unit.models_kit import DONE, Reply, ask, chunk, fails, request, says, serving, used
from tests.unit.world import until

SECRET = "sk-very-secret-1234567890"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# What it says


async def test_an_answer_is_streamed_and_accounted_for() -> None:
    began = time.monotonic()
    async with serving(says("Hel", "lo ", "wörld")) as server:
        answer, emitted = await ask(server, prices=Prices.of("0.15", "0.60", "0.075"))
    assert emitted == ["Hel", "lo ", "wörld"]
    assert (answer.text, answer.finish, answer.model) == ("Hello wörld", "stop", "served-1")
    assert answer.usage == Usage(1_000, 100, 600)
    assert answer.cost == Cost(Decimal("0.000165"), "USD")
    assert 0 < answer.latency < time.monotonic() - began
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "say"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 4_096,
    }


async def test_all_of_a_request_reaches_the_server() -> None:
    messages = [
        Message("system", "be brief"),
        Message("user", "add"),
        Message("assistant", "", [ToolCall("c1", "add", '{"a":1}'), ToolCall("c2", "add", "{broken")]),
        Message("tool", "3", answers="c1"),
    ]
    asked = ModelRequest(
        messages=messages,
        tools=[ToolSpec("add", "Adds.", {"type": "object"})],
        output={"type": "object"},
        temperature=0.5,
        max_tokens=7,
        seed=11,
    )
    async with serving(says("x")) as server:
        await ask(server, asked=asked, extra={"top_k": 3})
    body = server.seen[0].body
    assert body["messages"][2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert body["messages"][2]["tool_calls"][1]["function"]["arguments"] == "{}"
    assert body["messages"][3] == {"role": "tool", "content": "3", "tool_call_id": "c1"}
    assert body["tools"][0]["function"] == {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert [body[name] for name in ("temperature", "max_tokens", "seed", "top_k")] == [0.5, 7, 11, 3]


async def test_tool_calls_come_in_pieces() -> None:
    def call(index: int, **fields: Any) -> bytes:
        return chunk(delta={"content": None, "tool_calls": [{"index": index, **fields}]})

    body = [
        call(0, id="a", function={"name": "one", "arguments": '{"x"'}),
        call(1, id="b", function={"name": "two", "arguments": ""}),
        call(0, function={"arguments": ": 1}"}),
        chunk(finish="tool_calls"),
        DONE,
    ]
    async with serving(Reply(body)) as server:
        answer, emitted = await ask(server)
    assert answer.calls == [ToolCall("a", "one", '{"x": 1}'), ToolCall("b", "two", "{}")]
    assert (answer.finish, emitted) == ("tool_calls", [])


async def test_events_may_be_cut_anywhere_and_hold_comments() -> None:
    whole = b": hello\r\n\r\n" + b"".join(says("ä", "b").body).replace(b"\n", b"\r\n")
    async with serving(Reply([whole[n : n + 1] for n in range(len(whole))])) as server:
        answer, emitted = await ask(server)
    assert (answer.text, emitted) == ("äb", ["ä", "b"])


async def test_a_server_that_does_not_stream() -> None:
    body = b'{"model": "s",\n"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}'
    async with serving(Reply([body], headers={"content-type": "application/json"})) as server:
        answer, emitted = await ask(server)
    assert (answer.text, emitted, answer.model) == ("all", ["all"], "s")


async def test_a_server_that_does_not_say_what_was_used() -> None:
    async with serving(Reply([chunk("four"), chunk(finish="stop"), DONE])) as server:
        answer, _ = await ask(server)
    assert answer.usage.estimated
    assert answer.usage.output_tokens == 4
    assert answer.usage.input_tokens > len("say")
    assert answer.cost is None


async def test_what_the_model_will_not_say_is_told_apart() -> None:
    async with serving(Reply([chunk(delta={"refusal": "I will not"}), chunk(finish="stop"), DONE])) as server:
        answer, _ = await ask(server)
    assert (answer.finish, answer.text) == ("content_filter", "I will not")


# What goes wrong


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, None, ModelRefusedError),
        (401, None, ModelRefusedError),
        (403, None, ModelRefusedError),
        (404, None, ModelRefusedError),
        (422, None, ModelRefusedError),
        (307, None, ModelRefusedError),
        (408, None, ModelTimeoutError),
        (409, None, ModelBusyError),
        (429, None, ModelBusyError),
        (429, "insufficient_quota", ModelRefusedError),
        (500, None, ModelBusyError),
        (503, None, ModelBusyError),
        (504, None, ModelTimeoutError),
    ],
)
async def test_each_status_has_its_error(status: int, code: str | None, expected: type[ModelError]) -> None:
    async with serving(fails(status, "because", code, location="http://127.0.0.1:9/")) as server:
        with pytest.raises(ModelError, match=str(status)) as raised:
            await ask(server)
    assert type(raised.value) is expected
    assert "because" in str(raised.value)
    assert len(server.seen) == 1  # the SDK tries nothing again


async def test_a_busy_server_says_when_to_come_again() -> None:
    later, before = email.utils.formatdate(time.time() + 500, usegmt=True), time.time()
    waits = []
    for said in ("7", later, "999999", "soon", "nan", "-3"):
        async with serving(fails(429, retry_after=said)) as server:
            with pytest.raises(ModelBusyError) as raised:
                await ask(server)
        waits.append(raised.value.retry_after)
    assert waits[0] == 7
    assert 499 - (time.time() - before) <= waits[1] <= 500
    assert waits[2:] == [LONGEST_WAIT, 0, 0, 0]
    again = pickle.loads(pickle.dumps(ModelBusyError("full", 7)))
    assert (str(again), again.retry_after) == ("full", 7)


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else listens there either
        model = OpenAICompatible("m", base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with pytest.raises(ModelBusyError, match="cannot be reached"):
            await model.complete(request(), print)


@pytest.mark.parametrize("body", [[], [chunk("a")]], ids=["at once", "in the middle"])
async def test_a_server_that_takes_too_long(body: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over when the server has what it was asked, however long a client takes to begin."""
    limits, emitted, genuine, loop = list[asyncio.Timeout](), list[str](), asyncio.timeout, asyncio.get_running_loop()

    def timeout(seconds: float) -> asyncio.Timeout:
        assert seconds == 900
        limits.append(genuine(seconds))
        return limits[-1]

    async with serving(Reply(body, never=True)) as server:
        model = OpenAICompatible("m", base_url=server.url, timeout=900)
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "timeout", timeout)
            asking = asyncio.ensure_future(model.complete(request(), emitted.append))
            await until(lambda: server.seen and len(emitted) == len(body))
        limits[0].reschedule(loop.time())
        with pytest.raises(ModelTimeoutError, match="within 900 seconds"):
            await asking
        await server.seen[0].gone.wait()


@pytest.mark.parametrize("reply", [Reply([chunk("a")], cut=True), Reply([chunk("a")]), Reply([])])
async def test_an_answer_that_breaks_off(reply: Reply) -> None:
    async with serving(reply) as server:
        with pytest.raises(ModelBusyError, match="broke off"):
            await ask(server)


async def test_an_error_in_the_middle_of_an_answer() -> None:
    async with serving(Reply([chunk("a"), b'data: {"error": {"message": "overloaded"}}\n\n'])) as server:
        with pytest.raises(ModelBusyError, match="overloaded"):
            await ask(server)


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[1]",
        b'{"choices": 3}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [], "usage": {"prompt_tokens": -1}}',
        b'{"choices": [], "usage": {"prompt_tokens": 1e30}}',
        b'"\xff"',
        b"[DONE]",
    ],
)
async def test_nonsense(data: bytes) -> None:
    async with serving(Reply([b"data: " + data + b"\n\n", DONE])) as server:
        with pytest.raises(ModelNonsenseError):
            await ask(server)


@pytest.mark.parametrize(
    "body",
    [
        [chunk("x" * 100)] * 50,
        [chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": "y" * 100}}]})] * 50,
        [b"data: " + b"z" * 200_000],
        [chunk(delta={"tool_calls": [{"index": n, "id": str(n)} for n in range(200)]})],
    ],
    ids=["text", "arguments", "one line", "calls"],
)
async def test_too_much_is_cut_while_it_comes(body: list[bytes]) -> None:
    async with serving(Reply(body, never=True)) as server:
        with pytest.raises(ModelTooMuchError):
            await ask(server, limit=1_000)
        await server.seen[0].gone.wait()


async def test_too_much_that_is_not_streamed() -> None:
    reply = Reply([b"{" * 100_000] * 3, headers={"content-type": "application/json"}, never=True)
    async with serving(reply) as server:
        with pytest.raises(ModelTooMuchError):
            await ask(server, limit=1_000)


async def test_the_sdk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    model = OpenAICompatible("m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigurationError, match=r"agent-party-runtime\[models\]"):
        await model.complete(request(), print)
    with pytest.raises(ConfigurationError, match=r"agent-party-runtime\[models\]"):
        model.price(Usage(1, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://h/v1"},
        {"base_url": "h/v1"},
        {"base_url": "http://user:pass@h/v1"},
        {"timeout": 0},
        {"limit": 0},
        {"api_key": "two words"},
        {"api_key": "käy"},
    ],
)
def test_what_cannot_be_set(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        OpenAICompatible("m", **options)
    assert not any(str(secret) in str(raised.value) for secret in ("pass@", "two words", "käy"))


# The key


async def test_the_key_is_sent_and_nowhere_else_to_be_seen() -> None:
    async with serving(fails(401, f"no such key: {SECRET}")) as server:
        model = OpenAICompatible("m", base_url=server.url, api_key=f"{SECRET}\n")
        with pytest.raises(ModelRefusedError) as raised:
            await model.complete(request(), print)
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "[the key]" in str(raised.value)
    assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r} {model!r} {model}"
    with pytest.raises(ConfigurationError, match="api_key_from") as refused:
        pickle.dumps(model)
    assert SECRET not in str(refused.value)


async def test_a_key_in_the_middle_of_an_answer_is_not_repeated() -> None:
    async with serving(Reply([f'data: {{"error": "{SECRET}"}}\n\n'.encode()])) as server:
        with pytest.raises(ModelBusyError) as raised:
            await ask(server, api_key=SECRET)
    assert SECRET not in str(raised.value)


async def test_a_key_from_the_environment_travels_as_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says("x")) as server:
        model = OpenAICompatible("m", base_url=server.url, api_key_from="MY_KEY")
        with pytest.raises(ModelRefusedError, match="set MY_KEY"):
            await model.complete(request(), print)
        monkeypatch.setenv("MY_KEY", SECRET)
        await model.complete(request(), print)
        packed = pickle.dumps(model)
        await pickle.loads(packed).complete(request(), print)
    assert SECRET.encode() not in packed
    assert [seen.headers["authorization"] for seen in server.seen] == [f"Bearer {SECRET}"] * 2


async def test_what_is_meant_for_openai_is_sent_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, SECRET)
    async with serving(says("x")) as server:
        await ask(server)
    assert SECRET not in str(server.seen)


def test_openai_itself_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "api.openai.com" in repr(OpenAICompatible("gpt-4o-mini"))
    body = OpenAICompatible("gpt-4o-mini").body(request())
    assert body["max_completion_tokens"] == 4_096
    assert "max_tokens" not in body
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert "127.0.0.1:9" in repr(OpenAICompatible("m"))


# Prices


def test_prices_come_from_the_library_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    known, unknown = OpenAICompatible("gpt-4o-mini"), OpenAICompatible("no-such-model")
    cost = known.price(Usage(1_000_000, 0))
    assert cost is not None
    assert cost.currency == "USD"
    assert Decimal("0.01") < cost.amount < Decimal(10)
    assert known.price(Usage(1_000, 0, cached_tokens=2_000)) is not None
    assert unknown.price(Usage(1, 1)) is None
    assert OpenAICompatible("gpt-4o-mini", base_url="http://127.0.0.1:9/v1").price(Usage(1, 1)) is None
    assert OpenAICompatible("no-such-model", prices=Prices.of(1, 2)).price(Usage(1_000_000, 500_000)) == Cost(
        Decimal(2)
    )


async def test_usage_over_many_pieces_is_the_last_said() -> None:
    async with serving(
        Reply([chunk("a", usage={"prompt_tokens": 5}), used(5, 1), chunk(finish="stop"), DONE])
    ) as server:
        answer, _ = await ask(server)
    assert answer.usage == Usage(5, 1)
