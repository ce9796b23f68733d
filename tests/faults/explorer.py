"""An exhaustive search of a small world for a history that breaks a promise.

One stream, with one owner at a time or, as an inbox, several. Two writers, each a process that may crash and forget,
with some activations; one Doorman, whose view of the log may be as old as it likes, who grants, fences, and forgets
too. What was sent lands whenever it likes, as often as it likes, or never. Every order of all these steps is tried, up
to the bounds. The rule is the real one (`Book`); the writer is `eventstore/appending.py` in small: build on what was
read, send, read on, and then

- one's own record is among what was read: acknowledged;
- the rule would still accept it: the same bytes may be sent again, or the caller is told that nobody knows;
- it never can be accepted: prepared again, which signs anew (a control commit came between), or says conflict or ended.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.faults.book import Book

WRITER_BUGS = (
    "ack on tape ack",
    "counting an unread own position",
    "conflict on time-out",
    "conflict against a control commit",
    "duplicate known only in memory",
    "not-found taken as failed",
)
IDLE, ASKING, ASKED, GRANTED, SENT, UNSURE, DOWN = range(7)


class Bounds(NamedTuple):
    """How much happens: activations of each writer, commands of each, fences, lapses of the Doorman's memory."""

    activations: int = 2
    commands: int = 1
    fences: int = 1
    lapses: int = 0
    inbox: bool = False
    depth: int = 60


class Process(NamedTuple):
    """A writer. ``view``: how much of the chain it has read. ``tried``: every record it sent for its command."""

    activation: int = 0
    phase: int = IDLE
    grant: int = -1
    view: int = 0
    pending: int = -1
    tried: frozenset[int] = frozenset()
    command: int = 0


class World(NamedTuple):
    """One moment. ``chain``: accepted records, ``states``: the rule's state after each; the promises made so far."""

    chain: tuple[int, ...]
    states: tuple[int, ...]
    sent: frozenset[int]
    writers: tuple[Process, Process]
    doorman: int
    fences: int
    lapses: int
    acknowledged: frozenset[int]
    denied: frozenset[int]


class Broken(AssertionError):
    """A promise was broken; ``steps`` say how."""

    def __init__(self, promise: str, steps: list[str]) -> None:
        super().__init__(promise + "".join(f"\n  {number}. {step}" for number, step in enumerate(steps, 1)))
        self.promise, self.steps = promise, steps


class Violation(Exception):
    """Raised in the middle of a step."""


Step = tuple[str, World]


class Explorer:
    """``rule_bug``, ``writer_bug``: what is planted."""

    def __init__(self, bounds: Bounds, rule_bug: str | None = None, writer_bug: str | None = None) -> None:
        self.bounds, self.book = bounds, Book(rule_bug, inbox=bounds.inbox)
        self.bug, self.rule_bug = writer_bug, rule_bug
        self._unalterable: set[tuple[int, int]] = set()
        self.seen: dict[World, tuple[World, str] | None] = {}
        self.steps = 0

    def run(self, limit: int | None = None, tell: Callable[[int, int], None] = lambda states, depth: None) -> int:
        """Try everything, nearest first. The number of states; `Broken` at the shortest broken promise."""
        book = self.book
        first = World((), (book.start,), frozenset(), (Process(), Process()), 0, 0, 0, frozenset(), frozenset())
        self.seen[first] = None
        layer, depth = deque([first]), 0
        while layer and depth < self.bounds.depth:
            following: deque[World] = deque()
            for world in layer:
                doing: list[str] = []
                try:
                    for name, reached in self._steps(world):
                        self.steps += 1
                        doing = [name]
                        self._check(reached)
                        doing = []
                        after = self._essence(reached)
                        if after not in self.seen:
                            self.seen[after] = (world, name)
                            following.append(after)
                except Violation as violation:
                    raise Broken(str(violation), [*self._path(world), *doing]) from None
                if limit is not None and len(self.seen) >= limit:
                    return len(self.seen)
            layer, depth = following, depth + 1
            tell(len(self.seen), depth)
        return len(self.seen)

    def _path(self, world: World) -> list[str]:
        steps: list[str] = []
        while reached := self.seen[world]:
            world, name = reached
            steps.append(name)
        return steps[::-1]

    def _essence(self, world: World) -> World:
        """The world without what can make no difference any more, so that equal futures are looked at once.

        Acknowledged records stand in the chain, which only grows: that was just checked. And as long as the rule is
        the right one, a record whose predecessor is an older head, or whose grant has ended, is dead: `_check` sees to
        it that heads and grants do not come back.
        """
        acknowledged = world.acknowledged - frozenset(world.chain)
        if self.rule_bug:
            return world._replace(acknowledged=acknowledged)
        sent = frozenset(number for number in world.sent if self._alive(world, number))
        first, second = (self._essential(process, sent, world.chain) for process in world.writers)
        return world._replace(acknowledged=acknowledged, sent=sent, denied=world.denied & sent, writers=(first, second))

    def _essential(self, process: Process, sent: frozenset[int], chain: tuple[int, ...]) -> Process:
        if process.phase in (SENT, UNSURE):
            return process._replace(tried=process.tried & (sent | frozenset(chain)))
        grant = process.grant if process.phase in (ASKED, GRANTED) else -1
        return process._replace(view=0, grant=grant, pending=-1, tried=frozenset())

    def _alive(self, world: World, number: int) -> bool:
        entry, state = self.book.entries[number], self.book.states[world.states[-1]]
        if number in world.chain:
            return False
        if entry.kind == "fence":
            return entry.target not in world.chain or self.book.next_state(world.states[-1], number) >= 0
        return entry.record.header.prev == state.head and self.book.next_state(world.states[-1], number) >= 0

    # What can happen next

    def _steps(self, world: World) -> Iterator[Step]:
        yield from self._landings(world)
        yield from self._doorman(world)
        for number in range(2):
            for name, process, more in self._writer(world, number):
                yield f"writer {'AB'[number]} {name}", self._with(world, number, process, **more)

    def _landings(self, world: World) -> Iterator[Step]:
        state = world.states[-1]
        for number in world.sent:
            after = self.book.next_state(state, number)
            entry = self.book.entries[number]
            if after >= 0:
                yield (
                    f"{entry.kind} {number} lands and is accepted",
                    world._replace(chain=(*world.chain, number), states=(*world.states, after)),
                )
            elif entry.kind == "fence" and entry.target in _in_force(self.book, world.chain):
                raise Violation("a fence landed, and its grant is in force still")
            if (state, number) not in self._unalterable:
                self._unalterable.add((state, number))
                for other in self.book.altered(number):
                    if self.book.next_state(state, other) >= 0:
                        raise Violation(f"a record with {self.book.entries[other].kind} was accepted")

    def _doorman(self, world: World) -> Iterator[Step]:
        book, view = self.book, world.states[world.doorman]
        if world.doorman < len(world.chain):
            yield "the Doorman reads on", world._replace(doorman=len(world.chain))
        for number, process in enumerate(world.writers):
            if process.phase == ASKING:
                grant = book.grant(view, f"{'AB'[number]}{process.activation}")
                yield (
                    f"the Doorman grants to {'AB'[number]}",
                    self._with(world, number, process._replace(phase=ASKED, grant=grant), sent=world.sent | {grant}),
                )
            if process.phase == ASKED:
                read = world.chain[: world.doorman]
                if process.grant in read:
                    yield (
                        f"{'AB'[number]} is told of its grant",
                        self._with(world, number, process._replace(phase=GRANTED)),
                    )
                elif book.next_state(view, process.grant) < 0 or world.lapses < self.bounds.lapses:
                    forgot = book.next_state(view, process.grant) >= 0
                    yield (
                        f"the Doorman {'forgets' if forgot else 'must sign anew'}",
                        self._with(
                            world, number, process._replace(phase=ASKING, grant=-1), lapses=world.lapses + forgot
                        ),
                    )
        if world.fences < self.bounds.fences:
            for grant in _in_force(book, world.chain[: world.doorman]):
                fence = book.fence(grant)
                yield f"the Doorman fences {grant}", world._replace(sent=world.sent | {fence}, fences=world.fences + 1)

    def _with(self, world: World, number: int, process: Process, **more: object) -> World:
        writers = (process, world.writers[1]) if number == 0 else (world.writers[0], process)
        return world._replace(writers=writers, **more)  # type: ignore[arg-type]

    # The writer: (step, process after it, what else changes)

    def _writer(self, world: World, number: int) -> Iterator[tuple[str, Process, dict[str, object]]]:
        process = world.writers[number]
        if process.phase in (IDLE, DOWN):
            if process.activation < self.bounds.activations and process.command < self.bounds.commands:
                yield "starts", Process(process.activation + 1, ASKING, command=process.command), {}
            return
        if process.activation < self.bounds.activations:
            yield "crashes and forgets", Process(process.activation, IDLE, command=process.command), {}
        if process.phase == GRANTED:
            yield from self._send(world, number, process)
        elif process.phase in (SENT, UNSURE):
            yield from self._settle(world, number, process)

    def _send(self, world: World, number: int, process: Process) -> Iterator[tuple[str, Process, dict[str, object]]]:
        """Read on, look whether the command is done already, and if not, build and send."""
        book, process = self.book, process._replace(view=len(world.chain))
        state, command = world.states[-1], f"{'AB'[number]}:{process.command}"
        standing = [n for n in world.chain if book.entries[n].command == command]
        if standing and self.bug != "duplicate known only in memory":
            yield "finds its command done", self._next(process), {"acknowledged": world.acknowledged | set(standing)}
        elif book.entries[process.grant].record.commit not in book.states[state].grants:
            yield "is told that its grant ended", process._replace(phase=DOWN), {}
        else:
            yield from self._sent(world, process, book.data(state, process.grant, self._key(number, process), command))

    def _sent(self, world: World, process: Process, record: int) -> Iterator[tuple[str, Process, dict[str, object]]]:
        after = process._replace(phase=SENT, pending=record, tried=process.tried | {record})
        yield f"sends {record}", after, {"sent": world.sent | {record}}
        if self.bug == "ack on tape ack":
            more: dict[str, object] = {"sent": world.sent | {record}, "acknowledged": world.acknowledged | {record}}
            yield f"sends {record} and believes the tape", self._next(after), more

    def _settle(self, world: World, number: int, process: Process) -> Iterator[tuple[str, Process, dict[str, object]]]:
        """Read on, and answer."""
        book, seen = self.book, world.chain[: process.view]
        newest = process._replace(view=len(world.chain))
        state = world.states[-1]
        if process.view < len(world.chain) or process.phase == UNSURE:
            yield from self._answer(world, number, newest, state)
        if process.phase == SENT and process.pending not in seen:
            if self.bug == "conflict on time-out":
                yield "times out: conflict", self._next(process), {"denied": world.denied | process.tried}
            yield "times out: unknown", process._replace(phase=UNSURE), {}
        if self.bug == "counting an unread own position" and process.phase == SENT:
            landed = book.next_state(state, process.pending) >= 0
            chain = (*world.chain, process.pending) if landed else world.chain
            states = (*world.states, book.next_state(state, process.pending)) if landed else world.states
            more: dict[str, object] = {"acknowledged": world.acknowledged | {process.pending}}
            yield "is told a position", self._next(process), more | {"chain": chain, "states": states}

    def _answer(
        self, world: World, number: int, process: Process, state: int
    ) -> Iterator[tuple[str, Process, dict[str, object]]]:
        book, pending = self.book, process.pending
        if pending in world.chain:
            yield (
                "reads its own record: acknowledged",
                self._next(process),
                {"acknowledged": world.acknowledged | {pending}},
            )
            return
        if book.next_state(state, pending) >= 0:
            if self.bug == "not-found taken as failed":
                yield "does not find it: failed", self._next(process), {"denied": world.denied | process.tried}
            yield "sends the same bytes again", process._replace(phase=SENT), {}
            return
        if book.entries[process.grant].record.commit not in book.states[state].grants:
            more: dict[str, object] = {"denied": world.denied | process.tried}
            yield "is told that its grant ended", process._replace(phase=DOWN), more
            return
        expected = book.entries[pending].record.header.revision - 1
        if book.states[state].revision == expected and self.bug != "conflict against a control commit":
            command = book.entries[pending].command
            yield from self._sent(world, process, book.data(state, process.grant, self._key(number, process), command))
            return
        if not any(book.entries[n].record.header.revision == expected + 1 for n in world.chain):
            raise Violation("a conflict, and no data commit occupies the expected revision")
        # Told, the caller decides again on what it has read, under the same grant.
        again = process._replace(phase=GRANTED, pending=-1, tried=frozenset())
        yield "is told of a conflict", again, {"denied": world.denied | process.tried}

    def _next(self, process: Process) -> Process:
        """The command is answered; the next one, if there is one, comes to the same activation."""
        phase = GRANTED if process.command + 1 < self.bounds.commands else DOWN
        return process._replace(phase=phase, pending=-1, tried=frozenset(), command=process.command + 1)

    def _key(self, number: int, process: Process) -> str:
        return f"{'AB'[number]}{process.activation}"

    # What must hold in every world

    def _check(self, world: World) -> None:
        book, chain = self.book, set(world.chain)
        if not world.acknowledged <= chain:
            raise Violation("acknowledged, and not in the chain")
        if world.denied & chain:
            raise Violation("told that it failed, and it is in the chain")
        if world.acknowledged & world.denied:
            raise Violation("two answers for one record")
        commands = [book.entries[n].command for n in world.chain if book.entries[n].command]
        if len(set(commands)) < len(commands):
            raise Violation("one command stands twice")
        if world.chain:
            self._check_last(world)

    def _check_last(self, world: World) -> None:
        """The last link, by an account of the chain that does not ask the rule."""
        if len(set(world.chain)) < len(world.chain):
            raise Violation("a record stands twice")
        book, last = self.book, self.book.entries[world.chain[-1]]
        before = world.chain[:-1]
        links = [n for n in before if book.entries[n].kind != "fence"]
        head = book.entries[links[-1]].record.commit if links else book.states[book.start].head
        if last.kind != "fence" and last.record.header.prev != head:
            raise Violation("a record in the chain does not follow the one before")
        if last.kind == "data" and last.record.header.grant not in {
            book.entries[n].record.commit for n in _in_force(book, before)
        }:
            raise Violation("a commit under an ended grant")


def _in_force(book: Book, chain: tuple[int, ...]) -> tuple[int, ...]:
    """The grants in force after a chain, told without the rule: the last one (of an inbox, all) but for the fenced."""
    grants = [number for number in chain if book.entries[number].kind == "grant"]
    ended = {book.entries[number].target for number in chain}
    return tuple(number for number in (grants if book.inbox else grants[-1:]) if number not in ended)
