"""Sagas: steps that are taken back, in reverse order, if a later one fails or the task is cancelled."""

import functools
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from .errors import CompensationError, ConfigurationError, PartyError
from .packing import name_of
from .steps import step_options

if TYPE_CHECKING:
    from .cell import TaskCell
    from .task import Task

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger("agent_party")


class Saga:
    """``async with task.saga() as saga``. What is undone is undone durably: a crash in the middle of it goes on there.

    A cancellation reaches the handler as `TaskCancelledError` while a saga is open, so that it can be taken back.
    """

    def __init__(self, task: "Task", cell: "TaskCell") -> None:
        self._task, self._cell = task, cell
        self._undo: list[tuple[str, Callable[[], Awaitable[Any]]]] = []

    @overload
    async def step(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """A step that has ``undo=`` among its options: ``undo`` gets the same arguments. It is called also where the
        step failed, for it may have been done all the same; so it must do nothing where there is nothing to undo."""
        undo = step_options(function).undo
        if undo is None:
            raise ConfigurationError(
                f"{name_of(function)} cannot be taken back: mark it @step(undo=...), or use undo()"
            )
        self.undo(undo, *args, **kwargs)
        return await self._task.step(function, *args, **kwargs)

    def undo(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Call a function as a step if the saga fails."""
        self._undo.append((name_of(function), functools.partial(self._task.step, function, *args, **kwargs)))

    async def __aenter__(self) -> Self:
        self._cell.cleaning += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception):
                await self._take_back(error)
        finally:
            self._cell.cleaning -= 1

    async def _take_back(self, cause: Exception) -> None:
        failed: list[str] = []
        for name, undo in reversed(self._undo):
            try:
                await undo()
            except PartyError as error:
                failed.append(f"{name}: {error}")
        if failed:
            raise CompensationError(f"after {cause}, this could not be taken back: {'; '.join(failed)}") from cause
