"""What the next step of a handler may use: said around it, and taken by it."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .budgets import Spent
from .events import Settled

if TYPE_CHECKING:
    from .spending import Spending

Used = Callable[[Settled], Spent]
"""Tells from a step's outcome what it used."""


class Reservation:
    """What the next step of a handler may use. ``settle`` changes nothing: what was used is read from the outcome."""

    def __init__(self, spending: "Spending", most: Spent, used: Used) -> None:
        self.spending, self.most, self.used, self.taken = spending, most, used, False

    def settle(self, *used: object) -> None:
        """For callers that say what was used; it is on the log by then, in the same commit as the outcome."""


_reservation: contextvars.ContextVar[Reservation | None] = contextvars.ContextVar("reservation", default=None)


def reservation_of_next() -> Reservation | None:
    """The reservation that the code that runs is within."""
    return _reservation.get()


@contextlib.contextmanager
def reserving(reservation: Reservation) -> Iterator[Reservation]:
    """Within it, the next step of the handler has this reservation."""
    token = _reservation.set(reservation)
    try:
        yield reservation
    finally:
        _reservation.reset(token)
