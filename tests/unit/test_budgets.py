"""Amounts, budgets, and what fits: the pure part."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_party.actors.budgets import ASKED_SECONDS, UNITS, Account, Budget, Claim, Spent, bounded, checked
from agent_party.actors.errors import ConfigurationError

COUNTS = st.integers(0, 1_000)
MONEY = st.integers(0, 1_000).map(lambda cents: Decimal(cents) / 100)
AMOUNTS = st.builds(Spent, COUNTS, MONEY, COUNTS, MONEY)
BUDGETS = st.builds(Budget, *(st.none() | kind for kind in (COUNTS, MONEY, COUNTS, MONEY)))


def test_a_budget_is_exact() -> None:
    budget = Budget.of(tokens=500, money="1.50", calls=3, seconds=0.1)
    assert budget == Budget(500, Decimal("1.5"), 3, Decimal("0.1"))
    assert str(budget) == "500 tokens, 1.5 of money, 3 calls, 0.1 seconds"
    assert str(Budget.of()) == "no limit"
    assert Spent.of(money="0.1") + Spent.of(money="0.2") == Spent(money=Decimal("0.3"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(budget), type=Budget) == budget


def test_an_amount_of_nothing_takes_no_room() -> None:
    rest = Spent.of(tokens=5, money="1.5", seconds=2) - Spent.of(tokens=5, money="1.5", seconds=2)
    assert msgspec.msgpack.encode(rest) == b"\x80"
    assert not rest
    assert str(rest) == "nothing"


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("amount", [-1, "-0.5", "nan", "inf", "1e30", "many", [], True, 2**60, b"1"])
def test_an_amount_that_cannot_be_is_refused(unit: str, amount: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{unit} cannot be: give a"):
        Budget.of(**{unit: amount})
    with pytest.raises(ConfigurationError, match=f"{unit} cannot be: give a"):
        Spent.of(**{unit: amount})


@pytest.mark.parametrize("unit", ["tokens", "calls"])
@pytest.mark.parametrize("amount", [1.5, "5", Decimal(5)])
def test_what_is_counted_is_whole(unit: str, amount: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a whole number"):
        Budget.of(**{unit: amount})


def test_other_options_that_cannot_be_are_refused() -> None:
    wrong: Any = "wait"
    with pytest.raises(ConfigurationError, match="on_exhausted='wait' cannot be"):
        Budget.of(on_exhausted=wrong)
    for budget in ({"tokens": 1}, 5, Budget(tokens=-5), Budget(money=Decimal("nan"))):
        with pytest.raises(ConfigurationError, match="cannot be"):
            checked(budget)
    assert checked(None) is None


@given(BUDGETS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_what_is_lacking_is_just_enough(limit: Budget, spent: Spent, reserved: Spent, more: Spent) -> None:
    account = Account(limit, spent, reserved)
    lacking = account.lacking(more)
    raised = account.raised(lacking)
    assert not raised.lacking(more)
    if lacking:
        assert limit.lacks(spent + reserved + more)


@given(BUDGETS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 5), st.sets(st.sampled_from(UNITS)))
def test_shares_together_are_no_more_than_what_is_left(
    limit: Budget, spent: Spent, reserved: Spent, needs: Spent, among: int, rest: set[str]
) -> None:
    account = Account(limit, spent, reserved)
    units = tuple(unit for unit in limit.units if unit in rest)
    claim = Claim(Spent(**{u: getattr(needs, u) for u in UNITS if u not in units}), units)
    offers = [claim.offer(account, among, place) for place in range(among)]
    shares = [offer - claim.needs for offer in offers if offer is not None]
    total = sum(shares, Spent())
    assert all(getattr(total, unit) <= getattr(account.left, unit) for unit in units)
    for offer in offers:
        assert offer is None or not account.lacking(offer)
    if among == 1 and offers[0] is not None:
        assert all(getattr(offers[0], unit) == getattr(account.left, unit) for unit in units)


def test_what_is_reserved_counts_like_what_is_spent() -> None:
    account = Account(Budget.of(tokens=10), Spent(tokens=4), Spent(tokens=5))
    assert account.left == Budget(tokens=1)
    assert account.lacking(Spent(tokens=1)) == Spent()
    assert account.lacking(Spent(tokens=3)) == Spent(tokens=2)
    assert Claim(Spent(tokens=2)).offer(account) is None


def test_who_wants_what_is_left_waits_while_something_may_come_back() -> None:
    claim = Claim(Spent(), ("tokens",))
    limit = Budget.of(tokens=10)
    assert claim.offer(Account(limit, Spent(tokens=4), Spent())) == Spent(tokens=6)
    assert claim.offer(Account(limit, Spent(tokens=4), Spent(tokens=6))) is None
    assert claim.offer(Account(limit, Spent(tokens=10), Spent())) == Spent()
    assert claim.offer(Account(limit, Spent(tokens=11), Spent())) is None
    seconds, empty = Claim(Spent(), ("seconds",)), Account(Budget.of(seconds=5), Spent(seconds=Decimal(5)), Spent())
    assert seconds.offer(empty) is None
    assert seconds.definite(empty) == Claim(Spent(seconds=ASKED_SECONDS))


def test_the_reason_says_what_is_needed_and_what_is_left() -> None:
    account = Account(Budget.of(tokens=1_000, calls=1), Spent(tokens=880, calls=1), Spent())
    said = Claim(Spent(tokens=500, calls=1)).reason("model gpt", account)
    assert said == "model gpt needs 500 tokens, 120 are left of 1,000; 1 call, 0 are left of 1"


def test_seconds_bound_how_long_a_task_has() -> None:
    assert bounded(None, 5) == 5
    assert bounded(Budget.of(tokens=1), 0) == 0
    assert bounded(Budget.of(seconds=3), 0) == 3
    assert bounded(Budget.of(seconds=3), 5) == 3
    assert bounded(Budget.of(seconds=3), 2) == 2
    assert 0 < bounded(Budget.of(seconds=0), 0) < 0.001
