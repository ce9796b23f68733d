"""Restate's server: a service whose handler runs the steps, over HTTP/2 as Restate recommends it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import restate as sdk
from hypercorn.asyncio import serve
from hypercorn.config import Config

from .servers import free_port, restate, serving
from .work import effect, text

_STARTING = 60.0
_LIMIT = 300.0
bench = sdk.Service("bench", journal_retention=timedelta(days=1))


async def once(given: str) -> str:
    """The step."""
    return effect(given)


@bench.handler()
async def chain(context: sdk.Context, given: dict[str, Any]) -> str:
    """As many steps as asked for."""
    made: str = given["given"]
    for _ in range(given["steps"]):
        made = await context.run_typed("once", once, given=made)
    return made


class Restate:
    """Calls through the server's ingress; the handler is in this process, the server is another."""

    def __init__(self, client: httpx.AsyncClient, ingress: str, admin: str) -> None:
        self._client, self._ingress, self._admin = client, ingress, admin
        self._ids: dict[str, str] = {}

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        return await asyncio.gather(*(self._one(task, steps) for task in tasks))

    async def _one(self, task: str, steps: int) -> str:
        body = {"given": text(task, 0), "steps": steps}
        answer = await self._client.post(f"{self._ingress}/bench/chain", json=body)
        answer.raise_for_status()
        self._ids[task] = answer.headers["x-restate-id"]
        return str(answer.json())

    async def recorded(self, task: str) -> Sequence[str]:
        query = f"SELECT * FROM sys_journal WHERE id = '{self._ids[task]}' ORDER BY index"
        answer = await self._client.post(
            f"{self._admin}/query", json={"query": query}, headers={"accept": "application/json"}
        )
        answer.raise_for_status()
        return [made for row in answer.json()["rows"] for made in _outcome(row)]


def _outcome(row: dict[str, Any]) -> list[str]:
    if row["entry_type"] != "Notification: Run":
        return []
    result = json.loads(row["entry_json"])["Notification"]["Completion"]["Run"]["result"]
    return [json.loads(bytes(result["Success"]))]


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[Restate]:
    """``setting``: there is one only."""
    node, ingress, admin, own = (free_port() for _ in range(4))
    command = [str(restate()), "--base-dir", str(folder / "restate"), "--node-name", "bench", "--listen-mode", "tcp"]
    command += ["--bind-ip", "127.0.0.1", "--bind-port", str(node), "--no-logo", "--advertised-host", "127.0.0.1"]
    (folder / "restate.toml").write_text(
        f'disable-telemetry = true\nlog-filter = "error"\n'
        f"[ingress]\nbind-port = {ingress}\n[admin]\nbind-port = {admin}\n"
    )
    config = Config()
    config.bind, config.accesslog, config.errorlog = [f"127.0.0.1:{own}"], None, None
    stop = asyncio.Event()
    with serving([*command, "--config-file", str(folder / "restate.toml")], folder) as server:
        app: Any = sdk.app(services=[bench])
        service = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type,unused-ignore]
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        async with httpx.AsyncClient(timeout=_LIMIT, limits=limits, trust_env=False) as client:
            contest = Restate(client, f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}")
            async with asyncio.timeout(_STARTING):
                await _registered(contest, client, f"http://127.0.0.1:{own}", server)
            yield contest
        stop.set()
        await service


async def _registered(contest: Restate, client: httpx.AsyncClient, own: str, server: Any) -> None:
    while True:
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(httpx.HTTPError):
            answer = await client.post(f"{contest._admin}/deployments", json={"uri": own, "force": True})
            if answer.is_success:
                await contest.run(["first"], 0)
                return
        await asyncio.sleep(0.1)
