"""Temporal's development server on a SQLite file: a workflow of activities.

``default``: its own settings. ``tuned``: a write-ahead log, as ours, and its limit of 20 polls of the transfer queue a
second lifted, which at two transfers a step would allow a lone workflow no more than ten steps a second. ``local``:
the same with local activities, which are recorded when the workflow next answers its server and not one by one.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from .servers import free_port, serving, temporal
from .work import effect, text

QUEUE = "bench"
LIMIT = timedelta(seconds=60)
_STARTING = 60.0
_TUNED = ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=full"]
_TUNED += ["--dynamic-config-value", "history.transferProcessorMaxPollRPS=100000"]


@activity.defn
async def once(given: str) -> str:
    """The step."""
    return effect(given)


@workflow.defn
class Chain:
    """As many activities as asked for."""

    @workflow.run
    async def run(self, given: str, steps: int, local: bool) -> str:
        """One after the other."""
        for _ in range(steps):
            if local:
                given = await workflow.execute_local_activity(once, given, start_to_close_timeout=LIMIT)
            else:
                given = await workflow.execute_activity(once, given, start_to_close_timeout=LIMIT)
        return given


class Temporal:
    """A client; its worker is in this process, its server is another."""

    def __init__(self, client: Client, local: bool) -> None:
        self._client, self._local = client, local

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        return await asyncio.gather(*(self._one(task, steps) for task in tasks))

    async def _one(self, task: str, steps: int) -> str:
        given = [text(task, 0), steps, self._local]
        return str(await self._client.execute_workflow(Chain.run, args=given, id=task, task_queue=QUEUE))

    async def recorded(self, task: str) -> Sequence[str]:
        handle: Any = self._client.get_workflow_handle(task)
        payloads = []
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_completed_event_attributes"):
                payloads += event.activity_task_completed_event_attributes.result.payloads
            elif event.HasField("marker_recorded_event_attributes"):
                payloads += event.marker_recorded_event_attributes.details["result"].payloads
        return [json.loads(payload.data) for payload in payloads]


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[Temporal]:
    """``setting``: ``default``, ``tuned`` or ``local``."""
    port = free_port()
    command = [str(temporal()), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--db-filename", str(folder / "temporal.db"), "--log-level", "error"]
    command += ["--http-port", str(free_port()), "--metrics-port", str(free_port())]
    with serving(command + ([] if setting == "default" else _TUNED), folder) as server:
        async with asyncio.timeout(_STARTING):
            client = await _connected(port, server)
        workers: Any = Worker(
            client, task_queue=QUEUE, workflows=[Chain], activities=[once], workflow_runner=UnsandboxedWorkflowRunner()
        )
        async with workers:
            yield Temporal(client, setting == "local")


async def _connected(port: int, server: Any) -> Client:
    while True:
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(RuntimeError):
            client = await Client.connect(f"127.0.0.1:{port}")
            await client.count_workflows()
            return client
        await asyncio.sleep(0.1)
