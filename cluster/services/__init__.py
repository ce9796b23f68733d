"""Real servers on loopback, natively: Kafka, Neo4j, Redis and MinIO, as ``party services`` starts them.

    running = services.start(Path(".party/services"), brokers=3)
    running.settings              # journal, graph, views, blobs
    running.broker(2).kill()

Programs are pinned, checked and kept in the user's cache; data, logs, passwords and pids lie in the folder.
"""

from .errors import ArtifactError, DifferentServicesError, FetchError, MissingProgramError, ServiceError
from .nodes import fetch
from .running import NAMES, Broker, Running, Secure, Status, attach, settings_of, start, stop

__all__ = [
    "NAMES",
    "ArtifactError",
    "Broker",
    "DifferentServicesError",
    "FetchError",
    "MissingProgramError",
    "Running",
    "Secure",
    "ServiceError",
    "Status",
    "attach",
    "fetch",
    "settings_of",
    "start",
    "stop",
]
