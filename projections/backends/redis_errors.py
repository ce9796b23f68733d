"""Redis' errors become ours at the edge. A URL is shown without its password."""

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from redis import exceptions as redis

from ...eventstore.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)


def shown(url: str) -> str:
    """A URL without whatever lets one in."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def translate(error: Exception, url: str) -> StoreError:
    """Ours for a driver's error."""
    where, text = shown(url), str(error)
    if isinstance(error, redis.AuthenticationError) or text.startswith(("WRONGPASS", "NOAUTH", "ERR AUTH")):
        return StoreError(
            f"{where}: Redis does not let this user in: put the name and the password into the URL, "
            f"{urlsplit(url).scheme}://user:password@host ({text})"
        )
    if isinstance(error, redis.NoPermissionError) or text.startswith("NOPERM"):
        return StoreReadOnlyError(f"{where}: this Redis user may not do that: give it +@all on its keys ({text})")
    if isinstance(error, redis.ReadOnlyError) or text.startswith("READONLY"):
        return StoreReadOnlyError(f"{where}: this Redis is a read-only copy: name the one that is written ({text})")
    if isinstance(error, redis.OutOfMemoryError) or text.startswith("OOM"):
        return StoreFullError(f"{where}: Redis has no memory left: raise maxmemory, nothing was done ({text})")
    if text.startswith(("PARTYKIND", "WRONGTYPE")):
        return StoreCorruptError(f"{where}: somebody has put something else there: `party projection rebuild` ({text})")
    if isinstance(error, redis.BusyLoadingError):
        return StoreBusyError(f"{where}: Redis is still loading its file: try again")
    if isinstance(error, redis.MaxConnectionsError):
        return StoreBusyError(f"{where}: Redis has too many clients: try again ({text})")
    if isinstance(error, redis.TimeoutError | TimeoutError | asyncio.TimeoutError):
        return StoreBusyError(f"{where}: Redis did not answer in time: it may still do what it was asked")
    if isinstance(error, redis.ConnectionError | OSError):
        return StoreError(f"{where}: Redis cannot be reached: is it running, and is the address right? ({text})")
    return StoreError(f"{where}: Redis: {text or type(error).__name__}")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise our errors for the driver's."""
    try:
        yield
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise translate(error, url) from error
