"""Budgets: what a task and all that it delegates may use. Reserved when something begins, settled when it ends.

Quantities are exact: tokens and calls are counted, money is a decimal number of one currency, seconds are those that
each delegated task is given, added up over the tree.
"""

from decimal import Decimal

import msgspec

from .errors import ConfigurationError

_ZERO = Decimal(0)
UNITS = ("tokens", "money", "calls", "seconds")


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An amount of each unit."""

    tokens: int = 0
    money: Decimal = _ZERO
    calls: int = 0
    seconds: Decimal = _ZERO

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, unit) + getattr(other, unit) for unit in UNITS))

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, unit) - getattr(other, unit) for unit in UNITS))


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """At most so much of each unit; None: no limit. Money is in the currency of the models' prices."""

    tokens: int | None = None
    money: Decimal | None = None
    calls: int | None = None
    seconds: Decimal | None = None

    @classmethod
    def of(
        cls,
        tokens: int | None = None,
        money: Decimal | str | float | None = None,
        calls: int | None = None,
        seconds: Decimal | str | float | None = None,
    ) -> "Budget":
        """A budget from plain numbers; `ConfigurationError` for one that is negative or no number."""
        try:
            exact = [None if amount is None else Decimal(str(amount)) for amount in (money, seconds)]
        except ArithmeticError as error:
            raise ConfigurationError(
                f"a budget of {money!r} and {seconds!r} seconds cannot be: give numbers"
            ) from error
        budget = cls(tokens, exact[0], calls, exact[1])
        for unit in UNITS:
            limit = getattr(budget, unit)
            if limit is not None and not (0 <= limit < float("inf")):
                raise ConfigurationError(f"a budget of {limit} {unit} cannot be: give 0 or more, or leave it out")
        return budget

    def lacks(self, used: Spent) -> tuple[str, ...]:
        """The units of which more is used than there is."""
        return tuple(
            unit for unit in UNITS if (limit := getattr(self, unit)) is not None and getattr(used, unit) > limit
        )

    def left(self, used: Spent) -> "Budget":
        """What remains after this much; never below 0."""
        rest = {unit: getattr(self, unit) for unit in UNITS}
        return Budget(
            **{u: None if limit is None else max(type(limit)(0), limit - getattr(used, u)) for u, limit in rest.items()}
        )

    def raised(self, more: Spent) -> "Budget":
        """With more of the units that are limited."""
        rest = {unit: getattr(self, unit) for unit in UNITS}
        return Budget(**{u: None if limit is None else limit + getattr(more, u) for u, limit in rest.items()})

    def whole(self) -> Spent:
        """All of it, as an amount; of what has no limit, nothing."""
        return Spent(*((getattr(self, unit) or type(getattr(Spent(), unit))(0)) for unit in UNITS))
