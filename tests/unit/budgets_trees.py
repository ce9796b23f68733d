"""Random trees of delegated tasks with budgets, run by the real code; and an auditor who reads only the log.

A plan is a tree of actions, made from a seed: steps that reserve and use tokens and money, children with and without a
share, several at once, the first of several, failures, restarts, beginning anew. Meanwhile people raise and refuse,
cancel tasks, and the process is killed.
"""

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from agent_party import Agent, Task, current_step, step
from agent_party.actors.budgets import Accounted, Budget, Raised, Spent
from agent_party.actors.delegation import child_id
from agent_party.actors.errors import BudgetError, PartyError
from agent_party.actors.events import Advanced, Attempted, Continued, Freed, Opened, Requested, Settled
from agent_party.actors.packing import pack_input
from agent_party.actors.task_state import TASK, TaskState
from agent_party.eventstore.errors import EventStoreError
from agent_party.eventstore.reading import Commit
from tests.unit.world import Process, World, until

CENT = Decimal("0.01")
Plan = dict[str, Any]


def plan(chance: random.Random, depth: int = 0, name: str = "r") -> Plan:
    """What a task does; ``name`` makes each one's input another."""
    count = chance.randint(1, 3 if depth < 2 else 2)
    actions = [action(chance, depth, f"{name}{n}") for n in range(count)]
    return {"name": name, "actions": actions, "fails": chance.random() < 0.12, "anew": chance.random() < 0.08}


def action(chance: random.Random, depth: int, name: str, *, alone: bool = True) -> list[Any]:
    """One thing that a task does, ``alone`` or beside others."""
    kind = chance.choices(["use", "spend", "child", "both", "first", "sleep"], [4, 2, 4, 3, 2, 1])[0]
    if (depth >= 3 or not alone) if kind in ("both", "first") else (depth >= 3 and kind == "child"):
        kind = "use"
    match kind:
        case "use":
            most = chance.randint(0, 60)
            return ["use", most, chance.randint(0, most), chance.random() < 0.15]
        case "spend":
            return ["spend", chance.randint(0, 40)]
        case "child":
            return ["child", share(chance), plan(chance, depth + 1, name), chance.choice([0, 0, 1])]
        case "sleep":
            return ["sleep"]
        case _:
            return [kind, *(action(chance, depth, f"{name}{n}", alone=False) for n in range(3))]


def share(chance: random.Random) -> dict[str, Any] | None:
    """What a child is given; half of them are given nothing, and take what is left."""
    if chance.random() < 0.5:
        return None
    units = {"tokens": chance.randint(0, 150), "money": f"{chance.randint(0, 150)}e-2", "calls": chance.randint(0, 5)}
    return {unit: amount for unit, amount in units.items() if chance.random() < 0.6}


def budget(chance: random.Random) -> Budget:
    """The budget of a root."""
    how: Any = "ask" if chance.random() < 0.5 else "fail"
    units: dict[str, Any] = {"tokens": chance.randint(0, 400), "calls": chance.randint(0, 15)}
    units["money"] = CENT * chance.randint(0, 400)
    return Budget.of(**{unit: amount for unit, amount in units.items() if chance.random() < 0.7}, on_exhausted=how)


class Trees:
    """The code of the tasks. ``used``: what the effects of each task really used, by wait, each time they ran."""

    def __init__(self) -> None:
        self.used: dict[str, dict[tuple[int, int], list[Spent]]] = defaultdict(lambda: defaultdict(list))
        self.agent = Agent("worker", concurrency=8)
        self.agent.on("node")(self.node)

    async def node(self, task: Task, plan: Plan) -> str:
        """Do what the plan says."""
        for one in plan["actions"]:
            with contextlib.suppress(BudgetError):
                await self.act(task, one)
        if plan["anew"]:
            task.continue_as_new(plan={**plan, "anew": False})
        if plan["fails"]:
            raise ValueError(plan["name"])
        return str(plan["name"])

    async def act(self, task: Task, one: list[Any]) -> None:
        match one:
            case ["use", most, used, fails]:
                with contextlib.suppress(PartyError):
                    async with task.budget.reserve(amount(most), amount):
                        await task.step(self.use, used, fails)
            case ["spend", tokens]:
                await task.budget.spend(tokens=tokens, money=CENT * tokens)
            case ["child", share, plan, restarts]:
                given = None if share is None else Budget.of(**share)
                with contextlib.suppress(PartyError):
                    await task.using(budget=given, restarts=restarts).ask("node", plan=plan)
            case ["both", *several]:
                await asyncio.gather(*(self.act(task, each) for each in several), return_exceptions=True)
            case ["first", *several]:
                with contextlib.suppress(BudgetError):
                    await task.first(*(self.act(task, each) for each in several))
            case _:
                await task.sleep(0.001)

    @property
    def use(self) -> Any:
        """A step that uses something, and says how much."""

        @step()
        async def use(used: int, fails: bool) -> int:
            now = current_step()
            self.used[now.task][now.wait, now.attempt].append(amount(used))
            await asyncio.sleep(0)
            if fails:
                raise ValueError
            return used

        return use


def amount(used: int) -> Spent:
    """So many tokens, and as many cents."""
    return Spent.of(tokens=used, money=CENT * used)


class Audit:
    """What a task's stream says, checked commit by commit."""

    def __init__(self, process: Process, trees: Trees) -> None:
        self._process, self._trees = process, trees
        self.tasks: dict[str, TaskState] = {}
        self.seen: Counter[str] = Counter()

    async def tree(self, task: str) -> TaskState:
        """Check a task and all below it; `AssertionError` names what does not hold."""
        state = TASK.initial()
        book = Book(task)
        for commit in await self._process.commits(f"task/{task}"):
            book.read(commit)
            state = TASK.evolve(state, commit)
            book.compare(state, commit.revision)
        assert state.finished, f"{task} is {state.status}"
        assert state.budget is not None, task
        assert not state.reserved, f"{task} ends with {state.reserved} reserved"
        assert not state.owed, f"{task} ends, and {state.owed} are not accounted for"
        self.tasks[task] = state
        self.seen[state.status] += 1
        self.seen["held"] += len(book.freed)
        self.seen["raised"] += book.raises
        for child, charged in book.children(self._process.log).items():
            if (await self._process.log.state(f"task/{child}")).revision:
                below = await self.tree(child)
                assert charged == below.spent, f"{task} was charged {charged} for {child}, which used {below.spent}"
            else:
                assert not charged, f"{task} was charged {charged} for {child}, which never was"
        real = sum((one for ran in self._trees.used[task].values() for one in ran), Spent())
        own = book.charged_steps
        assert not real.beyond(own), f"the steps of {task} really used {real}, and {own} are on the log"
        return state


class Book:
    """The account of one task, kept from its events alone."""

    def __init__(self, task: str) -> None:
        self.task, self.begun, self.raises = task, 0, 0
        self.opened: dict[tuple[int, int], Opened] = {}
        self.reserved: dict[tuple[int, int], Spent] = {}
        self.charged: dict[tuple[int, int], Spent] = {}
        self.lost, self.limit = Spent(), Budget()
        self.freed: list[Freed] = []

    def read(self, commit: Commit) -> None:
        for event in commit.events:
            match event:
                case Requested():
                    self.limit = event.budget or Budget()
                case Advanced():
                    for opened in event.opened:
                        self.opened[self.begun, opened.wait] = opened
                        if opened.reserved is not None:
                            self.reserved[self.begun, opened.wait] = opened.reserved
                    for settled in event.settled:
                        self._charge(settled, self.opened[self.begun, settled.wait].kind)
                case Accounted():
                    self._charge(event, "")
                case Freed() if event.reserved is not None:
                    self.freed.append(event)
                    if (self.begun, event.wait) not in self.charged:
                        self.reserved[self.begun, event.wait] = event.reserved
                case Attempted() if event.spent is not None:
                    self.lost += event.spent
                    self.reserved.pop((self.begun, event.wait), None)
                case Raised():
                    self.limit, self.raises = self.limit.raised(event.more), self.raises + 1
                case Continued():
                    self.begun += 1

    def _charge(self, one: Settled | Accounted, kind: str) -> None:
        place = self.begun, one.wait
        if place in self.charged or (one.spent is None and kind == "child" and place in self.reserved):
            return
        self.charged[place] = one.spent or Spent()
        self.reserved.pop(place, None)
        self.limit = self.limit.raised(one.raised or Spent())

    @property
    def spent(self) -> Spent:
        return sum(self.charged.values(), self.lost)

    @property
    def charged_steps(self) -> Spent:
        """What is on the log for the steps, and not for spending without one."""
        steps = [place for place, one in self.opened.items() if one.kind == "step" and one.name != "spend"]
        return sum((self.charged.get(place, Spent()) for place in steps), self.lost)

    def compare(self, state: TaskState, revision: int) -> None:
        """The fold says the same, and nothing is over the limit."""
        where = f"{self.task} at {revision}"
        reserved = sum(self.reserved.values(), Spent())
        assert state.spent == self.spent, f"{where}: {state.spent} spent by the fold, {self.spent} by the events"
        assert state.reserved == reserved, f"{where}: {state.reserved} reserved by the fold, {reserved} by the events"
        assert state.budget == self.limit, f"{where}: {state.budget} by the fold, {self.limit} by the events"
        over = self.limit.lacks(self.spent + reserved)
        assert not over, f"{where}: {self.spent} spent and {reserved} reserved of {self.limit}"

    def children(self, log: Any) -> dict[str, Spent]:
        """What each child was charged with."""
        return {
            child_id(self.task, wait, begun): self.charged.get((begun, wait), Spent())
            for (begun, wait), opened in self.opened.items()
            if opened.kind == "child"
        }


async def people(process: Process, chance: random.Random) -> None:
    """Raise budgets or refuse to, and cancel a task now and then."""
    asked: set[tuple[str, bytes, int, str]] = set()  # of each run: one that begins anew asks the same again
    while True:
        rows = await process.registry.tasks(unfinished=True)  # those too that are not in memory for now
        for task in dict.fromkeys([*process.host.cells, *(row.id for row in rows)]):
            cell = process.host.cells.get(task)
            state = cell.state if cell else await process.state(task)
            for number, wait in [(number, state.waits[number]) for number in sorted(state.open)]:
                this = task, wait.opened, number, wait.held
                if wait.asks_a_person and this not in asked and chance.random() < 0.5:
                    asked.add(this)
                    decision: Any = "approve" if chance.random() < 0.7 else "reject"
                    with contextlib.suppress(PartyError, EventStoreError, IndexError):
                        await process.leave(task, await process.statement(task, number, decision))
            if chance.random() < 0.004:
                with contextlib.suppress(PartyError, EventStoreError):
                    await process.host.cancel_here(task, "ada", "chance")
        await asyncio.sleep(0.002)


async def grown(world: World, seed: int, count: int, crashes: int) -> Counter[str]:
    """Run so many trees at once, killing their process now and then, and audit each."""
    chance, trees = random.Random(seed), Trees()
    roots = {f"root{n}": (plan(chance), budget(chance)) for n in range(count)}
    process = await world.process(trees.agent)
    for left in range(crashes, -1, -1):
        acting = asyncio.create_task(people(process, chance))
        for task, (given, limit) in roots.items():
            await _ask(process, task, given, limit)
        try:
            async with asyncio.timeout(chance.uniform(0.01, 0.3) if left else 300):
                for task in roots:
                    await process.finished(task, 300)
        except TimeoutError:
            assert left, f"seed {seed}: not all trees end"
        acting.cancel()
        if left:
            await world.kill(process)
            process = await world.process(trees.agent)
    audit = Audit(process, trees)
    for task, (_, limit) in roots.items():
        state = await audit.tree(task)
        # Of the whole tree: no more than the root was given at first, and what people added to it.
        assert not limit.raised(state.raised).lacks(state.spent), f"{task}: {state.spent} of {limit} and {state.raised}"
    await until(lambda: process.host.limits(trees.agent).free == trees.agent.concurrency)
    return audit.seen


async def _ask(process: Process, task: str, given: Plan, limit: Budget) -> None:
    requested = Requested("node", pack_input({"plan": given}, "input"), by="ada", budget=limit)
    await process.host.place(task, requested)
