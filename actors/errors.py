"""Every error of agents and tasks, one tree.

PartyError
├── CallError                   a call was refused; nothing of it was recorded
│   ├── InputError              the input does not fit the capability's signature
│   ├── UnknownTaskError        no task of that id
│   ├── UnknownAgentError       no agent of that name
│   ├── UnknownCapabilityError  a function or name that no agent of this program declares
│   ├── MailboxFullError        too many messages wait: retry later (retryable)
│   ├── DeadlineError           no answer in time; the command may still be done: ask again with its id (retryable)
│   ├── MovedError              the cell lives elsewhere now: resolve again (retryable)
│   ├── RefusedError            the task refused an update or a query; nothing was changed
│   └── SettledError            the task or the approval has been decided already
├── TaskError                   what a task came to, raised where its result is asked for
│   ├── TaskFailedError
│   ├── TaskCancelledError
│   └── RejectedError           a person said no
├── ReplayError                 the handler does not do on replay what is recorded
├── StepError                   a step failed for good, after its retries
├── RemoteStepError             a step that was to run on Ray did not begin there (retryable)
├── StepCrashedError            the process in which a step ran ended under it: `on_crash` says what becomes of it
├── StepCancelledError          raised inside a step that nobody waits for any more
├── CompensationError           a saga could not take back all that it had done
├── CycleError                  a task was delegated to itself, or too deep
├── BudgetError                 the budget does not allow it, and nobody raised it
├── StatementError              a person's signed statement that does not hold
├── RuntimeUnavailableError     the runtime asked for cannot start
└── ConfigurationError          a setting that cannot be
"""


class PartyError(Exception):
    """The root of the tree. Each error's text says what happened, to what, and what to do next."""


class CallError(PartyError):
    """A call was refused; nothing of it was recorded."""


class InputError(CallError):
    """The input does not fit the capability's signature."""


class UnknownTaskError(CallError):
    """There is no task of this id."""

    def __init__(self, task: str) -> None:
        super().__init__(f"there is no task {task}: `party task list` shows those there are")
        self.task = task

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.task,)


class UnknownAgentError(CallError):
    """There is no agent of this name."""

    def __init__(self, agent: str) -> None:
        super().__init__(f"there is no agent {agent}: `party agent list` shows those there are")
        self.agent = agent

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.agent,)


class UnknownCapabilityError(CallError):
    """A function or a name that no agent declares."""


class MailboxFullError(CallError):
    """The cell has too many messages waiting. Retry later, with the same command id."""


class DeadlineError(CallError):
    """No answer came before the deadline. What was asked may still be done: ask again with the same id."""


class MovedError(CallError):
    """Another process runs this cell now. Resolve it again and resend the same command id."""


class RefusedError(CallError):
    """The task refused an update or cannot answer a query. Nothing was changed."""


class SettledError(CallError):
    """It has been decided already."""


class TaskError(PartyError):
    """What a task came to."""

    def __init__(self, task: str, message: str) -> None:
        super().__init__(message)
        self.task = task

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.task, str(self))


class TaskFailedError(TaskError):
    """The task's handler raised; the text carries the error's class and message."""


class TaskCancelledError(TaskError):
    """The task was cancelled."""


class RejectedError(TaskError):
    """A person rejected what the task asked approval for."""


class ReplayError(PartyError):
    """On replay the handler asked for another wait than the one that is recorded."""


class StepError(PartyError):
    """A step failed after its retries. ``kind`` is the class name of the last error."""

    def __init__(self, name: str, kind: str, message: str) -> None:
        super().__init__(f"step {name} failed: {kind}: {message}")
        self.name, self.kind, self.message = name, kind, message

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.kind, self.message)


class RemoteStepError(PartyError):
    """A step that was to run on Ray did not begin there, by no fault of its own: its retries apply."""


class StepCrashedError(PartyError):
    """The process in which a step ran ended under it, so that it is open whether the step was done: a crash in between.

    ``attempt``: which one it was.
    """

    attempt = 1


class StepCancelledError(PartyError):
    """Raised by a heartbeat inside a step that nobody waits for any more: end here."""


class CompensationError(PartyError):
    """A saga could not take back all that it had done; the text lists what it could not."""


class CycleError(PartyError):
    """A task was delegated, through others, to itself with the same input; or more levels deep than there may be."""


class BudgetError(PartyError):
    """The task's budget does not allow this, and who was asked has not raised it."""


class StatementError(PartyError):
    """A signed statement that does not hold: another key, other content than was shown, or a bad signature."""


class RuntimeUnavailableError(PartyError):
    """The runtime asked for cannot start here."""


class ConfigurationError(PartyError):
    """A setting that cannot be; the text names it and what it may be."""
