"""What goes wrong in a run, and where: at which cut point of which life."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

Kind = Literal["append", "effect"]
When = Literal["before", "after"]


class Cut(NamedTuple):
    """A point at which a process can die: before or after an append reaches the tape, or an effect's function runs.

    ``number`` counts a life's cut points from 1, ``life`` the processes of a run from 1.
    """

    life: int
    number: int
    kind: Kind
    when: When
    name: str

    def __str__(self) -> str:
        return f"cut {self.number} of life {self.life}: {self.when} {self.kind} {self.name}"


class StepFault(NamedTuple):
    """What becomes of the ``call``-th call of a step, counted over a whole run: ``error``, or None for a time-out."""

    step: str
    call: int
    error: BaseException | None


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong. Each method gives a plan with one fault more; a plan can be used any number of times.

    ``dies``, ``refused``, ``unanswered``: pairs of life and number of a cut point. ``slow``: seconds that each append
    takes. ``twice``: each message (a request, a child's request, a cancellation, a command, a person's statement) is
    delivered twice.
    """

    dies: frozenset[tuple[int, int]] = frozenset()
    refused: frozenset[tuple[int, int]] = frozenset()
    unanswered: frozenset[tuple[int, int]] = frozenset()
    steps: tuple[StepFault, ...] = ()
    slow: float = 0.0
    twice: bool = False

    def crash(self, cut: Cut | int, *, life: int = 1) -> "Faults":
        """The process dies at a cut point; another one goes on."""
        return msgspec.structs.replace(self, dies=self.dies | {_place(cut, life)})

    def refuse(self, cut: Cut | int, *, life: int = 1) -> "Faults":
        """The store refuses an append for once: nothing is written. ``cut``: the point before or after the append."""
        return msgspec.structs.replace(self, refused=self.refused | {_append(cut, life, "before")})

    def lose_answer(self, cut: Cut | int, *, life: int = 1) -> "Faults":
        """An append is stored, and its writer is not told."""
        return msgspec.structs.replace(self, unanswered=self.unanswered | {_append(cut, life, "after")})

    def fail_step(self, step: str, *, call: int = 1, error: BaseException | None = None) -> "Faults":
        """A step's function raises at its n-th call, instead of running. ``step``: the function's name."""
        fault = StepFault(step, call, error or RuntimeError(f"call {call} of {step} was made to fail"))
        return msgspec.structs.replace(self, steps=(*self.steps, fault))

    def time_out_step(self, step: str, *, call: int = 1) -> "Faults":
        """A step's function does not return, at its n-th call, before its time is up."""
        return msgspec.structs.replace(self, steps=(*self.steps, StepFault(step, call, None)))

    def slow_store(self, seconds: float) -> "Faults":
        """Each append takes this long."""
        return msgspec.structs.replace(self, slow=seconds)

    def deliver_twice(self) -> "Faults":
        """Each message comes twice."""
        return msgspec.structs.replace(self, twice=True)

    def step_fault(self, step: str, call: int) -> StepFault | None:
        """What is planned for a call of a step, whose qualified name ends with the planned one."""
        return next((f for f in self.steps if f.call == call and f".{step}".endswith(f".{f.step}")), None)


def double_crashes(cuts: Sequence[Cut], count: int, seed: int) -> list[Faults]:
    """Plans in which a first and a second process die, each at a random point; the second may end before its own."""
    chance = random.Random(seed)
    numbers = [cut.number for cut in cuts]
    return [Faults().crash(chance.choice(numbers)).crash(chance.choice(numbers), life=2) for _ in range(count)]


def _place(cut: Cut | int, life: int) -> tuple[int, int]:
    return (cut.life, cut.number) if isinstance(cut, Cut) else (life, cut)


def _append(cut: Cut | int, life: int, when: When) -> tuple[int, int]:
    """The place of one side of an append, whichever side was named."""
    if not isinstance(cut, Cut):
        return life, cut
    if cut.kind != "append":
        raise ValueError(f"{cut} is no append")
    return cut.life, cut.number + {("before", "after"): 1, ("after", "before"): -1}.get((cut.when, when), 0)
