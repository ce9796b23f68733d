"""Budgets: what a task and all that it delegates may use. Reserved when something begins, settled when it ends.

Quantities are exact: tokens and calls are counted, money is a decimal number of one currency, seconds are those that
each delegated task is given, added up over the tree. Everything here is pure; `spending` puts it to use.
"""

from collections.abc import Iterable
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from ..eventstore.codec import event
from .errors import ConfigurationError

_ZERO = Decimal(0)
UNITS = ("tokens", "money", "calls", "seconds")
_COUNTED = ("tokens", "calls")
MOST = 2**53
"""The largest amount of any unit."""
PLACES = 12
"""Decimal places of an amount; a share of one is rounded down to them."""
_QUANTUM = Decimal(1).scaleb(-PLACES)
ASKED_SECONDS = Decimal(60)
"""What a child without a share of its own asks for where no seconds are left."""
OnExhausted = Literal["", "ask", "fail"]


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An amount of each unit."""

    tokens: int = 0
    money: Decimal = _ZERO
    calls: int = 0
    seconds: Decimal = _ZERO

    @classmethod
    def of(cls, **amounts: Any) -> "Spent":
        """An amount from plain numbers; `ConfigurationError` for what is negative or no number."""
        exact = {unit: _exact(unit, amount, "an amount") for unit, amount in amounts.items()}
        return cls(**{unit: amount for unit, amount in exact.items() if amount})

    def __add__(self, other: "Spent") -> "Spent":
        return _amounts(mine + theirs for mine, theirs in _pairs(self, other))

    def __sub__(self, other: "Spent") -> "Spent":
        return _amounts(mine - theirs for mine, theirs in _pairs(self, other))

    def __bool__(self) -> bool:
        return any(getattr(self, unit) for unit in UNITS)

    def beyond(self, other: "Spent") -> "Spent":
        """By how much it is more than another, in each unit; never below 0."""
        return _amounts(max(type(mine)(0), mine - theirs) for mine, theirs in _pairs(self, other))

    def at_most(self, other: "Spent") -> "Spent":
        """The smaller of the two, in each unit."""
        return _amounts(min(mine, theirs) for mine, theirs in _pairs(self, other))

    def __str__(self) -> str:
        return ", ".join(shown(getattr(self, unit), unit) for unit in UNITS if getattr(self, unit)) or "nothing"


def _amounts(amounts: Iterable[Any]) -> Spent:
    """These amounts in the order of `UNITS`; those of 0 are left out, so that they take no room on the log."""
    return Spent(**{unit: amount for unit, amount in zip(UNITS, amounts, strict=True) if amount})


def _pairs(one: Spent, other: Spent) -> Iterable[tuple[Any, Any]]:
    return ((getattr(one, unit), getattr(other, unit)) for unit in UNITS)


def shown(amount: int | Decimal, unit: str) -> str:
    """An amount for people."""
    one = {"tokens": "token", "calls": "call", "seconds": "second"}
    number = f"{amount:,}" if isinstance(amount, int) else f"{amount.normalize():,f}"
    return f"{number} {one[unit] if amount == 1 and unit in one else 'of money' if unit == 'money' else unit}"


def _exact(unit: str, amount: Any, what: str) -> Any:
    """An amount as it is recorded; `ConfigurationError` says what is wrong with it."""
    try:
        whole = isinstance(amount, int) and not isinstance(amount, bool)
        number = amount if unit in _COUNTED and whole else Decimal(str(amount))
        if (unit in _COUNTED and not whole) or isinstance(amount, bool) or not 0 <= number <= MOST:
            raise ValueError
        return number if whole and unit in _COUNTED else number.quantize(_QUANTUM).normalize() + _ZERO
    except (ArithmeticError, ValueError, TypeError) as error:
        kind = "a whole number" if unit in _COUNTED else "a number"
        raise ConfigurationError(f"{what} of {amount!r} {unit} cannot be: give {kind} from 0 to {MOST:,}") from error


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """At most so much of each unit; None: no limit. Money is in the currency of the models' prices.

    ``on_exhausted``: what becomes of a wait that does not fit: a person is asked to raise the budget, or it fails with
    `BudgetError`. "" is as the parent's budget says, and for a task that has no parent: ask.
    """

    tokens: int | None = None
    money: Decimal | None = None
    calls: int | None = None
    seconds: Decimal | None = None
    on_exhausted: OnExhausted = ""

    @classmethod
    def of(
        cls,
        tokens: int | None = None,
        money: Decimal | str | float | None = None,
        calls: int | None = None,
        seconds: Decimal | str | float | None = None,
        *,
        on_exhausted: OnExhausted = "",
    ) -> "Budget":
        """A budget from plain numbers; `ConfigurationError` for what is negative or no number."""
        if on_exhausted not in ("", "ask", "fail"):
            raise ConfigurationError(f"on_exhausted={on_exhausted!r} cannot be: give 'ask' or 'fail'")
        given = {"tokens": tokens, "money": money, "calls": calls, "seconds": seconds}
        exact = {u: None if amount is None else _exact(u, amount, "a budget") for u, amount in given.items()}
        return cls(**exact, on_exhausted=on_exhausted)

    @property
    def units(self) -> tuple[str, ...]:
        """The units that are limited."""
        return tuple(unit for unit in UNITS if getattr(self, unit) is not None)

    def lacks(self, used: Spent) -> tuple[str, ...]:
        """The units of which more is used than there is."""
        return tuple(unit for unit in self.units if getattr(used, unit) > getattr(self, unit))

    def left(self, used: Spent) -> "Budget":
        """What remains after this much; never below 0."""
        rest = {u: max(type(getattr(self, u))(0), getattr(self, u) - getattr(used, u)) for u in self.units}
        return msgspec.structs.replace(self, **rest)

    def raised(self, more: Spent) -> "Budget":
        """With more of the units that are limited."""
        return msgspec.structs.replace(self, **{u: getattr(self, u) + getattr(more, u) for u in self.units})

    def none(self) -> "Budget":
        """Nothing of each unit that is limited."""
        zero = Spent()
        return msgspec.structs.replace(self, **{unit: getattr(zero, unit) for unit in self.units})

    def whole(self) -> Spent:
        """All of it, as an amount; of what has no limit, nothing."""
        return Spent(**{unit: amount for unit in self.units if (amount := getattr(self, unit))})

    def __str__(self) -> str:
        return ", ".join(shown(getattr(self, unit), unit) for unit in self.units) or "no limit"


@event("task.accounted")
class Accounted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a wait used of the budget is known now, after the wait was settled, or because the task ends: what it did
    not use is free again. ``raised``: how far a person's raises further down cover what is over its reservation."""

    wait: int
    spent: Spent
    raised: Spent | None = None


@event("task.raised")
class Raised(msgspec.Struct, frozen=True):
    """The task may use this much more."""

    more: Spent
    by: str


def checked(budget: Any) -> "Budget | None":
    """A budget as an option; `ConfigurationError` for anything else, and for one that was made without `Budget.of`."""
    if budget is None:
        return None
    if not isinstance(budget, Budget):
        raise ConfigurationError(f"budget={budget!r} cannot be: give Budget.of(tokens=..., money=..., calls=...)")
    return Budget.of(budget.tokens, budget.money, budget.calls, budget.seconds, on_exhausted=budget.on_exhausted)


def bounded(budget: Budget | None, within: float) -> float:
    """The seconds that a task has, by what it was given and by its budget; 0: no limit."""
    if budget is None or budget.seconds is None:
        return within
    most = max(0.000_001, float(budget.seconds))
    return min(within, most) if within else most


class Account(NamedTuple):
    """A task's budget, with what is used and what is promised to waits that are open."""

    limit: Budget
    spent: Spent
    reserved: Spent

    @property
    def left(self) -> Budget:
        """What nothing is promised of."""
        return self.limit.left(self.spent + self.reserved)

    def lacking(self, more: Spent) -> Spent:
        """By how much the limit is too low for this much more; nothing where it fits. Where more is used than there
        may be, nothing fits at all."""
        limited = {unit: getattr(self.limit, unit) for unit in self.limit.units}
        wanted = self.spent + self.reserved + more
        return Spent(**{u: getattr(wanted, u) - limit for u, limit in limited.items() if getattr(wanted, u) > limit})

    def with_more(self, amount: Spent) -> "Account":
        """With this much more reserved."""
        return self._replace(reserved=self.reserved + amount)

    def raised(self, more: Spent) -> "Account":
        """With a higher limit."""
        return self._replace(limit=self.limit.raised(more))


class Claim(NamedTuple):
    """What a wait asks for. ``needs``: exactly this; ``rest``: units of which it gets all that is left.

    Where nothing is left of a unit in ``rest``, it waits as long as something that others have reserved may come back,
    and else begins with nothing: then what it does itself asks for the amounts that it needs.
    """

    needs: Spent
    rest: tuple[str, ...] = ()

    def offer(self, account: Account, among: int = 1, place: int = 0) -> Spent | None:
        """The amount to reserve; None where it does not fit. The rest is split ``among`` so many equally."""
        left = account.left
        rest = {unit: _part(getattr(left, unit), among, place) for unit in self.rest}
        if any(not part and (getattr(account.reserved, unit) or getattr(left, unit)) for unit, part in rest.items()):
            return None
        if "seconds" in rest and not rest["seconds"]:
            return None
        amount = self.needs + Spent(**{unit: part for unit, part in rest.items() if part})
        return None if account.lacking(amount) else amount

    def definite(self, account: Account) -> "Claim":
        """With an amount instead of a rest of which nothing is left, where it cannot begin with nothing."""
        none = "seconds" in self.rest and not account.left.seconds and not account.reserved.seconds
        if not none:
            return self
        rest = tuple(unit for unit in self.rest if unit != "seconds")
        return Claim(msgspec.structs.replace(self.needs, seconds=ASKED_SECONDS), rest)

    def reason(self, what: str, account: Account) -> str:
        """Why it does not fit, for people."""
        lacking = account.lacking(self.needs)
        units = [unit for unit in account.limit.units if getattr(lacking, unit)] or list(self.rest)
        return f"{what} needs " + "; ".join(self._lack(unit, account) for unit in units)

    def _lack(self, unit: str, account: Account) -> str:
        needs, left = getattr(self.needs, unit), getattr(account.left, unit)
        over, reserved = getattr(account.lacking(Spent()), unit), getattr(account.reserved, unit)
        wanted = shown(needs, unit) if needs else f"some of the {unit}"
        said = (
            f"{wanted}, {'1 is' if left == 1 else f'{_bare(left)} are'} left of {_bare(getattr(account.limit, unit))}"
        )
        said += f", and {_bare(over)} more than that are used or reserved" if over else ""
        return said + (f" ({_bare(reserved)} reserved, which may come back)" if reserved and not over else "")


def _bare(amount: int | Decimal) -> str:
    return f"{amount:,}" if isinstance(amount, int) else f"{amount.normalize():,f}"


def _part(left: Any, among: int, place: int) -> Any:
    """One of several equal parts, of which none is rounded up, but for what is counted: the first get what is over."""
    if among == 1:
        return left
    if isinstance(left, int):
        return left // among + (place < left % among)
    return (left / among).quantize(_QUANTUM, ROUND_DOWN).normalize() + _ZERO
