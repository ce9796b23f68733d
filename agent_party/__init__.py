"""Agent Party: teams of AI agents on a log that can be trusted."""

from .actors.agent import Agent, Capabilities
from .actors.budgets import Budget
from .actors.decider import Decider, Reply
from .actors.effects import current_step
from .actors.errors import PartyError, RejectedError, StepError, TaskCancelledError, TaskFailedError
from .actors.statements import Approval
from .actors.steps import step
from .actors.task import Task
from .eventstore.codec import event
from .eventstore.errors import ConflictError, EventStoreError
from .handles import TaskHandle
from .party import Party

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Approval",
    "Budget",
    "Capabilities",
    "ConflictError",
    "Decider",
    "EventStoreError",
    "Party",
    "PartyError",
    "RejectedError",
    "Reply",
    "StepError",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "TaskHandle",
    "__version__",
    "current_step",
    "event",
    "step",
]
