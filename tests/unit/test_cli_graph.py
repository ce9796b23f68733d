"""`party graph`, over the embedded graph."""

import sys
from typing import Any

import pytest

from tests.cli_kit import Cli

Seen = tuple[Cli, str]


def test_at_shows_nodes_and_edges(seen: Seen) -> None:
    cli, task = seen
    told = cli.json("graph", "at", "now")
    nodes, edges = {node["node"]: node for node in told["nodes"]}, told["edges"]
    assert nodes[f"task/{task}"]["status"] == "completed"
    assert nodes[f"task/{task}"]["ended"]["event"] == "task.completed"
    (asked,) = [edge for edge in edges if edge["kind"] == "asked"]
    assert (asked["target"], asked["made"]["stream"], asked["made"]["revision"]) == (f"task/{task}", f"task/{task}", 1)
    before = cli.json("graph", "at", f"task/{task}@1")
    assert "status" not in next(node for node in before["nodes"] if node["id"] == task)
    assert not any(edge["kind"] == "runs" for edge in before["edges"])
    assert "agent/writer" in cli.text("graph", "at")
    only = cli.json("graph", "at", "--kind", "capability")
    assert {node["kind"] for node in only["nodes"]} == {"capability"}


def test_why_blast_path_neighbours(seen: Seen) -> None:
    cli, task = seen
    why = cli.json("graph", "why", task)
    assert why["complete"]
    assert why["chain"][-1]["source"].startswith("person/")
    assert " asked for " in cli.text("graph", "why", f"task/{task}")
    assert f"task/{task}" in {one["node"] for one in cli.json("graph", "blast", "writer")["reached"]}
    assert cli.json("graph", "blast", "writer", "--since", "now")["reached"] == []
    (edge,) = cli.json("graph", "path", "agent/writer", f"task/{task}", "--kind", "runs")["path"]
    assert edge["kind"] == "runs" or edge["ended"]
    assert cli.json("graph", "neighbours", "writer")["node"] == "writer"


def test_diff_and_query(seen: Seen) -> None:
    cli, task = seen
    told = cli.json("graph", "diff", "0:0", "now")
    assert f"task/{task}" in {node["node"] for node in told["came"]["nodes"]}
    assert cli.json("graph", "diff", "now", "0:0")["went"]["nodes"] == told["came"]["nodes"]
    assert cli.text("graph", "diff", "now", "now") == "no difference\n"
    found = cli.json("graph", "query", "MATCH (t:Task {id: $id}) RETURN t.status AS s", "--param", f"id={task}")
    assert found == {"columns": ["s"], "rows": [["completed"]], "more": False}
    some = cli.json("graph", "query", "UNWIND range(1, 9) AS n RETURN n", "--limit", "2")
    assert (some["rows"], some["more"]) == ([[1], [2]], True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["at", "yesterday"], 2, "no moment"),
        (["at", "--kind", "wish"], 2, "no kind 'wish'"),
        (["at", "task/none@3"], 3, "no revision 3"),
        (["why", "nobody"], 3, "no node 'nobody'"),
        (["why", "agent/writer"], 2, "not asked for"),
        (["blast", "capability/text.write"], 2, "does nothing"),
        (["query", "MATCH (n) DETACH DELETE n"], 2, "for reading"),
        (["query", "COPY (RETURN 1) TO 'x.csv'"], 2, "COPY"),
        (["query", "MATCH nonsense"], 2, "does not understand"),
        (["query", "RETURN $x", "--param", "x y=1"], 2, "no parameter"),
    ],
)
def test_what_cannot_be_asked_says_why(seen: Seen, arguments: list[str], code: int, said: str) -> None:
    assert said in " ".join(seen[0].text("graph", *arguments, code=code).split())


def test_without_ladybug_all_but_the_graph_works(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ladybug", None)
    cli.ask()
    said = cli.text("graph", "at", code=5)
    assert "pip install 'agent-party-runtime[graph]'" in said
    graph = next(one for one in cli.json("doctor")["checks"] if one["check"] == "graph")
    assert graph["status"] == "fine"


def test_a_server_that_is_away_is_the_graphs_trouble_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_GRAPH", "bolt://neo4j:x@127.0.0.1:1")
    cli.ask()
    assert "cannot be reached" in cli.text("graph", "at", code=5)
    checks: Any = cli.json("doctor", code=1)["checks"]
    (graph,) = [one for one in checks if one["check"] == "graph"]
    assert (graph["status"], "goes on without it" in graph["advice"]) == ("problem", True)
    assert "x@" not in graph["detail"], "no password is shown"
