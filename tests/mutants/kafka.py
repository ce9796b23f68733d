"""Planted bugs of the Kafka tape, and of checkpoints over several lanes."""

from tests.mutants.planting import Mutant

_PRODUCER, _BATCH = ("tests/backends/test_kafka_producer.py",), ("tests/unit/test_kafka_batch.py",)

KAFKA = (
    Mutant(
        "kafka-doubt-is-kept",
        "eventstore/backends/kafka_producer.py",
        "                if code in codes.UNSURE or code in codes.NEW_PRODUCER:\n",
        "                if False:\n",
        _PRODUCER,
    ),
    Mutant(
        "kafka-producer-given-up",
        "eventstore/backends/kafka_producer.py",
        "        if self._producer is producer:\n            self._producer = None\n",
        "        return\n",
        _PRODUCER,
    ),
    Mutant(
        "kafka-same-numbers-again",
        "eventstore/backends/kafka_producer.py",
        "                await self._client.pause(until, code, self._where(lane))\n",
        "                await self._client.pause(until, code, self._where(lane))\n                raise _Lost\n",
        _PRODUCER,
    ),
    Mutant(
        "kafka-batches-are-bounded",
        "eventstore/backends/kafka_batch.py",
        "DefaultRecordBatchBuilder(2, 0, 0, producer, epoch, sequence, MAX_BATCH)",
        "DefaultRecordBatchBuilder(2, 0, 0, producer, epoch, sequence, 16 * MAX_BATCH)",
        _PRODUCER,
    ),
    Mutant(
        "kafka-far-places-are-the-ones-asked-for",
        "eventstore/backends/kafka_fetching.py",
        "        return page if page.entries and page.entries[0].place == places[0] else None\n",
        "        return page\n",
        ("tests/backends/test_kafka_far.py",),
    ),
    Mutant(
        "kafka-deleted-beginning-is-seen-from-afar",
        "eventstore/backends/kafka_fetching.py",
        "            return None\n        self.learn(lane, answer)\n",
        "            return None\n",
        ("tests/backends/test_kafka_far.py",),
    ),
    Mutant(
        "kafka-compressed-is-foreign",
        "eventstore/backends/kafka_batch.py",
        "    if magic != 2 or attributes & _CODEC:\n",
        "    if magic != 2:\n",
        _BATCH,
    ),
    Mutant(
        "kafka-own-batch-is-compared",
        "eventstore/backends/kafka_batch.py",
        " and not self.founds and raw.startswith(self.made, first + _MAGIC)\n",
        " and not self.founds\n",
        _BATCH,
    ),
    Mutant(
        "kafka-markers-are-nothing",
        "eventstore/backends/kafka_batch.py",
        "        elif last > offset and not (magic == 2 and attributes & _CONTROL):\n",
        "        elif last > offset:\n",
        _BATCH,
    ),
    Mutant(
        "kafka-whose-topic",
        "eventstore/backends/kafka.py",
        "        if found is None or found[1] != mine:\n",
        "        if found is None:\n",
        ("tests/conformance/test_tape.py",),
    ),
    Mutant(
        "kafka-silence-by-the-brokers-clock",
        "cluster/kafka_presence.py",
        "        return self._now - last < DEAD\n",
        "        return False\n",
        ("tests/backends/test_kafka_presence.py",),
    ),
    Mutant(
        "checkpoint-of-each-slice",
        "eventstore/checkpoints.py",
        "                checkpoint = _larger(kept, checkpoint)\n",
        "                checkpoint = max(kept, checkpoint, key=lambda one: one.size)\n",
        ("tests/unit/test_checkpoints.py",),
    ),
)
