"""The test kit: deciders by given/when/then, whole parties in virtual time, and crashes at every point. See
docs/testing.md. Nothing of the runtime imports it."""

from .asserting import assert_effects_once, assert_same_outcome, assert_timers
from .clock import VirtualLoop
from .deciders import given
from .errors import HangError, NotVirtualError, RealInputOutputError, TestKitError
from .faults import Cut, Faults, double_crashes
from .running import run, virtual
from .scenario import Run, Scenario
from .world import World, WorldParty, party, world

__all__ = [
    "Cut",
    "Faults",
    "HangError",
    "NotVirtualError",
    "RealInputOutputError",
    "Run",
    "Scenario",
    "TestKitError",
    "VirtualLoop",
    "World",
    "WorldParty",
    "assert_effects_once",
    "assert_same_outcome",
    "assert_timers",
    "double_crashes",
    "given",
    "party",
    "run",
    "virtual",
    "world",
]
