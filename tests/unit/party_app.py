"""An app for the tests of the command line: agents with every kind of ending, and an entity."""

import msgspec

from agent_party import Agent, Decider, Task, event

writer = Agent("writer", version="1", description="writes")


@writer.on("text.write")
async def write(task: Task, topic: str, times: int = 1) -> str:
    """Ends well."""
    task.progress(1, 2, "counting")
    letters = await task.step(len, topic)
    return " ".join([f"{topic} has {letters} letters"] * times)


@writer.on("text.publish")
async def publish(task: Task, topic: str) -> str:
    """Waits for a person."""
    answer = await task.approval("publish", show=f"a text about {topic} \x1b[31m")
    return f"{topic}: {answer.note or 'no remark'}"


@writer.on("text.listen")
async def listen(task: Task) -> str:
    """Waits for a word, and counts others."""
    words: list[str] = []

    def check(word: str) -> None:
        if not word:
            raise ValueError("there is no word in it")

    def add(word: str) -> int:
        words.append(word)
        return len(words)

    task.on_update("add", add, validate=check)
    task.on_query("words", lambda: words)
    heard = await task.signal("word")
    await task.step(len, heard)
    return f"heard {heard}"


@writer.on("text.fail")
async def fail(task: Task) -> str:
    """Fails."""
    raise ValueError("no such luck")


@event("tally.counted")
class Counted(msgspec.Struct, frozen=True):
    """Something was counted."""

    by: int


class Tally(Decider[int, int, Counted]):
    """Counts."""

    kind = "tally"
    events = (Counted,)

    def initial(self) -> int:
        """Zero."""
        return 0

    def decide(self, command: int, state: int) -> list[Counted]:
        """Counts whatever comes."""
        return [Counted(command)]

    def evolve(self, state: int, event: Counted) -> int:
        """Adds."""
        return state + event.by


app = [writer, Tally]
deciders = [Tally]
