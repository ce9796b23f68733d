"""Planted bugs of the runtime at scale, and of agents' lifecycle."""

from tests.mutants.planting import Mutant

_PASSIVATION = ("tests/unit/test_passivation.py",)
_LIFECYCLE = ("tests/unit/test_lifecycle.py",)
_TALKS = ("tests/unit/test_models_talks.py",)
_PROJECTION = ("tests/unit/test_projection.py",)

_TURNS = ("tests/unit/test_turnstile.py",)

SCALE = (
    Mutant(
        "refused-and-not-next",
        "eventstore/backends/sqlite.py",
        "            if placed:\n                self._turns.let_go()\n",
        "            self._turns.let_go()\n",
        _TURNS,
    ),
    Mutant(
        "a-turn-that-never-ends",
        "eventstore/backends/sqlite.py",
        "        asyncio.get_running_loop().call_later(PATIENCE, self._let_go)\n",
        "        pass\n",
        _TURNS,
    ),
    Mutant(
        "catching-up-ends",
        "projections/worker.py",
        "        until = dict(self._log.index.sizes()) if until is None else until\n",
        "",
        _PROJECTION,
    ),
    Mutant(
        "only-what-is-new-is-recorded",
        "actors/talks.py",
        "        if before is None:\n            return number, request\n",
        "        if before is None or True:\n            return number, request\n",
        _TALKS,
    ),
    Mutant(
        "recorded-whole-goes-on",
        "actors/waits.py",
        "known.input != given and known.input == formerly():\n            given = known.input\n",
        "known.input != given and known.input == formerly():\n            pass\n",
        _TALKS,
    ),
    Mutant(
        "room-that-others-made",
        "actors/passivation.py",
        "if not await self._rest(live, 1) and all(task in self._host.cells for task in live):",
        "if not await self._rest(live, 1):",
        _PASSIVATION,
    ),
    Mutant(
        "a-question-does-not-take-up-what-is-paused",
        "actors/calls.py",
        "                    while not await self._is_left_alone(task) and (cell := await self._awake(task)):\n",
        "                    while cell := await self._awake(task):\n",
        _LIFECYCLE,
    ),
    Mutant(
        "paused-agents-tasks-answer",
        "actors/calls.py",
        "        if chosen(self._host.code, before.state):\n",
        "        if self._host.handler_for(before.state):\n",
        _LIFECYCLE,
    ),
    Mutant(
        "a-host-on-ray-drains",
        "cluster/host_actor.py",
        "        before_threads_end(self._end)\n",
        "",
        ("tests/cluster/test_ending.py",),
    ),
    Mutant(
        "passivated-without-a-trace",
        "actors/cell.py",
        "        self.drop()\n        await self._stop_run()\n\n    def child(",
        "        await self._stop_run()\n\n    def child(",
        _PASSIVATION,
    ),
    Mutant(
        "nothing-missed-while-it-goes",
        "actors/passivation.py",
        "        if await self._has_news(cell):\n",
        "        if False:\n",
        _PASSIVATION,
    ),
    Mutant(
        "grant-kept",
        "actors/passivation.py",
        "return writer if writer and list((await log.state(stream)).grants) == [writer.grant] else None",
        "return None",
        _PASSIVATION,
    ),
    Mutant(
        "our-own-passivated-are-woken",
        "actors/supervisor.py",
        "        ours = holder == host.presence.holder\n",
        "        ours = False\n",
        _PASSIVATION,
    ),
    Mutant(
        "due-out-of-memory",
        "actors/passivation.py",
        "        if due:\n            self._host.at(due)\n",
        "",
        _PASSIVATION,
    ),
    Mutant(
        "deadline-out-of-memory",
        "projections/task_rows.py",
        '[row["deadline"]] if row.get("deadline") else []',
        "[]",
        (*_PASSIVATION, *_PROJECTION),
    ),
    Mutant(
        "childs-end-wakes-after-a-restart",
        "projections/task_rows.py",
        "            ended[wait] = True\n",
        "            pass\n",
        _PASSIVATION,
    ),
    Mutant(
        "a-round-looks-at-what-could-run",
        "projections/task_rows.py",
        "return f\"{status} {row.get('revision', 0)} {mail} {','.join(moved)}\" if mail or moved else \"\"",
        "return f\"{status} {row.get('revision', 0)} {mail}\"",
        _PASSIVATION,
    ),
    Mutant(
        "orphans-known",
        "projections/agents_and_tasks.py",
        '        writes += [Put("orphan", child, {"parent": task}) for child in task_rows.left_behind(old)]\n',
        "        pass\n",
        (*_PROJECTION, "tests/unit/test_supervision.py"),
    ),
    Mutant(
        "silent-longest-goes-first",
        "actors/passivation.py",
        "                live = list(self._touched)\n",
        "                live = list(self._touched)[::-1]\n",
        _PASSIVATION,
    ),
    Mutant(
        "drain-lets-effects-end",
        "actors/host.py",
        "        await drained(self.cells, limit)\n",
        "",
        _PASSIVATION,
    ),
    Mutant(
        "effects-by-turns",
        "actors/turns.py",
        "                self._waiting[whose] = places  # behind the others\n",
        "                self._waiting[whose] = places\n                self._waiting.move_to_end(whose, last=False)\n",
        _PASSIVATION,
    ),
    Mutant(
        "long-replay-yields",
        "actors/task.py",
        "            if recorded and number % _AT_ONCE == _AT_ONCE - 1:\n",
        "            if False:\n",
        _PASSIVATION,
    ),
    Mutant(
        "overlay-of-a-batch",
        "projections/ahead.py",
        "                apply_to(self._read, write)\n            else:\n",
        "                pass\n            else:\n",
        _PROJECTION,
    ),
)

LIFECYCLE = (
    Mutant(
        "paused-agent-begins-nothing",
        "actors/cell.py",
        "while (self.state.paused or self.is_held_back) and not self.closed:",
        "while self.state.paused and not self.closed:",
        _LIFECYCLE,
    ),
    Mutant(
        "new-tasks-wait",
        "actors/host.py",
        "[agent for agent in self._able() if not self.lifecycle.refusal(agent.name, state)]",
        "self._able()",
        _LIFECYCLE,
    ),
    Mutant(
        "wish-is-checked",
        "actors/registrations.py",
        "            key = self._doorman.person_key(person_of(event))\n",
        '            key = msgspec.msgpack.decode(event.statement)["key"]\n',
        _LIFECYCLE,
    ),
    Mutant(
        "drained-is-completed",
        "actors/registrations.py",
        "            if not load.running and not load.waiting:\n",
        "            if False:\n",
        _LIFECYCLE,
    ),
    Mutant(
        "retired-for-good",
        "actors/agent_state.py",
        '    if state.phase == "archived":\n',
        "    if False:\n",
        _LIFECYCLE,
    ),
    Mutant(
        "memory-by-type",
        "actors/memory.py",
        "        if where is None or where(value):\n",
        "        if True:\n",
        _LIFECYCLE,
    ),
    Mutant(
        "errors-counted",
        "projections/agents_and_tasks.py",
        '[time, task, new["status"]]]',
        '[time, task, "completed"]]',
        _LIFECYCLE,
    ),
)
