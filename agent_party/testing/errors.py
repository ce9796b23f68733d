"""What the test kit itself raises.

TestKitError
├── HangError               nothing happens any more, or it takes too long; says what everybody waits for
├── RealInputOutputError    a socket or a program under virtual time
└── NotVirtualError         a party of the kit outside of virtual time
"""


class TestKitError(Exception):
    """Base of the kit's own errors. What it finds wrong in the code under test is an `AssertionError`."""

    __test__ = False


class HangError(TestKitError):
    """Nothing happens any more, or a limit of time has passed. The text says what everybody waits for."""


class RealInputOutputError(TestKitError):
    """Something real was asked for where only the clock is."""


class NotVirtualError(TestKitError):
    """A party of the kit lives in virtual time only."""
