"""Read models that can be thrown away and rebuilt: pure functions from accepted events to writes."""

if not __name__.startswith("agent_party."):
    raise ImportError("import agent_party.projections instead of projections")
