"""LangGraph's SQLite checkpointer under a state that grows: a list of all outcomes, as a conversation is kept."""

import contextlib
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from ..world import outcome


class State(TypedDict):
    """Every outcome, and how many steps are left."""

    outcomes: Annotated[list[str], operator.add]
    left: int


def node(state: State) -> State:
    """The step: adds one."""
    return {"outcomes": [outcome(len(state["outcomes"]))], "left": state["left"] - 1}


class LangGraphWorlds:
    """A thread of LangGraph's a task, one checkpoint a step, durability sync."""

    def __init__(self, saver: Any) -> None:
        builder = StateGraph(State)
        builder.add_node("step", node)
        builder.add_edge(START, "step")
        builder.add_conditional_edges("step", lambda state: "step" if state["left"] else END)
        self._app: Any = builder.compile(checkpointer=saver)
        self._saver, self._task = saver, 0

    def grow(self, steps: int) -> None:
        """A thread whose first checkpoint holds so many outcomes."""
        self._task += 1
        self._app.update_state(
            self._config(1), {"outcomes": [outcome(number) for number in range(steps)], "left": 0}, as_node="step"
        )

    def run(self, steps: int) -> float:
        """Bytes of the checkpoints and writes of these steps, that of the input with them."""
        before = self._bytes()
        self._app.invoke({"outcomes": [], "left": steps}, self._config(steps), durability="sync")
        return self._bytes() - before

    def verify(self, steps: int) -> None:
        """The newest checkpoint has all of them."""
        state = self._app.get_state(self._config(1)).values
        assert state["outcomes"] == [outcome(number) for number in range(steps)]

    def _bytes(self) -> float:
        rows = ("sum(length(checkpoint) + length(metadata)) FROM checkpoints", "sum(length(value)) FROM writes")
        return sum(float(self._saver.conn.execute(f"SELECT {row}").fetchone()[0] or 0) for row in rows)

    def _config(self, steps: int) -> dict[str, Any]:
        return {"configurable": {"thread_id": str(self._task)}, "recursion_limit": steps + 2}


@contextlib.contextmanager
def langgraph_worlds(folder: Path) -> Iterator[LangGraphWorlds]:
    """LangGraph on a file in a folder."""
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        yield LangGraphWorlds(saver)
