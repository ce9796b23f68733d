"""The real servers that tests use: where each one listens. Started once for the run (see `tests/conftest.py`)."""

from typing import NamedTuple


class Services(NamedTuple):
    """``kafka``: bootstrap servers, ``host:port``. The others are URLs with whatever is needed to enter.

    Tests share the servers, so each makes what it uses under a name of its own: a topic, a bucket, a Redis prefix.
    Neo4j's one database is emptied by the test that uses it.
    """

    kafka: str
    neo4j: str
    redis: str
    s3: str

    def journal(self, topic: str) -> str:
        """The journal URL of a topic."""
        return f"kafka://{self.kafka}/{topic}"

    def blobs(self, bucket: str) -> str:
        """The blobs URL of a bucket: ``s3`` is ``http://key:secret@host:port``."""
        scheme, _, rest = self.s3.partition("://")
        login, _, address = rest.rpartition("@")
        return f"s3://{login}@{bucket}?endpoint={scheme}://{address}"
