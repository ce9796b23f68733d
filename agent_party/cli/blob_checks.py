"""The checks of `party doctor` on blobs: a folder, or a bucket and the way to it. They need no open log."""

import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .doctor import FINE, NOTE, PROBLEM, Finding

if TYPE_CHECKING:
    from ..cluster.settings import Settings

SKEW = 60.0
"""Seconds between the server's clock and ours of which it is said; from 15 minutes on the server refuses."""
_COUNTED = 1_000


async def look(settings: "Settings") -> list[Finding]:
    """Whether the blobs can be used. Nothing is made that is not there, but a note that is taken away again."""
    from ..actors.errors import PartyError
    from ..cluster.settings import scheme_of
    from ..cluster.stores import open_blobs
    from ..eventstore.errors import EventStoreError

    if scheme_of(settings.blobs) != "s3":
        return [_folder(settings)]
    try:
        store: Any = open_blobs(settings)
        async with contextlib.aclosing(_Closing(store)):
            return [finding async for finding in _bucket(store)]
    except (PartyError, EventStoreError) as error:
        return [Finding("blobs", PROBLEM, f"{type(error).__name__}: {error}")]


class _Closing:
    def __init__(self, store: Any) -> None:
        self.aclose = store.close


def _folder(settings: "Settings") -> Finding:
    folder = settings.blobs_path
    if not folder.exists():
        return Finding("blobs", FINE, "none yet")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding("blobs", PROBLEM, f"{folder} may not be read and written", f"chmod -R u+rwX {folder}")
    return Finding("blobs", FINE, f"{folder}: {sum(1 for _ in folder.glob('??/*')):,} blobs")


async def _bucket(store: Any) -> AsyncIterator[Finding]:
    from ..eventstore.errors import StoreError

    try:
        skew = await store.clock() - time.time()
    except StoreError as error:
        if not store.may_be_made(error):
            raise
        yield Finding("blobs", NOTE, f"there is no {store.address} yet", "the first blob makes it")
        return
    if abs(skew) > SKEW:
        said = f"the clock of {store.address.host} is {skew:+.0f} s from this machine's"
        yield Finding("blobs", NOTE, said, "set the clock, for example by NTP: from 15 minutes on the server refuses")
    count = 0
    async for _ in store.names():
        count += 1
        if count == _COUNTED:
            break
    await store.note("doctor", b"")
    await store.remove_note("doctor")
    more = " or more" if count == _COUNTED else ""
    yield Finding("blobs", FINE, f"{store.address}: {count:,}{more} blobs, can be read, written and deleted")
    if not store.address.secure and not store.address.on_this_machine:
        yield Finding("blobs", NOTE, "the way to it is not encrypted", "https in endpoint=; what is sent is sealed")
