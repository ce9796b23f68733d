"""The planted bugs, in the order of docs/features.md."""

from tests.mutants.approvals import APPROVALS
from tests.mutants.blobs import BLOBS
from tests.mutants.budgets import BUDGETS, LIMITS
from tests.mutants.crashes import CRASHES
from tests.mutants.formats import FORMATS
from tests.mutants.graph import GRAPH
from tests.mutants.kafka import KAFKA
from tests.mutants.lanes import LANES
from tests.mutants.moving import MOVING
from tests.mutants.planting import Mutant
from tests.mutants.projections import PROJECTIONS
from tests.mutants.scale import LIFECYCLE, SCALE
from tests.mutants.shard import SHARD

_MESSAGES = "tests/unit/test_messages.py"
_SAGAS, _COURSE = "tests/unit/test_sagas.py", "tests/unit/test_course.py"
_SCHEDULES = "tests/unit/test_schedules.py"

MESSAGES = (
    Mutant(
        "signal-kept",
        "actors/messages.py",
        "self._mail = {key: list(messages) for key, messages in cell.state.mail.items()}",
        "self._mail: dict[str, list[Received]] = {}",
        (_MESSAGES,),
    ),
    Mutant(
        "message-once",
        "actors/messages.py",
        "            if not self.knows(message.id):\n",
        "            if True:\n",
        (_MESSAGES,),
    ),
    Mutant(
        "update-validated",
        "actors/messages.py",
        "                await self._validated(message)\n",
        "                pass\n",
        (_MESSAGES,),
    ),
    Mutant(
        "query-after-replay",
        "actors/messages.py",
        "        await cell.waits.replay.over()\n",
        "",
        (_MESSAGES,),
    ),
    Mutant(
        "losers-abandoned",
        "actors/stopping.py",
        '        self.waits.settle(self.spending.stopped(wait, Failure(ABANDONED, "")))\n',
        "",
        (_MESSAGES,),
    ),
    Mutant("saga-reversed", "actors/saga.py", "in reversed(self._undo):", "in self._undo:", (_SAGAS,)),
    Mutant(
        "saga-cancelled",
        "actors/stopping.py",
        "        if self.cleaning and not self.state.cancelling:\n",
        "        if False:\n",
        (_SAGAS,),
    ),
    Mutant(
        "cancel-with-outcomes",
        "actors/stopping.py",
        "            self.waits.note(self._cancelling, soon=False)\n",
        "            await self.waits.flush(self._cancelling)\n            self.waits.stop()\n",
        (_SAGAS,),
    ),
    Mutant(
        "paused-begins-nothing",
        "actors/task.py",
        "            await cell.unpaused()\n",
        "            pass\n",
        (_MESSAGES,),
    ),
    Mutant(
        "anew-with-empty-record",
        "actors/task_state.py",
        "            _drop(state, 0)\n",
        "",
        (_COURSE,),
    ),
    Mutant(
        "keys-differ-when-anew",
        "actors/work.py",
        'again = f"\\0{begun}" if begun else ""\n    return hashlib',
        'again = ""\n    return hashlib',
        (_COURSE,),
    ),
    Mutant(
        "patched-by-record",
        "actors/task.py",
        'if name in self._unpatched or (recorded and (recorded.kind, recorded.name) != ("value", name)):',
        "if False:",
        (_COURSE,),
    ),
    Mutant(
        "restarts-children",
        "actors/delegation.py",
        "for left in range(self._restarts, -1, -1):",
        "for left in range(0, -1, -1):",
        (_COURSE,),
    ),
    Mutant(
        "cycles-refused",
        "actors/delegation.py",
        "        if link(name, packed) in chain:\n",
        "        if False:\n",
        (_COURSE,),
    ),
)

_STEPS = "tests/unit/test_steps.py"
STEPS = (
    Mutant(
        "outcome-replayed",
        "actors/task.py",
        "            if settled is None:\n",
        "            if True:\n",
        ("tests/faults/test_recovery.py",),
    ),
    Mutant(
        "attempts-recorded",
        "actors/effects.py",
        "                trial.note(Attempted(step.wait, step.attempt, failure, next=due))\n",
        "",
        (_STEPS,),
    ),
    Mutant("only-some-errors", "actors/steps.py", "return isinstance(error, self.only)", "return True", (_STEPS,)),
    Mutant(
        "heartbeat-detail",
        "actors/task_state.py",
        "wait.detail = event.detail or wait.detail",
        "wait.detail = b''",
        (_STEPS,),
    ),
    Mutant(
        "silence-ends",
        "actors/effects.py",
        "            self._alarm = asyncio.get_running_loop().call_later(self._patience, self._stop)\n",
        "            pass\n",
        (_STEPS,),
    ),
    Mutant(
        "order-of-outcomes",
        "actors/waits.py",
        "        self._taken.append(number)\n",
        "",
        ("tests/unit/test_waits.py",),
    ),
    Mutant("in-a-process", "actors/effects.py", 'if options.where != "thread":', "if False:", (_STEPS,)),
    Mutant(
        "too-large-refused",
        "actors/packing.py",
        "if len(packed) > MAX_VALUE:",
        "if False:",
        ("tests/unit/test_tasks.py",),
    ),
    Mutant(
        "timers-not-early",
        "actors/task.py",
        "left = min(longest, (due - self._cell.now()) / 1_000_000)",
        "left = 0.0",
        ("tests/unit/test_testing_time.py",),
    ),
    Mutant(
        "deadline-from-request",
        "actors/cell.py",
        "min(within, within - (self.now() - self.state.requested_at) / 1_000_000)",
        "within",
        (_COURSE,),
    ),
    Mutant(
        "same-request-same-task",
        "agent_party/party.py",
        "        if not self._request_id:\n",
        "        if True:\n",
        ("tests/unit/test_party.py",),
    ),
)

CHECKPOINTS = (
    Mutant(
        "checkpoint-kept",
        "actors/task_state.py",
        "            state.checkpoint = event.state\n",
        "            pass\n",
        ("tests/unit/test_tasks.py",),
    ),
    Mutant(
        "snapshots-geometric",
        "actors/activation.py",
        "        if self._written * (2 if self.fold.growing else 1) >= self._snapshot_size:\n",
        "        if True:\n",
        ("tests/unit/test_snapshots.py",),
    ),
    Mutant(
        "snapshots-of-all-that-changed",
        "actors/task_state.py",
        "        yield from (settled.wait for settled in event.settled)\n",
        "",
        ("tests/unit/test_snapshots.py",),
    ),
    Mutant(
        "snapshots-in-a-row",
        "eventstore/snapshots.py",
        "                if after != (parts[-1].place if parts else NOWHERE):\n",
        "                if False:\n",
        ("tests/unit/test_snapshots.py",),
    ),
)

MODELS = (
    Mutant(
        "tools-are-steps",
        "actors/conversation.py",
        "answer = _numbered(await _call(task, model, name, call, request, told), len(answers))",
        "answer = _numbered(await call(told), len(answers))",
        ("tests/faults/test_models_crashes.py",),
    ),
)

SCHEDULES = (
    Mutant(
        "missed-times-once",
        "actors/schedules.py",
        "takewhile(lambda moment: moment > last, before)",
        "takewhile(lambda moment: moment >= last, before)",
        (_SCHEDULES,),
    ),
    Mutant(
        "schedule-in-its-zone",
        "actors/schedules.py",
        ".astimezone(_zone(zone))",
        ".astimezone(UTC)",
        (_SCHEDULES,),
    ),
)

_FORK, _TEAM, _BUNDLE = "tests/unit/test_fork.py", "tests/unit/test_fork_team.py", "tests/unit/test_bundle.py"
_VERSIONS = "tests/unit/test_versions.py"
TIME_TRAVEL = (
    Mutant(
        "effects-reused",
        "actors/fork.py",
        "        if outcome is not None:\n            settled.append",
        "        if outcome is None:\n            settled.append",
        (_FORK,),
    ),
    Mutant("fork-diverges", "actors/waits.py", "if number >= self._state.foreign or", "if number >= 0 or", (_FORK,)),
    Mutant(
        "fork-starts-clean",
        "actors/cell.py",
        "unborn = self.state.forked is not None and not self.state.runs",
        "unborn = False",
        (_FORK,),
    ),
    Mutant(
        "cut-is-closed",
        "actors/cut.py",
        "cut[stream] = revision - 1",
        "cut[stream] = revision",
        ("tests/unit/test_cut.py",),
    ),
    Mutant(
        "outcomes-have-sources",
        "actors/team.py",
        "yield from ((source.stream, source.revision) for source in sources if source)",
        "yield from ()",
        (_TEAM,),
    ),
    Mutant(
        "root-comes-last",
        "actors/teams.py",
        "return not root or (await log.state(root)).revision > 0",
        "return True",
        (_TEAM,),
    ),
    Mutant(
        "memory-of-the-fork",
        "actors/teams.py",
        'return f"{origin_of(agent)}{_MARK}{team}" if team else agent',
        "return agent",
        (_TEAM,),
    ),
    Mutant("bundle-verified", "actors/bundle.py", 'if report["finding"]:', "if False:", (_BUNDLE,)),
    Mutant("bundle-is-private", "actors/bundle.py", "0o600", "0o644", (_BUNDLE,)),
    Mutant(
        "differences-named", "actors/rehearsal.py", 'differs = str(replay.error or "")', 'differs = ""', (_VERSIONS,)
    ),
    Mutant(
        "newest-version",
        "actors/versions.py",
        "key=lambda agent: natural(agent.version)",
        "key=lambda agent: agent.version",
        (_VERSIONS,),
    ),
    Mutant(
        "version-kept",
        "actors/versions.py",
        "return next(kept, able[0] if able else None)",
        "return able[0] if able else None",
        (_VERSIONS,),
    ),
)

KIT = (
    Mutant(
        "kit-checks-purity",
        "agent_party/testing/deciders.py",
        "    if not alike(result, again) or repr(error) != repr(error_again):\n",
        "    if False:\n",
        ("tests/unit/test_testing_deciders.py",),
    ),
)

MUTANTS = (
    *STEPS,
    *CRASHES,
    *MESSAGES,
    *SCHEDULES,
    *CHECKPOINTS,
    *MODELS,
    *TIME_TRAVEL,
    *SCALE,
    *LIFECYCLE,
    *APPROVALS,
    *BUDGETS,
    *LIMITS,
    *KIT,
    *FORMATS,
    *LANES,
    *KAFKA,
    *SHARD,
    *BLOBS,
    *MOVING,
    *PROJECTIONS,
    *GRAPH,
)
