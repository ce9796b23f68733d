"""Redis in tests: keys of a test's own in the shared server, gone when it ends."""

import contextlib
import uuid
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from agent_party.projections.backends.views_redis import RedisViews
from tests.services_kit import Services


def own_url(services: Services) -> str:
    """The URL of views that nobody else uses."""
    return f"{services.redis}?prefix=test-{uuid.uuid4().hex}"


@contextlib.asynccontextmanager
async def redis_views(services: Services, log: bytes = b"log") -> AsyncIterator[RedisViews]:
    """Empty views, whose keys are deleted at the end."""
    views = RedisViews(own_url(services), log)
    try:
        yield views
    finally:
        await forget(services, views)
        await views.close()


async def forget(services: Services, views: RedisViews) -> None:
    """Delete the keys of views."""
    async with Redis.from_url(services.redis) as redis:
        async for key in redis.scan_iter(match=f"{views.prefix}*", count=1_000):
            await redis.unlink(key)
