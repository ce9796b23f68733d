"""A broker's and the driver's errors become ours at the edge.

Two lists matter more than the rest. *Again*: a broker that answers so has done nothing yet, or cannot yet answer; it
is asked again. *Unsure*: what it answers to a produce request after the records may have been written.
"""

from typing import Any

from ..errors import StoreBusyError, StoreCorruptError, StoreError, StoreReadOnlyError

OFFSET_OUT_OF_RANGE, CORRUPT, UNKNOWN_TOPIC = 1, 2, 3
DUPLICATE_SEQUENCE, TOPIC_EXISTS, UNKNOWN_LEADER_EPOCH = 46, 36, 75
OUT_OF_ORDER_SEQUENCE, UNKNOWN_PRODUCER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID = 45, 59, 47, 49
NOT_SENT = -1_000
"""Not Kafka's: there was no connection, so the request stayed here."""
NOT_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_AFTER_APPEND, STORAGE = 6, 7, 19, 20, 56

AGAIN = frozenset(
    {NOT_SENT, UNKNOWN_TOPIC, 5, NOT_LEADER, TIMED_OUT, 9, 13, 14, 15}
    | {NOT_ENOUGH_REPLICAS, NOT_ENOUGH_AFTER_APPEND, STORAGE, 74, 75, 78, 100}
)
"""No leader yet, another leader, a leader that does not know it yet, too few replicas, a log directory that failed."""

UNSURE = frozenset({UNKNOWN_TOPIC, NOT_LEADER, TIMED_OUT, NOT_ENOUGH_AFTER_APPEND, STORAGE, -1})
"""A leader that is deposed, or loses its topic or disk, while it waits for its followers answers one of these."""

NEW_PRODUCER = frozenset({OUT_OF_ORDER_SEQUENCE, UNKNOWN_PRODUCER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID})
"""The broker has lost track of this producer's numbers (aiokafka #1017): a new producer id mends it."""

_REFUSALS: dict[int, tuple[type[StoreError], str]] = {
    29: (StoreReadOnlyError, "this user may not use the topic: grant READ, WRITE and DESCRIBE with kafka-acls.sh"),
    31: (StoreReadOnlyError, "this user may not do that to the cluster: grant it with kafka-acls.sh"),
    53: (StoreReadOnlyError, "this user may not write with idempotence: grant WRITE on the topic with kafka-acls.sh"),
    CORRUPT: (StoreCorruptError, "a batch is damaged on the broker's disk: see the broker's log"),
    10: (StoreError, "a record is larger than the topic admits: set max.message.bytes to 1048588 or more"),
    18: (StoreError, "a batch is larger than a segment of the topic: set segment.bytes to 1048576 or more"),
    87: (StoreError, "the topic refuses records without a key: it must not be compacted, set cleanup.policy=delete"),
    89: (StoreBusyError, "the broker limits this user's requests: raise its quota"),
}


def refused(code: int, where: str) -> StoreError:
    """Ours for an error code of a broker."""
    from aiokafka.errors import for_code

    if code == NOT_SENT:
        return StoreBusyError(f"{where}: there is no connection to its leader")
    found: Any = for_code(code)
    if known := _REFUSALS.get(code):
        return known[0](f"{where}: {known[1]} ({found.message})")
    return StoreError(f"{where}: {found.description or found.message} ({found.message})")


def unreachable(error: BaseException, where: str, seconds: float) -> StoreError:
    """Ours for a broker that did not answer in time."""
    return StoreBusyError(
        f"{where} did not answer within {seconds:.0f} s ({str(error) or type(error).__name__}): see that its brokers "
        "run and can be reached from here, then try again"
    )
