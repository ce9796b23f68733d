"""How agents are declared, and what is refused; the form with capabilities, a connection and a configuration."""

from typing import Annotated, Any

import msgspec
import pytest

from agent_party import Agent, Capabilities, Party, Task, step
from agent_party.actors.agent import Capability, capability_of, refuse_plain_transport
from agent_party.actors.errors import ConfigurationError, InputError, UnknownCapabilityError
from agent_party.actors.steps import step_options


def test_a_handler_declares_a_capability_by_its_signature() -> None:
    agent = Agent("writer", version="2", description="writes")

    @agent.on("text.write")
    async def write(task: Task, topic: str, *, words: int = 100, tags: list[str] = ["a"]) -> str:  # noqa: B006
        return topic

    capability = agent.capabilities["text.write"]
    assert capability.output is str
    assert capability.arguments({"topic": "x"}) == {"topic": "x", "words": 100, "tags": ["a"]}
    assert capability.arguments({"topic": "x", "words": 7, "tags": []})["words"] == 7
    first, second = capability.arguments({"topic": "x"})["tags"], capability.arguments({"topic": "x"})["tags"]
    assert first is not second
    schema = capability.schema()
    assert capability_of(write, [agent]) == capability_of("text.write", []) == "text.write"
    assert "topic" in str(schema)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"topic": 3}, "Expected `str`"),
        ({}, "missing required field `topic`"),
        ({"topic": "x", "other": 1}, "unknown field `other`"),
        ({"topic": "x", "words": 0}, ">= 1"),
    ],
)
def test_an_input_that_does_not_fit(given: dict[str, Any], said: str) -> None:
    async def write(task: Task, topic: str, words: Annotated[int, msgspec.Meta(ge=1)] = 1) -> None: ...

    with pytest.raises(InputError, match=said):
        Capability("text.write", write).arguments(given)


def not_async(task: Task) -> None: ...


async def no_task() -> None: ...


async def keyword_task(*, task: Task) -> None: ...


async def any_args(task: Task, *args: int) -> None: ...


async def any_kwargs(task: Task, **kwargs: int) -> None: ...


async def positional(task: Task, x: int, /) -> None: ...


async def unknown_type(task: Task, x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "handler", [not_async, no_task, keyword_task, any_args, any_kwargs, positional, unknown_type, 7]
)
def test_a_handler_that_cannot_be_one(handler: Any) -> None:
    with pytest.raises(ConfigurationError):
        Agent("writer").on("text.write")(handler)


def test_a_capability_needs_a_name_and_is_declared_once() -> None:
    async def handler(task: Task) -> None: ...

    agent = Agent("writer")
    with pytest.raises(ConfigurationError, match="needs a name"):
        agent.on("")(handler)
    agent.on("x")(handler)
    with pytest.raises(ConfigurationError, match="declares x twice"):
        agent.on("x")(handler)


def test_a_function_that_is_no_handler() -> None:
    with pytest.raises(UnknownCapabilityError, match="no_task"):
        capability_of(no_task, [Agent("writer")])


@pytest.mark.parametrize("name", ["", "two words", "ä", "a" * 300])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(InputError):
        Agent(name)


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": 0}, {"timeout": -1}])
def test_step_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        step(**options)


def test_a_step_stays_a_function() -> None:
    @step(retries=2, timeout=3)
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert (step_options(double).retries, step_options(double).timeout) == (2, 3)
    assert step_options(len).retries == 0


# The form with a configuration


def gate(connection: Any = None) -> Agent:
    return Agent(name="gate", capabilities=[Capabilities.AUTHENTICATION, "own.thing"], connection=connection)


def test_capabilities_may_be_named_without_a_handler() -> None:
    agent = gate()
    assert agent.names() == ["authentication", "own.thing"]
    agent.on(Capabilities.AUTHENTICATION)(no_input)
    assert agent.names() == ["authentication", "own.thing"]
    assert type(next(iter(agent.capabilities))) is str


async def no_input(task: Task) -> None: ...


def test_initialize() -> None:
    agent = gate().initialize(config={"security_level": "enterprise", "concurrency": 3})
    assert agent.settings.security_level == "enterprise"
    assert agent.concurrency == 3
    assert Agent("gate", concurrency=4).initialize(config={}).concurrency == 4
    assert Agent("gate", concurrency=4).initialize().concurrency == 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"secruity_level": "enterprise"}, "unknown field `secruity_level`; known options are security_level"),
        ({"security_level": "high"}, "Invalid enum value 'high'"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"concurrency": "many"}, "Expected `int`"),
        (7, "known options are"),
        ({"security_level": "enterprise", "audit_log_enabled": False}, "audit_log_enabled"),
        ({"security_level": "enterprise", "encrypt_payloads": False}, "plaintext payloads"),
    ],
)
def test_a_configuration_that_is_refused(config: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        gate().initialize(config=config)


@pytest.mark.parametrize(
    "url", ["kafka://example.org:9092/agent.events", "redis://10.0.0.1:6379", "http://example.org"]
)
def test_enterprise_refuses_what_crosses_the_network_in_the_clear(url: str) -> None:
    with pytest.raises(ConfigurationError, match="needs TLS"):
        gate(url).initialize(config={"security_level": "enterprise"})
    gate(url).initialize(config={"security_level": "standard"})


@pytest.mark.parametrize(
    "url", ["kafka+ssl://example.org:9092/x", "rediss://example.org", "redis://localhost:6379", "sqlite:///a/b.db", ""]
)
def test_enterprise_accepts_tls_and_what_stays_here(url: str) -> None:
    refuse_plain_transport(url)
    gate(url or None).initialize(config={"security_level": "enterprise"})


def test_a_connection_may_be_a_party(tmp_path: Any) -> None:
    party = Party.open(journal=f"sqlite:///{tmp_path}/log.db", runtime="local")
    assert gate(party).initialize(config={"security_level": "enterprise"}).connection is party
