"""LangGraph with its SQLite checkpointers: a graph of one node a step, and ``@entrypoint`` with a ``@task`` a step.

A setting is three words: ``graph`` or ``tasks``, saver ``sync`` or ``async``, durability ``sync`` or ``async``.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph

from .work import effect, text


class State(TypedDict):
    """What the graph's checkpoints hold: the newest outcome only, so nothing grows."""

    given: str
    left: int


def node(state: State) -> State:
    """The step."""
    return {"given": effect(state["given"]), "left": state["left"] - 1}


async def anode(state: State) -> State:
    """The step, as a coroutine."""
    return node(state)


def graph(saver: Any, coroutines: bool) -> Any:
    """One node that is run again and again."""
    builder = StateGraph(State)
    builder.add_node("step", anode if coroutines else node)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if state["left"] else END)
    return builder.compile(checkpointer=saver)


def tasks(saver: Any, coroutines: bool) -> Any:
    """The functional API."""
    once = task(effect)

    @task
    async def aonce(given: str) -> str:
        return effect(given)

    @entrypoint(checkpointer=saver)
    def chain(state: State) -> State:
        given = state["given"]
        for _ in range(state["left"]):
            given = once(given).result()
        return {"given": given, "left": 0}

    @entrypoint(checkpointer=saver)
    async def achain(state: State) -> State:
        given = state["given"]
        for _ in range(state["left"]):
            given = await aonce(given)
        return {"given": given, "left": 0}

    return achain if coroutines else chain


class LangGraph:
    """A thread of LangGraph's a task."""

    def __init__(self, app: Any, saver: Any, setting: str) -> None:
        self._app, self._saver = app, saver
        self._form, how, self._durability = setting.split()
        self._coroutines = how == "async"
        self._threads = ThreadPoolExecutor(30)

    async def run(self, tasks: Sequence[str], steps: int) -> Sequence[str]:
        call = self._await if self._coroutines else self._invoke
        return [state["given"] for state in await asyncio.gather(*(call(task, steps) for task in tasks))]

    async def _await(self, task: str, steps: int) -> Any:
        return await self._app.ainvoke(_input(task, steps), _config(task, steps), durability=self._durability)

    async def _invoke(self, task: str, steps: int) -> Any:
        def call() -> Any:
            return self._app.invoke(_input(task, steps), _config(task, steps), durability=self._durability)

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def recorded(self, task: str) -> Sequence[str]:
        if self._form == "graph":
            return await self._checkpointed(task)
        query = "SELECT type, value FROM writes WHERE thread_id = ? AND channel = '__return__' ORDER BY rowid"
        if self._coroutines:
            rows = await self._saver.conn.execute_fetchall(query, (task,))
        else:
            rows = self._saver.conn.execute(query, (task,)).fetchall()
        made = [self._saver.serde.loads_typed(row) for row in rows]
        # Each write comes in its own time, and the entrypoint's own result is among them.
        return sorted((one for one in made if isinstance(one, str)), key=lambda one: int(one.split(":")[1]))

    async def _checkpointed(self, task: str) -> Sequence[str]:
        config = _config(task, 1)
        if self._coroutines:
            found = [each.checkpoint["channel_values"] async for each in self._saver.alist(config)]
        else:
            found = [each.checkpoint["channel_values"] for each in self._saver.list(config)]
        states = [values["given"] for values in reversed(found) if "given" in values]
        return [given for given in states if not given.startswith(f"{task}:0:")]

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown()


def _input(task: str, steps: int) -> State:
    return {"given": text(task, 0), "left": steps}


def _config(task: str, steps: int) -> dict[str, Any]:
    return {"configurable": {"thread_id": task}, "recursion_limit": steps + 2}


@contextlib.asynccontextmanager
async def opening(folder: Path, setting: str) -> AsyncIterator[LangGraph]:
    """``setting``: three words, see above."""
    form, path = graph if setting.startswith("graph") else tasks, str(folder / "checkpoints.db")
    async with contextlib.AsyncExitStack() as stack:
        coroutines = setting.split()[1] == "async"
        saver: Any
        if coroutines:
            saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(path))
        else:
            saver = stack.enter_context(SqliteSaver.from_conn_string(path))
        contest = LangGraph(form(saver, coroutines), saver, setting)
        stack.callback(contest.close)
        yield contest
