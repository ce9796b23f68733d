"""The real servers, for the tests that need them."""

import json
import os
from pathlib import Path

import pytest

from tests.services_kit import Services


@pytest.fixture(scope="session")
def services() -> Services:
    """Kafka, Neo4j, Redis and MinIO on loopback. ``PARTY_TEST_SERVICES`` names a JSON file of running ones."""
    return Services(**json.loads(Path(os.environ["PARTY_TEST_SERVICES"]).read_text()))
