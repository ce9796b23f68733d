"""The real servers, for the tests that need them; and how the tests are shared out between processes."""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from agent_party.eventstore.backends.kafka_address import address
from tests import services_kit
from tests.kafka_kit import Place, name
from tests.services_kit import Services
from tests.together import Sharing, begun

# Nothing is timed in a test, making its examples neither: other work may stand beside it.
settings.register_profile("party", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("party")


def pytest_configure(config: pytest.Config) -> None:
    """One folder for the services of the run, whichever of its processes starts them. What a killed run left ends."""
    if not hasattr(config, "workerinput"):
        services_kit.end_left_behind()
        os.environ[services_kit.FOLDER] = services_kit.new_folder()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the servers said they are."""
    for line in services_kit.told():
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The run is over for all of its processes: the servers that it started end."""
    if not hasattr(config, "workerinput"):
        services_kit.end()


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sharing:
    """The processes share the tests by `tests/together.py`."""
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is begun first."""
    items.sort(key=lambda item: begun(item.nodeid))


@pytest.fixture(scope="session")
def services() -> Services:
    """Kafka, Neo4j, Redis and MinIO on loopback, started when a test first asks for them, for the whole run.

    ``PARTY_TEST_SERVICES`` names a JSON file of running ones, which are used instead.
    """
    return services_kit.given() or services_kit.started()


@pytest.fixture
async def topic(services: Services) -> AsyncIterator[Place]:
    """A Kafka topic of one partition: called, it opens one more tape on it. Gone after the test."""
    topic = Place(address(f"{services.journal(name())}?partitions=1"))
    yield topic
    await topic.close()
