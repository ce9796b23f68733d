"""The proxy passes bytes on, holds them up, cuts, and refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxies import HOST, Proxy

ENDED = (ConnectionError, asyncio.IncompleteReadError)
OPEN: list[asyncio.StreamWriter] = []


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.transport.abort()

    server = await asyncio.start_server(echo, HOST, 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as before:
        yield before
        for writer in OPEN:
            writer.transport.abort()
        OPEN.clear()


async def asked(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    OPEN.append(writer)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 60) == b"hello"
    return reader, writer


async def test_bytes_pass_until_they_are_held_up(proxy: Proxy) -> None:
    reader, writer = await asked(proxy)
    proxy.hold()
    writer.write(b"again")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(5), 0.1)
    proxy.mend()
    assert await asyncio.wait_for(reader.readexactly(5), 60) == b"again"


async def test_a_cut_ends_every_connection_and_no_new_one(proxy: Proxy) -> None:
    open_ones = [await asked(proxy) for _ in range(3)]
    assert proxy.cut() == 6
    for reader, _ in open_ones:
        with pytest.raises(ENDED):
            await asyncio.wait_for(reader.readexactly(1), 60)
    await asked(proxy)


async def test_what_is_refused_is_served_again_when_mended(proxy: Proxy) -> None:
    await asked(proxy)
    proxy.refuse()
    with pytest.raises(ENDED):
        await asked(proxy)
    proxy.mend()
    await asked(proxy)
