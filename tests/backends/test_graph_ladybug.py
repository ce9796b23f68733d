"""What the embedded graph alone promises: several processes at one file, a damaged one, another log's, a shut door."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent_party.eventstore.errors import StoreBusyError, StoreCorruptError, StoreError
from agent_party.projections.backends import ladybug_file
from agent_party.projections.backends.graph_ladybug import LadybugGraph
from agent_party.projections.backends.ladybug_door import refuse
from agent_party.projections.graph import Edge, Node, Ref
from agent_party.projections.graph_errors import QueryError, ReadOnlyError
from agent_party.projections.questions import at
from tests.graph_kit import RELATIONSHIPS, Life, add, place, project
from tests.unit.world import until

LOG = b"l" * 32
ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


def start(folder: Path, name: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", COUNTING, str(folder), name, "12"], cwd=ROOT)


COUNTING = """
import asyncio, sys
from pathlib import Path
from agent_party.projections.backends.graph_ladybug import LadybugGraph
from agent_party.projections.graph import Node
from tests.graph_kit import RELATIONSHIPS

async def main(name, many):
    graph = LadybugGraph(Path(sys.argv[1]), b"l" * 32)
    done = 0
    while done < many:
        now = await graph.checkpoint(RELATIONSHIPS)
        node = Node("tool", f"{name}{done}")
        done += bool(await graph.apply(RELATIONSHIPS, now, {0: now.sizes.get(0, 0) + 1}, [node]))
    await graph.close()

asyncio.run(main(sys.argv[2], int(sys.argv[3])))
"""


async def test_processes_share_a_file_and_each_batch_counts_once(tmp_path: Path) -> None:
    running = [start(tmp_path, name) for name in ("a", "b")]
    try:
        graph = LadybugGraph(tmp_path, LOG)
        while any(process.poll() is None for process in running):
            names = {row.ref.id for row in await graph.nodes([Ref("tool", f"{n}{i}") for n in "ab" for i in range(12)])}
            now = await graph.checkpoint(RELATIONSHIPS)
            assert len(names) <= now.sizes.get(0, 0) <= 24, "what is read is what stands at a checkpoint before"
            await asyncio.sleep(0.01)
        assert [process.wait() for process in running] == [0, 0]
        assert (await graph.checkpoint(RELATIONSHIPS)).sizes == {0: 24}
        assert len(await graph.nodes([Ref("tool", f"{n}{i}") for n in "ab" for i in range(12)])) == 24
        await graph.close()
    finally:
        for process in running:
            process.kill()
            process.wait()


async def test_who_waits_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = LadybugGraph(tmp_path, LOG), LadybugGraph(tmp_path, LOG)
    await add(one, Node("agent", "a", place()))
    monkeypatch.setattr(ladybug_file, "LINGER", 600)
    monkeypatch.setattr(ladybug_file, "HOLD", 600)
    await add(one, Node("agent", "b", place(1)))
    with monkeypatch.context() as impatient:
        impatient.setattr(ladybug_file, "DEADLINE", 0.2)
        with pytest.raises(StoreBusyError, match="others have been at it"):
            await two.checkpoint(RELATIONSHIPS)
    await one.close()
    assert (await two.checkpoint(RELATIONSHIPS)).sizes == {0: 2}
    await two.close()


async def test_readers_who_take_turns_keep_no_writer_out(tmp_path: Path) -> None:
    graphs = [LadybugGraph(tmp_path, LOG) for _ in range(4)]
    await add(graphs[0], Node("agent", "a", place()))
    await graphs[0].close()
    written = False

    async def read(graph: LadybugGraph, late: float) -> int:
        await asyncio.sleep(late)  # so that one begins before the other ends
        looks = 0
        while not written:
            assert (await graph.checkpoint(RELATIONSHIPS)).sizes[0] in (1, 2)
            looks += 1
        return looks

    readers = [asyncio.ensure_future(read(graph, late / 3)) for late, graph in enumerate(graphs[1:])]
    await asyncio.sleep(ladybug_file.HOLD)
    try:
        await add(graphs[0], Node("agent", "b", place(1)))
    finally:
        written = True
        assert min(await asyncio.gather(*readers)) > 0
        for graph in graphs:
            await graph.close()


async def test_a_file_is_let_go_soon_after_it_was_used(tmp_path: Path) -> None:
    one, two = LadybugGraph(tmp_path, LOG), LadybugGraph(tmp_path, LOG)
    await add(one, Node("agent", "a", place()))
    assert (await two.checkpoint(RELATIONSHIPS)).sizes == {0: 1}, "else it is told, after its deadline, that it is busy"
    await one.close()
    await two.close()


async def test_whoever_looks_beside_leaves_no_thread(tmp_path: Path) -> None:
    others = set(threading.enumerate())  # whose last ones may end meanwhile

    def threads() -> int:
        return sum(thread.name == "ladybug" for thread in set(threading.enumerate()) - others)

    graph = LadybugGraph(tmp_path, LOG)
    for number in range(5):
        await add(graph, Node("agent", f"a{number}", place()))
        await add(graph.beside(), Node("agent", f"a{number}", place()))
        live, scratch = await graph.checkpoint(RELATIONSHIPS), await graph.beside().checkpoint(RELATIONSHIPS)
        assert await graph.swap(RELATIONSHIPS, live, scratch)
        await until(lambda: threads() <= 2)  # the last one may not have ended yet
    await graph.close()
    await until(lambda: threads() == 0)


async def test_the_graph_of_another_log_is_thrown_away(tmp_path: Path) -> None:
    one, two = LadybugGraph(tmp_path, LOG), LadybugGraph(tmp_path, b"m" * 32)
    await add(one, Node("agent", "a", place()))
    await one.close()
    assert (await two.checkpoint(RELATIONSHIPS)).sizes == {}
    assert (await at(two)).nodes == []
    await add(two, Node("agent", "b", place()))
    assert [row.ref.id for row in (await at(two)).nodes] == ["b"]
    await two.close()


async def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "relationships.lbug").write_bytes(b"no graph at all" * 1_000)
    graph = LadybugGraph(tmp_path, LOG)
    with pytest.raises((StoreCorruptError, StoreError), match=r"relationships\.lbug"):
        await graph.checkpoint(RELATIONSHIPS)
    await graph.close()


async def test_a_hand_edit_changes_the_hash(tmp_path: Path) -> None:
    import ladybug

    graph = LadybugGraph(tmp_path, LOG)
    await project(graph, Life(1, 40).commits)
    hashes = [await graph.digest(RELATIONSHIPS)]
    await graph.close()
    for edit in (
        "MATCH (a:Agent {id: 'writer'}) SET a.status = 'archived'",
        "MATCH (:Agent)-[r:RUNS]->(:Task) SET r.version = '9'",
        "CREATE (:Tool {id: 'planted'})",
        "MATCH (:Task)-[e:CALLED_TOOL]->(:Tool) DELETE e",
    ):
        database = ladybug.Database(str(tmp_path / "relationships.lbug"))
        connection = ladybug.Connection(database)
        connection.execute(edit)
        connection.close()
        database.close()
        hashes.append(await graph.digest(RELATIONSHIPS))
        await graph.close()
    assert len(set(hashes)) == 5


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (:Tool {id: 'x'})",
        "MATCH (n:Agent) SET n.status = 'x'",
        "MATCH (n) detach delete n",
        "COPY (MATCH (n:Agent) RETURN n.id) TO 'stolen.csv'",
        "LOAD FROM 'passwd.csv' RETURN *",
        "CALL threads=9",
        "INSTALL json",
        "ATTACH 'x.lbug' AS y (dbtype lbug)",
        "RETURN 1; /* quiet */ DROP TABLE Agent",
        "RETURN 'it''s' ; CREATE (:Tool {id: 'x'})",
        "EXPORT DATABASE 'x'",
        "BEGIN TRANSACTION",
    ],
)
async def test_the_door_is_shut(tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = LadybugGraph(tmp_path / "graph", LOG)
    await add(graph, Node("agent", "a", place()), Edge("runs", Ref("agent", "a"), Ref("task", "t"), "1", place()))
    digest = await graph.digest(RELATIONSHIPS)
    with pytest.raises(ReadOnlyError):
        await graph.query(query, {})
    assert await graph.digest(RELATIONSHIPS) == digest
    assert files(tmp_path, "*.csv") == []
    await graph.close()


async def test_even_past_the_words_a_file_opened_for_reading_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_party.projections.backends.ladybug_door._WRITES", frozenset())
    graph = LadybugGraph(tmp_path, LOG)
    await add(graph, Node("agent", "a", place()))
    with pytest.raises(ReadOnlyError):
        await graph.query("CREATE (:Tool {id: 'x'})", {})
    await graph.close()


async def test_words_in_texts_and_names_are_no_harm(tmp_path: Path) -> None:
    for query in ("RETURN 'CREATE'", 'RETURN "say \\" DELETE"', "MATCH (n:Agent) RETURN n.set", "RETURN 1 AS `drop`",
                  "// CREATE\nRETURN 1", "RETURN $create"):  # fmt: skip
        refuse(query)
    graph = LadybugGraph(tmp_path, LOG)
    await add(graph, Node("agent", "it's", place()))
    found = await graph.query("MATCH (a:Agent) WHERE a.id = $name RETURN a, a.id AS `set`", {"name": "it's"})
    assert (found.columns, found.rows[0][1], found.rows[0][0]["label"]) == (["a", "set"], "it's", "Agent")
    assert json.dumps(found.rows)
    for wrong in ("MATCH nonsense", "MATCH (n:Wish) RETURN n", "RETURN 1; RETURN 2"):
        with pytest.raises(QueryError):
            await graph.query(wrong, {})
    with pytest.raises(QueryError, match="took too long"):
        await graph.query("UNWIND range(1, 9000) AS a UNWIND range(1, 9000) AS b RETURN sum(a * b)", {}, seconds=0.05)
    assert (await graph.query("RETURN 1", {})).rows == [[1]]
    await graph.close()
