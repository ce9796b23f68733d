"""Any server that speaks the chat completions of the OpenAI API, by the official SDK."""

import asyncio
import email.utils
import functools
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigurationError
from ..model import (
    LIMIT,
    Cost,
    Emit,
    Message,
    ModelAnswer,
    ModelBusyError,
    ModelError,
    ModelRefusedError,
    ModelRequest,
    ModelTimeoutError,
    Prices,
    Usage,
    bound,
)
from .prices import NEEDS, known_cost
from .stream import Assembly, Events

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
TIMEOUT = 120.0
LONGEST_WAIT = 600.0
"""How many seconds a server's retry-after may ask for; more is taken for this."""
_SHOWN = 500
_BUSY = frozenset({409, 425, 429})
_FOR_GOOD = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class OpenAICompatible:
    """The model ``name`` of the server at ``base_url``: OpenAI's own, unless ``OPENAI_BASE_URL`` or the argument says
    another.

    The key is ``api_key``, or what the environment variable ``api_key_from`` holds at each call; that is
    ``OPENAI_API_KEY`` for OpenAI's own server and for no other. A key is never in the repr, in an error, in a request
    as it is recorded, or in a pickle: a model that was given its key as text refuses to be pickled.

    ``timeout``: seconds for a whole call. ``limit``: bytes of an answer. ``prices``: what it costs, where
    `genai-prices` does not know or knows another price. ``extra``: further fields for the body of each request, over
    ours. Each call has a connection of its own; nothing is tried twice and no redirect is followed.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str = "",
        api_key: str = "",
        api_key_from: str = "",
        timeout: float = TIMEOUT,
        limit: int = LIMIT,
        prices: Prices | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._url = base_url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigurationError(f"model {name}: base_url must be http(s)://host/path, without a password in it")
        if not name or not timeout > 0 or limit < 1:
            raise ConfigurationError("a model needs a name, and a timeout and a limit of more than 0")
        self._own = parts.scheme == "https" and parts.hostname == "api.openai.com"
        self._name, self._timeout, self._limit, self._prices = name, timeout, limit, prices
        self._extra = dict(extra or {})
        self._key = _sound(api_key, f"the api_key of model {name}") if api_key else ""
        self._key_from = api_key_from or (KEY if self._own else "")

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._name!r}, base_url={self._url!r})"

    def __getstate__(self) -> dict[str, Any]:
        if self._key:
            raise ConfigurationError(
                f"model {self._name} was given its key as text, which does not travel to other processes: put it into "
                "their environment, and give the variable's name by api_key_from="
            )
        return self.__dict__

    @property
    def name(self) -> str:
        """What the server calls it."""
        return self._name

    @property
    def url(self) -> str:
        """Where its server is."""
        return self._url

    def price(self, usage: Usage) -> Cost | None:
        """By the prices given, else by the library's, else unknown."""
        return self._prices.cost(usage) if self._prices else known_cost(usage, self._name, self._url)

    async def complete(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """Ask the server once. See the tree in `model` for the errors."""
        key = self._current_key()
        openai = await asyncio.to_thread(_sdk, self._name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._ask(openai, key, request, emit)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise ModelTimeoutError(f"{self._name} did not answer within {self._timeout:g} seconds") from error
        except openai.OpenAIError as error:
            raise self._translated(openai, error, key) from None  # the SDK's error holds the request, and so the key
        except ModelError as error:
            raise type(error)(_without(key, str(error)), error.retry_after) from None
        cost = answer.cost or self._cost(answer)
        return msgspec.structs.replace(answer, cost=cost, latency=loop.time() - began)

    def _cost(self, answer: ModelAnswer) -> Cost | None:
        if self._prices:
            return self._prices.cost(answer.usage)
        return known_cost(answer.usage, answer.model, self._url) or known_cost(answer.usage, self._name, self._url)

    async def _ask(self, openai: Any, key: str, request: ModelRequest, emit: Emit) -> ModelAnswer:
        http = openai.DefaultAsyncHttpxClient(verify=await asyncio.to_thread(_authorities), follow_redirects=False)
        client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=self._url, timeout=self._timeout, max_retries=0, http_client=http
        )
        if not self._own:
            client.organization = client.project = None  # the SDK takes them from the environment, for any server
        assembly = Assembly(self._name, self._limit, emit)
        async with client:
            call = client.chat.completions.with_streaming_response.create(**self.body(request))
            async with call as response:
                streamed = "json" not in response.headers.get("content-type", "")
                async for data in _events(_received(response, self._name), Events(self._name, self._limit), streamed):
                    if not assembly.add(data):
                        break
        return assembly.answer(bound(request))

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The request in the API's words, as the SDK takes it."""
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [_message(message) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens" if self._own else "max_tokens": request.max_tokens,
            "extra_body": self._extra,
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in request.tools
            ]
        if request.output is not None:
            named = {"name": "output", "schema": request.output}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.seed is not None:
            body["seed"] = request.seed
        return body

    def _current_key(self) -> str:
        if self._key or not self._key_from:
            return self._key
        key = os.environ.get(self._key_from, "")
        if not key:
            raise ModelRefusedError(f"model {self._name} has no key: set {self._key_from} in the environment")
        return _sound(key, f"the key in {self._key_from}")

    def _translated(self, openai: Any, error: Exception, key: str) -> ModelError:
        """The SDK's error as one of ours, without the key that a server may repeat in it."""
        said = _without(key, str(error))[:_SHOWN]
        where = f"{self._name} at {urlsplit(self._url).hostname}"
        if not isinstance(error, openai.APIStatusError):
            return ModelBusyError(f"{where} cannot be reached, or broke off: {said}")
        status, after = error.status_code, _retry_after(error.response.headers)
        text = f"{where} answers {status}: {said}"
        if status in (408, 504):
            return ModelTimeoutError(text, after)
        if (status in _BUSY or status >= 500) and error.code not in _FOR_GOOD:
            return ModelBusyError(text, after)
        return ModelRefusedError(text)


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Whom this machine trusts; loaded once, for that takes as long as many calls."""
    return ssl.create_default_context()


def _sdk(name: str) -> Any:
    """The SDK, whose import takes seconds: to be called in a thread."""
    try:
        import openai
    except ImportError as error:
        raise ConfigurationError(f"model {name} {NEEDS.format(error=error)}") from error
    return openai


async def _received(response: Any, name: str) -> AsyncIterator[bytes]:
    """The bytes of a response. What breaks it off is an error of the SDK's own client, not of the SDK."""
    try:
        async for piece in response.iter_bytes():
            yield piece
    except Exception as error:
        kind = ModelTimeoutError if "Timeout" in type(error).__name__ else ModelBusyError
        raise kind(f"{name} broke off its answer: {type(error).__name__} {error}") from None


async def _events(received: AsyncIterator[bytes], events: Events, streamed: bool) -> AsyncIterator[bytes]:
    """The events of a stream; all of it as one, where the server does not stream."""
    if streamed:
        async for piece in received:
            for data in events.feed(piece):
                yield data
        for data in events.feed(b"\n\n"):
            yield data
        return
    whole = bytearray()
    async for piece in received:
        whole += piece
        events.check(len(whole))
    yield bytes(whole)


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        made["tool_call_id"] = message.answers
    if message.calls:
        made["content"] = message.content or None
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _object(call.arguments)}}
            for call in message.calls
        ]
    return made


def _object(arguments: str) -> str:
    """Arguments to be repeated to a server. Some parse them, so malformed ones would make each later call fail."""
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        return "{}"
    return arguments


def _sound(key: str, what: str) -> str:
    """A key as it can stand in a header; `ConfigurationError`, without it, if it cannot."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"{what} cannot be one: it has spaces, line ends or letters beyond ASCII in it")
    return key


def _without(key: str, text: str) -> str:
    return text.replace(key, "[the key]") if key else text


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or a date (RFC 9110, 10.2.3); 0 where the server does not say."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_WAIT) if seconds == seconds else 0.0
