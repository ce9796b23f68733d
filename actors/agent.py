"""Agents as their authors write them: a name, and handlers that declare capabilities by their signatures."""

import copy
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

import msgspec

from .decider import stream_of
from .errors import ConfigurationError, InputError, UnknownCapabilityError
from .model import Model

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[..., Awaitable[Any]]


class Capabilities(StrEnum):
    """Capabilities that many systems name; any other text is as good."""

    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    ROUTING = "routing"
    SCHEDULING = "scheduling"
    COLLABORATION = "collaboration"
    CONVERSATION = "conversation"
    RETRIEVAL = "retrieval"
    WRITING = "writing"
    REVIEW = "review"


_FIRST = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _field(parameter: inspect.Parameter, kind: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    default = parameter.default
    if default is parameter.empty:
        return parameter.name, kind
    if isinstance(default, list | dict | set | bytearray):
        return parameter.name, kind, msgspec.field(default_factory=lambda: copy.deepcopy(default))
    return parameter.name, kind, default


class Capability:
    """One handler: its name, and the types of its input and output, from the handler's signature."""

    def __init__(self, name: str, handler: Handler, concurrency: int = 0) -> None:
        self.name, self.handler, self.concurrency = name, handler, concurrency
        if not name:
            raise ConfigurationError("a capability needs a name")
        if not inspect.iscoroutinefunction(handler):
            called = getattr(handler, "__name__", "handler")
            raise ConfigurationError(f"the handler of {name} must be an async function: async def {called}(...)")
        try:
            hints = typing.get_type_hints(handler, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"a type in the signature of {name} cannot be found: {error}") from error
        parameters = list(inspect.signature(handler).parameters.values())
        named = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters[1:])
        if not named or not parameters or parameters[0].kind not in _FIRST:
            raise ConfigurationError(
                f"the handler of {name} takes the task first, then named inputs, no *args or **kwargs"
            )
        self.output: Any = hints.get("return", Any)
        fields = [_field(p, hints.get(p.name, Any)) for p in parameters[1:]]
        try:
            self._input = msgspec.defstruct("Input", fields, kw_only=True, forbid_unknown_fields=True)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the signature of {name} cannot be an input: {error}") from error

    def __reduce__(self) -> tuple[object, ...]:
        """Travels to other processes as name and handler: the input's type is made anew there."""
        return Capability, (self.name, self.handler, self.concurrency)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The handler's keyword arguments, converted; `InputError` says what does not fit."""
        try:
            built = msgspec.convert(dict(given), self._input, builtin_types=(bytes,), from_attributes=True)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(f"the input does not fit {self.name}: {error}") from error
        return {name: getattr(built, name) for name in self._input.__struct_fields__}

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the input."""
        try:
            return msgspec.json.schema(self._input)
        except TypeError:
            return {"type": "object"}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `Agent.initialize` takes. ``security_level`` enterprise refuses what would weaken the record.

    The log is the system, so ``audit_log_enabled=False`` changes nothing at the standard level: all is recorded.
    Payloads are always encrypted: ``encrypt_payloads=False`` is refused at every level.
    """

    security_level: Literal["standard", "enterprise"] = "standard"
    audit_log_enabled: bool = True
    encrypt_payloads: bool = True
    concurrency: int = 16


_ROLE = re.compile(r"role:[a-z0-9][a-z0-9-]{0,63}")
_OPTIONS = ", ".join(Settings.__struct_fields__)


def _at_least_one(agent: str, number: int, what: str = "concurrency") -> int:
    if number < 1:
        raise ConfigurationError(f"agent {agent}: {what} must be 1 or more, not {number}")
    return number


class Agent:
    """An agent: a name that is its identity, a version, and what it can do.

    ``concurrency``: how many of its tasks run at once in one process; a task in a durable wait does not count.
    ``queue``: how many may be live there and wait for their turn; then new requests are refused with
    `MailboxFullError`, but for what tasks delegate: that belongs to work that was let in.
    ``dedicated``: on Ray, the agent has an actor of its own. ``connection``: a journal URL or an open party, for
    programs that say where they belong in the agent itself. ``models``: those that `Task.model` knows by name.
    ``approval``: whether somebody approves each task before
    it begins: "automatic" (nobody), "person" (anybody), or "role:NAME" (one who has that role; "role" alone: the role
    of the agent's name).
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "1",
        description: str = "",
        capabilities: Sequence[str] = (),
        concurrency: int = 16,
        approval: str = "automatic",
        dedicated: bool = True,
        connection: Any = None,
        models: Mapping[str, Model] | None = None,
        queue: int = 1_000,
    ) -> None:
        self.stream = stream_of("agent", name)
        if "~" in name:
            raise ConfigurationError(f"{name!r} cannot name an agent: what follows a ~ is the fork that a memory is of")
        self.queue = _at_least_one(name, queue, "queue")
        _at_least_one(name, concurrency)
        approval = f"role:{name}" if approval == "role" else approval
        if approval not in ("automatic", "person") and not _ROLE.fullmatch(approval):
            raise ConfigurationError(f"agent {name}: approval is automatic, person or role:NAME, not {approval!r}")
        self.name, self.version, self.description = name, version, description
        self.concurrency, self.approval, self.dedicated, self.connection = concurrency, approval, dedicated, connection
        self.models = dict(models or {})
        self.declared = tuple(str(capability) for capability in capabilities)
        self.capabilities: dict[str, Capability] = {}
        self.settings = Settings()

    def on(
        self, capability: str, *, concurrency: int | None = None
    ) -> Callable[[Callable[Concatenate[Any, P], Awaitable[T]]], Callable[Concatenate[Any, P], Awaitable[T]]]:
        """Declare a capability: the decorated async function handles its tasks. ``concurrency``: how many of these run
        at once in one process, beside the agent's own limit."""
        limit = 0 if concurrency is None else _at_least_one(self.name, concurrency, f"the concurrency of {capability}")

        def declare(
            handler: Callable[Concatenate[Any, P], Awaitable[T]],
        ) -> Callable[Concatenate[Any, P], Awaitable[T]]:
            if capability in self.capabilities:
                raise ConfigurationError(f"agent {self.name} declares {capability} twice")
            self.capabilities[str(capability)] = Capability(str(capability), handler, limit)
            return handler

        return declare

    def initialize(self, config: Mapping[str, Any] | None = None) -> "Agent":
        """Set the agent up from a plain mapping; an unknown option is refused by name. Returns the agent."""
        try:
            given = dict(config or {})
            self.settings = msgspec.convert(given, Settings)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise ConfigurationError(f"agent {self.name}: {error}; known options are {_OPTIONS}") from error
        if not self.settings.encrypt_payloads:
            raise ConfigurationError(f"agent {self.name}: plaintext payloads are refused, the log is always encrypted")
        if self.settings.security_level == "enterprise":
            self._enterprise()
        if "concurrency" in given:
            self.concurrency = _at_least_one(self.name, self.settings.concurrency)
        return self

    def _enterprise(self) -> None:
        if not self.settings.audit_log_enabled:
            raise ConfigurationError(f"agent {self.name}: enterprise security needs audit_log_enabled to stay true")
        chosen = getattr(self.connection, "settings", None)  # of an open party
        urls = [self.connection] if isinstance(self.connection, str) else []
        urls += [getattr(chosen, name, "") for name in ("journal", "views", "blobs")]
        urls += [getattr(model, "url", "") for model in self.models.values()]
        for url in urls:
            refuse_plain_transport(url)

    def names(self) -> list[str]:
        """All capabilities, those with a handler and those only declared."""
        return sorted({*self.declared, *self.capabilities})


def refuse_plain_transport(url: str) -> None:
    """`ConfigurationError` for a URL that crosses the network without TLS."""
    parts = urlsplit(url)
    local = parts.hostname in (None, "localhost", "127.0.0.1", "::1") or parts.scheme in ("sqlite", "file", "ladybug")
    if not local and parts.scheme not in ("rediss", "https", "neo4j+s", "bolt+s", "kafka+ssl", "kafka+sasl_ssl"):
        raise ConfigurationError(f"enterprise security refuses {parts.scheme}://{parts.hostname}: it needs TLS")


def capability_of(target: str | Handler, agents: Sequence[Agent]) -> str:
    """The capability's name, given as text or as its handler."""
    if isinstance(target, str):
        return str(target)
    for agent in agents:
        for name, capability in agent.capabilities.items():
            if capability.handler is target:
                return name
    raise UnknownCapabilityError(
        f"{getattr(target, '__qualname__', target)} is no handler of this party's agents: ask by the capability's name"
    )
