"""Which tests of this folder run in virtual time."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.faults.play import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Those of a module that says so: time passes only when nothing else is to be done, however slow the machine is."""
    virtual = getattr(item.getparent(pytest.Module).obj, "IN_VIRTUAL_TIME", False)  # type: ignore[union-attr]
    return {"virtual": VirtualLoop} if virtual else {"real": asyncio.new_event_loop}
