"""The registry over the views of agents and tasks: what the DJ, the supervisors and the command line look up."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from ..actors.dj import AgentRow, Candidate, Load, TaskRow
from ..actors.presence import Presence
from ..projections import task_rows
from ..projections.projection import Read, Views, Write
from ..projections.worker import Worker

_PAGE = 1_000


class ViewRegistry:
    """Catches up with what was read from the log before it answers."""

    def __init__(self, worker: Worker[Write, Read], views: Views, presence: Presence) -> None:
        self._worker, self._views, self._presence = worker, views, presence

    # Agents

    async def agents_with(self, capability: str) -> list[AgentRow]:
        await self._worker.catch_up()
        names = [fields["agent"] for _, fields in await self._views.scan("capability", f"{capability}/")]
        rows = await self._rows(names)
        return [row for row in rows if capability in row.capabilities]

    async def agents(self) -> list[AgentRow]:
        await self._worker.catch_up()
        return await self._rows([name for name, _ in await self._views.scan("agent")])

    async def _rows(self, names: list[str]) -> list[AgentRow]:
        return [row for name in names if (row := await self._agent(name))]

    async def _agent(self, name: str) -> AgentRow | None:
        fields = await self._views.get("agent", name)
        if not fields:
            return None
        holders = [key.rpartition("/")[2] for key, _ in await self._views.scan("host", f"{name}/")]
        hosts = sum(self._presence.alive(bytes.fromhex(holder)) for holder in holders)
        capabilities = tuple(fields.get("capabilities", ()))
        load = await self._load(name)
        unfinished = load.queued + load.running + load.waiting
        return AgentRow(name, fields.get("version", ""), fields.get("phase", ""), capabilities, hosts, unfinished)

    async def load(self, agent: str) -> Load:
        await self._worker.catch_up()
        return await self._load(agent)

    async def _load(self, agent: str) -> Load:
        fields = await self._views.get("load", agent) or {}
        outcomes = tuple((time, status) for time, _, status in fields.get("outcomes", ()))
        queued, running, waiting, last = (fields.get(name, 0) for name in ("queued", "running", "waiting", "last"))
        return Load(queued, running, waiting, last, outcomes)

    # Tasks

    async def tasks(self, *, unfinished: bool = False, limit: int = 1_000) -> list[TaskRow]:
        await self._worker.catch_up()
        if unfinished:
            keys = [key for key, _ in await self._views.scan("open-task", limit=limit)]
            found = [(key, fields) for key in keys if (fields := await self._views.get("task", key))]
        else:
            found = await self._views.scan("task", limit=100_000)
        rows = sorted(
            (_task(key, fields) for key, fields in found if fields.get("status")),
            key=lambda row: (-row.created, row.id),
        )
        return rows[:limit]

    async def unfinished(self, task: str) -> bool:
        await self._worker.catch_up()
        return await self._views.get("open-task", task) is not None

    async def runnable(self, capabilities: Iterable[str]) -> list[Candidate]:
        await self._worker.catch_up()
        found: list[Candidate] = []
        for capability in capabilities:
            prefix, after = f"{quote(capability, safe='')}/", ""
            while page := await self._views.scan("runnable", prefix, _PAGE, after):
                found += [_candidate(key, fields) for key, fields in page]
                after = page[-1][0]
        return found

    async def due(self, capabilities: Iterable[str], now: int) -> tuple[list[Candidate], int]:
        await self._worker.catch_up()
        found, following = list[tuple[int, Candidate]](), 0
        for capability in capabilities:
            prefix, after = f"{quote(capability, safe='')}/", ""
            while page := await self._views.scan("due", prefix, _PAGE if after else 1, after):
                times = [int(key.split("/")[1]) for key, _ in page]
                late = [time for time in times if time > now]
                due = zip(times, page, strict=True)
                found += [(time, _candidate(*one)._replace(reason=f"due {time}")) for time, one in due if time <= now]
                after = page[-1][0]
                if late:
                    following = min(following or late[0], late[0])
                    break
        return [candidate for _, candidate in sorted(found)], following

    async def orphans(self) -> list[tuple[str, str]]:
        await self._worker.catch_up()
        return [(task, fields["parent"]) for task, fields in await self._views.scan("orphan")]


def _candidate(key: str, fields: dict[str, Any]) -> Candidate:
    holder = bytes.fromhex(fields["holder"])
    task = key.rpartition("/")[2]
    return Candidate(task, fields["capability"], fields["agent"], holder, fields["runs"], fields.get("reason", ""))


def _task(key: str, fields: dict[str, Any]) -> TaskRow:
    return TaskRow(
        id=key,
        capability=fields.get("capability", ""),
        agent=fields.get("agent", ""),
        status=task_rows.status_of(fields),
        steps=fields.get("settled", 0),
        open=tuple(f"{kind} {wait}" for wait, kind in sorted(fields.get("open", {}).items())),
        created=fields.get("created", 0),
        updated=fields.get("updated", 0),
        parent=fields.get("parent", ""),
        done=fields.get("done", 0),
        total=fields.get("total", 0),
        due=task_rows.due_of(fields),
    )
