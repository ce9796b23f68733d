"""Agents and tasks: state folded from the log, and the loop that decides, appends and evolves."""

if not __name__.startswith("agent_party."):
    raise ImportError("import agent_party.actors instead of actors")
