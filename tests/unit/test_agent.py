"""Agents as their authors write them, and the seed's form of the API."""

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agent_party import Agent, Capabilities, Party, Task, step
from agent_party.actors.agent import Capability, capability_of, refuse_plain_transport
from agent_party.actors.errors import ConfigurationError, InputError, UnknownCapabilityError
from agent_party.actors.steps import step_options


class Order(msgspec.Struct, frozen=True):
    """An input of its own type."""

    id: int
    tags: list[str] = []


async def handle(task: Task, order: Order, note: str = "none", times: int = 1) -> str:
    """A handler."""
    return f"{order.id} {note} {times}"


async def other(task: Task) -> None:
    """Another."""


def test_a_capability_is_typed_by_its_signature() -> None:
    capability = Capability("order.handle", handle)
    assert capability.arguments({"order": {"id": 3}, "times": 2}) == {"order": Order(3), "note": "none", "times": 2}
    assert capability.output is str
    schema = capability.schema()
    assert "order" in str(schema)
    assert "times" in str(schema)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "order"),
        ({"order": {"id": "three"}}, "id"),
        ({"order": {"id": 1}, "colour": "red"}, "colour"),
        ({"order": {"id": 1}, "times": None}, "times"),
        ({"order": 7}, "order"),
    ],
)
def test_input_that_does_not_fit_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Capability("order.handle", handle).arguments(given)


def test_a_capability_travels_to_another_process() -> None:
    again: Capability = pickle.loads(pickle.dumps(Capability("order.handle", handle)))
    assert again.arguments({"order": {"id": 3}})["order"] == Order(3)


def not_async(task: Task) -> None:
    """No coroutine."""


async def no_task() -> None:
    """Takes nothing."""


async def spread(task: Task, *values: int) -> None:
    """Takes anything."""


@pytest.mark.parametrize("handler", [not_async, no_task, spread])
def test_a_handler_that_cannot_be_one_is_refused(handler: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="the handler of x"):
        Capability("x", handler)


def test_declaring_twice_and_names_that_cannot_be_are_refused() -> None:
    agent = Agent("one")
    agent.on("a")(other)
    with pytest.raises(ConfigurationError, match="twice"):
        agent.on("a")(other)
    for name in ("", "no spaces", "ümlaut", "a/" * 40):
        with pytest.raises(InputError):
            Agent(name)
    with pytest.raises(ConfigurationError, match="concurrency"):
        Agent("one", concurrency=0)


def test_a_capability_is_found_by_name_or_by_its_handler() -> None:
    agent = Agent("one")
    agent.on("a.b")(other)
    assert capability_of(other, [agent]) == capability_of("a.b", []) == "a.b"
    with pytest.raises(UnknownCapabilityError, match="handle"):
        capability_of(handle, [agent])


def test_step_options_stand_on_the_function_and_leave_it_as_it_is() -> None:
    @step(retries=2, timeout=1.5)
    def twice(number: int) -> int:
        return number * 2

    assert twice(4) == 8
    assert (step_options(twice).retries, step_options(twice).timeout) == (2, 1.5)
    assert step_options(abs).retries == 0
    for wrong in ({"retries": -1}, {"timeout": 0}):
        with pytest.raises(ConfigurationError):
            step(**wrong)  # type: ignore[arg-type]


class TestTheSeedsForm:
    def test_names_capabilities_and_connection(self) -> None:
        agent = Agent(
            name="gate",
            capabilities=[Capabilities.AUTHENTICATION, Capabilities.ROUTING, "badges"],
            connection="sqlite:///somewhere/log.db",
        )
        assert agent.initialize(config={"security_level": "standard", "concurrency": 4}) is agent
        assert agent.names() == ["authentication", "badges", "routing"]
        assert agent.concurrency == 4
        assert Party.open(agents=[agent]).settings.journal.endswith("/somewhere/log.db")

    def test_an_unknown_option_is_refused_by_name(self) -> None:
        with pytest.raises(ConfigurationError, match="colour"):
            Agent("gate").initialize(config={"colour": "red"})
        with pytest.raises(ConfigurationError, match="security_level"):
            Agent("gate").initialize(config={"security_level": "military"})

    def test_enterprise_refuses_what_weakens_the_record(self) -> None:
        config = {"security_level": "enterprise"}
        assert Agent("gate").initialize(config=config).settings.security_level == "enterprise"
        with pytest.raises(ConfigurationError, match="audit_log_enabled"):
            Agent("gate").initialize(config={**config, "audit_log_enabled": False})
        with pytest.raises(ConfigurationError, match="plaintext"):
            Agent("gate").initialize(config={**config, "encrypt_payloads": False})
        with pytest.raises(ConfigurationError, match="TLS"):
            Agent("gate", connection="kafka://far.example:9092/agent.events").initialize(config=config)

    @pytest.mark.parametrize("url", ["sqlite:///.party/log.db", "redis://localhost:6379", "rediss://far.example", ""])
    def test_what_stays_here_or_is_encrypted_is_fine(self, url: str) -> None:
        refuse_plain_transport(url)
