"""Which projections into views there are, and which views each one writes."""

from collections.abc import Callable

from .agents_and_tasks import AgentsAndTasks
from .contexts import Config, Results, Sessions
from .projection import DEAD_LETTERS, Projection
from .task_lists import TaskLists

PROJECTIONS: dict[str, Callable[[], Projection]] = {
    made.name: made for made in (AgentsAndTasks, TaskLists, Sessions, Config, Results)
}
"""By name."""
VIEWS: dict[str, str] = {
    **dict.fromkeys(("agent", "capability", "host", "load", "task"), AgentsAndTasks.name),
    **dict.fromkeys(("open-task", "runnable", "due", "orphan"), AgentsAndTasks.name),
    **dict.fromkeys(("active", "tasks-by-status", "tasks-by-agent"), TaskLists.name),
    **dict.fromkeys(("tasks-by-capability", "task-count"), TaskLists.name),
    "session": Sessions.name,
    "config": Config.name,
    "result": Results.name,
    DEAD_LETTERS: "",
}
"""Each view that can be asked for, and the projection that writes it; dead letters are of every projection."""
