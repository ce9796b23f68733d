"""The real servers, for the tests that need them; and how the tests are shared out between processes."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from agent_party.eventstore.backends.kafka_address import address
from tests.kafka_kit import Place, name
from tests.services_kit import Services
from tests.together import Sharing, begun

settings.register_profile("party", deadline=None)  # nothing is timed in a test: other work may stand beside it
settings.load_profile("party")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sharing:
    """The processes share the tests by `tests/together.py`."""
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is begun first."""
    items.sort(key=lambda item: begun(item.nodeid))


@pytest.fixture(scope="session")
def services() -> Services:
    """Kafka, Neo4j, Redis and MinIO on loopback. ``PARTY_TEST_SERVICES`` names a JSON file of running ones."""
    return Services(**json.loads(Path(os.environ["PARTY_TEST_SERVICES"]).read_text()))


@pytest.fixture
async def topic(services: Services) -> AsyncIterator[Place]:
    """A Kafka topic of one partition: called, it opens one more tape on it. Gone after the test."""
    topic = Place(address(f"{services.journal(name())}?partitions=1"))
    yield topic
    await topic.close()
