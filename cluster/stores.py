"""From a store's URL to the store: the one place that knows which backend stands behind which scheme."""

import os

from ..actors.errors import ConfigurationError
from ..eventstore.backends.blob_folder import FolderBlobs
from ..eventstore.backends.sqlite import SqliteTape
from ..eventstore.blobs import Blobs
from ..eventstore.errors import StoreError
from ..eventstore.founding import EMBEDDED_SLICES
from ..eventstore.tape import Tape
from ..eventstore.verify import Identity
from ..projections.backends.views_sqlite import SqliteViews
from ..projections.graph import Graph
from ..projections.projection import Views
from .settings import Settings, kafka_address, scheme_of

KAFKA_SLICES = 1_024
"""Room to spread a log over more partitions later."""


def open_tape(settings: Settings) -> Tape:
    """The tape of the journal."""
    match scheme_of(settings.journal):
        case "sqlite":
            return SqliteTape(settings.log_path)
        case "kafka" | "kafka+ssl":
            from ..eventstore.backends.kafka import KafkaTape

            return KafkaTape(kafka_address(settings.journal))
        case scheme:
            raise _not_yet("journal", scheme)


async def held(settings: Settings) -> Identity | None:
    """Which log the journal's store says it holds; None where there is none, and then nothing is made."""
    if settings.embedded and not settings.log_path.exists():
        return None
    tape = open_tape(settings)
    try:
        return await tape.identity()
    finally:
        await tape.close()


def slices_of(settings: Settings) -> int:
    """How many slices a log has that is founded there."""
    return EMBEDDED_SLICES if settings.embedded else KAFKA_SLICES


def open_blobs(settings: Settings) -> Blobs:
    """Where large payloads lie."""
    match scheme_of(settings.blobs):
        case "" | "file":
            return FolderBlobs(settings.blobs_path)
        case "s3":
            return _s3(settings.blobs)
        case scheme:
            raise _not_yet("blobs", scheme)


def open_views(settings: Settings, log_id: bytes) -> Views:
    """The views of this log; those of another one that lie in the file are thrown away, in Redis they are refused."""
    match scheme_of(settings.views):
        case "" | "sqlite":
            return SqliteViews(settings.views_path, log_id)
        case _:
            try:
                from ..projections.backends.views_redis import RedisViews
            except ImportError as error:
                raise ConfigurationError(
                    f"views in Redis need the driver ({error}): pip install 'agent-party-runtime[redis]'"
                ) from error
            return RedisViews(settings.views, log_id)


def open_graph(settings: Settings, log_id: bytes) -> Graph:
    """The graph of this log. Nothing is opened, and no server is asked, before the graph is."""
    match scheme_of(settings.graph):
        case "" | "ladybug":
            from ..projections.backends.graph_ladybug import LadybugGraph

            return LadybugGraph(settings.graph_path, log_id)
        case _:
            from ..projections.backends.graph_neo4j import Neo4jGraph
            from ..projections.backends.neo4j_connection import Connection

            return Neo4jGraph(Connection(settings.graph, os.environ.get("PARTY_GRAPH_PASSWORD", "")), log_id)


def _s3(url: str) -> Blobs:
    try:
        from ..eventstore.backends.blob_s3 import S3Blobs
    except ImportError as error:
        raise ConfigurationError(
            f"blobs on s3:// need minio, which cannot be imported ({error}): pip install 'agent-party-runtime[s3]'"
        ) from error
    try:
        return S3Blobs(url)
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def _not_yet(setting: str, scheme: str) -> ConfigurationError:
    return ConfigurationError(f"{setting}: {scheme}:// is not supported by this version")
