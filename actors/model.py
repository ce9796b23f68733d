"""A model, as an agent sees it: one small protocol, and all that travels over it or is recorded of it.

The implementations stand beside it in `models/`: `ScriptedModel` (the shortest, read first), `RecordedModel`,
`OpenAICompatible`.

PartyError
└── ModelError                  a call of a model came to nothing
    ├── ModelTimeoutError       no answer in time (retryable)
    ├── ModelBusyError          the server cannot answer now: 429, 5xx, no connection (retryable)
    ├── ModelRefusedError       the server or the model will not answer this: 400, 401, 403, a content filter
    ├── ModelNonsenseError      what it answers cannot be used, also after it was told what is wrong
    ├── ModelTooMuchError       the answer is over its limit of bytes; it was cut while it came
    ├── ModelNoAnswerError      a scripted or recorded model holds no answer to this request
    └── ModelRoundsError        it asked for tools again and again, over the limit of rounds
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Protocol

import msgspec

from .errors import ConfigurationError, PartyError

MAX_TOKENS = 4_096
"""How long an answer may be, in tokens, where the request does not say."""
LIMIT = 1_000_000
"""How long an answer may be, in bytes, where the model does not say."""
MILLION = 1_000_000
Emit = Callable[[str], None]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class ModelError(PartyError):
    """A call of a model came to nothing. ``retry_after``: seconds that the server asks for before the next one."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.retry_after)


class ModelTimeoutError(ModelError):
    """No answer in time. Whether the server worked, and will charge for it, is unknown."""

    retryable = True


class ModelBusyError(ModelError):
    """The server cannot answer now: too many requests, a fault of its own, or no connection."""

    retryable = True


class ModelRefusedError(ModelError):
    """The server or the model will not answer this request, however often it is asked."""


class ModelNonsenseError(ModelError):
    """What the model answers cannot be used: no such tool, malformed arguments, output that does not fit its type."""


class ModelTooMuchError(ModelError):
    """The answer is over the limit of bytes. What came before is not kept."""


class ModelNoAnswerError(ModelError):
    """A scripted or recorded model holds no answer to this request."""


class ModelRoundsError(ModelError):
    """The model asked for tools in every round that the conversation may have."""


RETRYABLE: tuple[type[BaseException], ...] = (ModelTimeoutError, ModelBusyError, TimeoutError)
"""The errors of a model that asking again may mend."""
BY_NAME: Mapping[str, type[ModelError]] = {
    **{error.__name__: error for error in (ModelTimeoutError, ModelBusyError, ModelRefusedError, ModelNonsenseError)},
    **{error.__name__: error for error in (ModelTooMuchError, ModelNoAnswerError, ModelRoundsError)},
    "TimeoutError": ModelTimeoutError,
}
"""By the name under which a failed step is recorded; the step's own time-out is a model's too."""


class ToolCall(msgspec.Struct, frozen=True):
    """The model wants a tool called. ``arguments``: JSON text as the model wrote it, not checked."""

    id: str
    name: str
    arguments: str = "{}"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. ``calls``: those that the assistant wants; ``answers``: the id of the call that a tool answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: list[ToolCall] = []
    answers: str = ""


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as the model is told of it. ``parameters``: JSON schema of an object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class ModelRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a model is asked. It does not say which model, so that another one can be asked the same.

    ``output``: JSON schema that the answer's text shall fit. ``max_tokens``: of the answer.
    """

    messages: list[Message]
    tools: list[ToolSpec] = []
    output: dict[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int = MAX_TOKENS
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a model needs at least one message to answer")
        if self.max_tokens < 1:
            raise ValueError(f"a model cannot answer in {self.max_tokens} tokens: give 1 or more")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"a temperature of {self.temperature} cannot be: give 0 or more")

    def digest(self) -> str:
        """SHA-256 of the request as canonical JSON, in hexadecimal: the same in every process."""
        return hashlib.sha256(_canonical.encode(self)).hexdigest()


_canonical = msgspec.json.Encoder(order="deterministic")


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens. ``cached_tokens`` are among the ``input_tokens``. ``estimated``: an upper bound, for the server said
    nothing."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cached_tokens: Count = 0
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
        )


class Cost(msgspec.Struct, frozen=True):
    """An amount of money, exact."""

    amount: Decimal
    currency: str = "USD"


class Prices(msgspec.Struct, frozen=True):
    """Prices of a million tokens. ``cached_input`` is that of ``input`` where it is not given."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    currency: str = "USD"

    @classmethod
    def of(
        cls,
        input: Decimal | str | float,  # noqa: A002
        output: Decimal | str | float,
        cached_input: Decimal | str | float | None = None,
        currency: str = "USD",
    ) -> "Prices":
        """Prices from plain numbers; `ConfigurationError` for one that is negative or no number."""
        given = [input, output, input if cached_input is None else cached_input]
        try:
            exact = [Decimal(str(price)) for price in given]
        except ArithmeticError as error:
            raise ConfigurationError(f"prices of {given} cannot be: give numbers") from error
        if not all(price.is_finite() and price >= 0 for price in exact):
            raise ConfigurationError(f"prices of {given} cannot be: give 0 or more")
        return cls(exact[0], exact[1], exact[2], currency)

    def cost(self, usage: Usage) -> Cost:
        """What so many tokens cost."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        amount = self.input * (usage.input_tokens - cached) + self.output * usage.output_tokens
        amount += (self.input if self.cached_input is None else self.cached_input) * cached
        return Cost(amount / MILLION, self.currency)


class ModelAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one call. ``finish``: why the model stopped, in the server's word (stop, length, tool_calls,
    content_filter). ``cost`` is None where the price is unknown. ``latency``: seconds from the request to the end of
    the answer. ``model``: its name as the server said it."""

    text: str = ""
    calls: list[ToolCall] = []
    finish: str = "stop"
    usage: Usage = Usage()
    cost: Cost | None = None
    latency: float = 0.0
    model: str = ""


class Model(Protocol):
    """Whatever answers a request.

    A call is tried once: retries are the step's that makes it. It may be cancelled at any moment. Calls may run at
    once. A model travels to other processes by pickle, and neither its pickle nor its repr holds a secret.
    """

    @property
    def name(self) -> str:
        """What it is called, for people and for prices."""
        ...

    def price(self, usage: Usage) -> Cost | None:
        """What so many tokens cost; None if that is unknown. No network, and the same for the same tokens."""
        ...

    async def complete(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """Answer, giving ``emit`` the pieces of text as they come.

        Raises `ModelError`; `ConfigurationError` where it cannot be called as it is set up.
        """
        ...


class Estimate(msgspec.Struct, frozen=True):
    """The most that a call can use. ``cost`` is None where the price is unknown."""

    usage: Usage
    cost: Cost | None


def bound(request: ModelRequest) -> Usage:
    """The most tokens that a call can use: each is at least one byte of the request, and the answer has its limit."""
    return Usage(len(_canonical.encode(request)), request.max_tokens, estimated=True)


def estimate(model: Model, request: ModelRequest) -> Estimate:
    """The most that a call of this model can use."""
    usage = bound(request)
    return Estimate(usage, model.price(usage))


def find_model(models: Mapping[str, Model], name: str, agent: str) -> Model:
    """An agent's model by the name that the agent gave it; `ConfigurationError` says which it has."""
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        raise ConfigurationError(f"agent {agent} has no model {name!r}; its models are: {known}")
    return models[name]
