"""`party task signal|update|query|pause|resume` and `party schedule`."""

from tests.cli_kit import APP, Cli


def test_a_signal_reaches_a_task_whose_process_is_gone(cli: Cli) -> None:
    task = str(cli.json("ask", "text.listen", "--no-wait", *APP)["task"])
    assert cli.json("task", "signal", task, "word", "crows")["sent"] is True
    assert cli.json("task", "watch", task, *APP)["result"] == "heard crows"
    assert cli.json("task", "signal", task, "word", "late", code=2)["error"] == "SettledError"
    assert cli.json("task", "signal", "0000000000000000", "word", code=3)["error"] == "UnknownTaskError"


def test_updates_and_queries_run_where_the_code_is(cli: Cli) -> None:
    task = str(cli.json("ask", "text.listen", "--no-wait", *APP)["task"])
    assert cli.json("task", "update", task, "add", "word=owls", *APP)["answer"] == 1
    assert cli.json("task", "query", task, "words", *APP)["answer"] == ["owls"]
    refused = cli.json("task", "update", task, "add", "word=", *APP, code=2)
    assert refused["error"] == "RefusedError"
    assert "no word" in refused["message"]
    assert (
        "takes no query 'colour'; it takes words" in cli.json("task", "query", task, "colour", *APP, code=2)["message"]
    )


def test_pause_and_resume(cli: Cli) -> None:
    task = str(cli.json("ask", "text.listen", "--no-wait", *APP)["task"])
    cli.json("task", "pause", task, "--reason", "lunch")
    cli.json("task", "signal", task, "word", "crows")
    assert cli.json("task", "watch", task, "--timeout", "0.5", *APP, code=5)["error"] == "DeadlineError"
    assert cli.json("task", "show", task)["status"] == "paused"
    cli.json("task", "resume", task)
    assert cli.json("task", "watch", task, *APP)["result"] == "heard crows"


def test_schedules(cli: Cli) -> None:
    added = ("schedule", "add", "daily", "text.write", "topic=ravens", "--cron", "0 9 * * *", "--zone", "Asia/Tokyo")
    first = cli.json(*added)
    assert cli.json(*added)["task"] == first["task"]
    (kept,) = cli.json("schedule", "list")
    assert (kept["name"], kept["zone"], kept["given"]) == ("daily", "Asia/Tokyo", {"topic": "ravens"})
    assert kept["next"].endswith("T00:00:00Z") or "T00:00:00" in kept["next"]
    assert "daily" in cli.text("schedule", "list")
    never = cli.json("schedule", "add", "x", "text.write", "--cron", "0 0 30 2 *", code=2)
    assert never["error"] == "ConfigurationError"
    cli.json("schedule", "remove", "daily")
