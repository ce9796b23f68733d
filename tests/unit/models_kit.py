"""A server that speaks the OpenAI API as it is told to, on the loopback, for tests of its client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from agent_party.actors.models import Message, ModelAnswer, ModelRequest, OpenAICompatible

DONE = b"data: [DONE]\n\n"


class Reply(msgspec.Struct):
    """What the server sends to one request. ``never``: it then waits until the client goes. ``cut``: it goes itself
    before the body's end."""

    body: Sequence[bytes]
    status: int = 200
    headers: dict[str, str] = {}
    never: bool = False
    cut: bool = False


class Seen(msgspec.Struct):
    """One request that came. ``gone`` is set when its client has closed the connection."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    gone: asyncio.Event


def chunk(text: str = "", finish: str | None = None, **fields: Any) -> bytes:
    """A piece of a streamed answer."""
    delta = {"content": text, **fields.pop("delta", {})}
    event = {"model": "served-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def used(input_tokens: int, output_tokens: int, cached: int = 0) -> bytes:
    """The last piece, which says what was used."""
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


def says(*texts: str) -> Reply:
    """A whole answer of these pieces."""
    return Reply([*(chunk(text) for text in texts), chunk(finish="stop"), used(1_000, 100, 600), DONE])


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as the API words it."""
    error = {"error": {"message": message, "type": "t", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(error).encode()], status, {"content-type": "application/json", **named})


class Server:
    """Gives its replies in order; the last one again and again."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.seen: list[Seen] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.Event()
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            self.seen.append(Seen(head[0].split()[1], headers, body, gone))
            reply = self._replies[min(len(self.seen), len(self._replies)) - 1]
            await self._send(writer, reply)
            if reply.never:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            gone.set()
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "connection": "close"}
        lines = [f"{name}: {value}" for name, value in {**headers, **reply.headers}.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {reply.status} Said", *lines, "\r\n"]).encode())
        for piece in reply.body:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if not (reply.never or reply.cut):
            writer.write(b"0\r\n\r\n")
            await writer.drain()


@contextlib.asynccontextmanager
async def serving(*replies: Reply) -> AsyncIterator[Server]:
    """A server for the time of a test."""
    told = Server(*replies)
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield told
    finally:
        server.close()
        await server.wait_closed()


def request(text: str = "say", **options: Any) -> ModelRequest:
    return ModelRequest(messages=[Message("user", text)], **options)


async def ask(server: Server, *, asked: ModelRequest | None = None, **options: Any) -> tuple[ModelAnswer, list[str]]:
    """The answer of a client of this server, and the pieces that it emitted."""
    emitted: list[str] = []
    answer = await OpenAICompatible("m", base_url=server.url, **options).complete(asked or request(), emitted.append)
    return answer, emitted
