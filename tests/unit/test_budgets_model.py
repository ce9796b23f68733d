"""A thousand random trees on the pure part: the fold of tasks' streams, and what fits; no loop, no log, no crypto.

The order of everything is chance: openings, outcomes, children that end late or are not awaited, attempts lost in a
crash, raises, beginnings anew. `test_budgets_trees` runs trees by the real code, with processes killed.
"""

import random
from typing import Any

import pytest

from agent_party.actors.budgets import Account, Accounted, Budget, Claim, Raised, Spent
from agent_party.actors.events import (
    Advanced,
    Attempted,
    Completed,
    Continued,
    Failure,
    Freed,
    Held,
    Opened,
    Requested,
    Settled,
    WaitKind,
)
from agent_party.actors.task_state import TaskState, evolve
from tests.unit.commits_kit import committed

TREES = 1_000
BATCH = 100
DEPTH = 3


class Node:
    """A task of the model, its stream a fold. ``used``: what it and all below it really used."""

    def __init__(self, budget: Budget, depth: int = 0) -> None:
        self.state, self.depth, self.used, self.commits = TaskState(), depth, Spent(), 0
        self.children: dict[tuple[int, int], Node] = {}
        self.record(Requested("work", b"\x80", budget=budget))

    def record(self, *events: object) -> None:
        """One commit, after which nothing is over the limit."""
        self.commits += 1
        evolve(self.state, committed(self.commits, events))
        assert self.state.budget is not None
        assert not self.state.budget.lacks(self.state.spent + self.state.reserved), (self.state, events)

    @property
    def account(self) -> Account:
        assert self.state.budget is not None
        return Account(self.state.budget, self.state.spent, self.state.reserved)

    def step(self, chance: random.Random) -> None:
        """Something happens in it, or in what is below it."""
        below = [child for child in self.children.values() if not child.state.finished]
        if below and chance.random() < 0.6:
            return chance.choice(below).step(chance)
        waits = sorted(self.state.open)
        if not waits or (len(waits) < 4 and chance.random() < 0.4):
            return self.open(chance)
        number = chance.choice(waits)
        wait = self.state.waits[number]
        if wait.reserved is None:
            return self.admit(chance, number)
        if wait.kind == "step":
            return self.run(chance, number, wait.reserved)
        return self.await_child(chance, number, wait.reserved)

    def open(self, chance: random.Random) -> None:
        kind: WaitKind = "child" if self.depth < DEPTH and chance.random() < 0.5 else "step"
        units = self.account.limit.units
        rest = tuple(unit for unit in units if kind == "child" and chance.random() < 0.6)
        needs: dict[str, Any] = {"tokens": chance.randint(0, 60), "calls": 1}
        claim = Claim(Spent(**{unit: amount for unit, amount in needs.items() if unit not in rest}), rest)
        opened = Opened(len(self.state.waits), kind, kind, reserved=claim.offer(self.account))
        held = Held(opened.wait, "", claim.needs, rest, self.account.lacking(claim.needs))
        self.record(Advanced([], [opened]), *([] if opened.reserved is not None else [held]))

    def admit(self, chance: random.Random, number: int) -> None:
        """It fits by now, or a person raises the budget, or refuses."""
        asked = self.state.waits[number].asked
        assert asked is not None
        assert asked.needs is not None
        claim = Claim(asked.needs, asked.rest)
        offer = claim.offer(self.account)
        if offer is not None:
            self.record(Freed(number, reserved=offer))
        elif chance.random() < 0.5:
            more = self.account.lacking(asked.needs)
            rest = {u: getattr(self.account.raised(more).with_more(asked.needs).left, u) for u in asked.rest}
            self.record(Raised(more, "ada"), Freed(number, "ada", reserved=asked.needs + Spent(**rest)))
        else:
            self.record(Advanced([Settled(number, failure=Failure("BudgetError", ""), attempts=0)]))

    def run(self, chance: random.Random, number: int, reserved: Spent) -> None:
        if chance.random() < 0.1:
            self.used += reserved
            held = Held(number, "", reserved, (), self.account.lacking(reserved))
            return self.record(Attempted(number, 1, spent=reserved), held)
        used = Spent(tokens=chance.randint(0, reserved.tokens), calls=reserved.calls)
        self.used += used
        self.record(Advanced([Settled(number, spent=used)]))
        return None

    def await_child(self, chance: random.Random, number: int, reserved: Spent) -> None:
        place = self.state.begun, number
        child = self.children.get(place)
        if child is None:
            granted = {unit: getattr(reserved, unit) for unit in self.account.limit.units}
            self.children[place] = Node(Budget(**granted), self.depth + 1)
        elif child.state.finished:
            self.record(Advanced([Settled(number, spent=child.state.spent, raised=child.over(reserved))]))
        elif chance.random() < 0.2:
            self.record(Advanced([Settled(number, failure=Failure("Abandoned", ""))]))
        elif chance.random() < 0.3:
            child.end(chance)

    def over(self, reserved: Spent) -> Spent | None:
        """How far raises cover what is over the reservation."""
        return self.state.spent.beyond(reserved).at_most(self.state.raised) or None

    def end(self, chance: random.Random, *, anew: bool = False) -> None:
        """It ends once all its children have, and all that they used is known; what steps used is not."""
        events: list[object] = []
        for number in sorted(self.state.open | self.state.owed):
            wait, child = self.state.waits[number], self.children.get((self.state.begun, number))
            if wait.reserved is None:
                continue
            if wait.kind == "step":
                self.used += wait.reserved
                events.append(Accounted(number, wait.reserved))
            else:
                if child and not child.state.finished:
                    child.end(chance)
                raised = child.over(wait.reserved) if child else None
                events.append(Accounted(number, child.state.spent if child else Spent(), raised))
        self.record(*events, Continued(b"\x80") if anew else Completed(b"\xc0"))
        assert not self.state.reserved
        assert not self.state.owed

    def total(self) -> Spent:
        """What was really used in all of the tree."""
        return sum((child.total() for child in self.children.values()), self.used)


@pytest.mark.parametrize("seed", range(0, TREES, BATCH))
def test_a_thousand_trees_are_never_overspent_and_nothing_leaks(seed: int) -> None:
    for tree in range(seed, seed + BATCH):
        print(f"seed {tree}")
        chance = random.Random(tree)
        limits: dict[str, Any] = {"tokens": chance.randint(0, 300), "calls": chance.randint(0, 20)}
        limit = Budget(**{unit: most for unit, most in limits.items() if chance.random() < 0.8})
        root = Node(limit)
        for _ in range(chance.randint(1, 80)):
            root.step(chance)
            if chance.random() < 0.02:
                root.end(chance, anew=True)
        root.end(chance)
        assert root.state.spent == root.total()
        assert not limit.raised(root.state.raised).lacks(root.total())
