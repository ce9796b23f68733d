"""The log: signed, hash-chained commits, the one rule that accepts them, and the tapes that hold them."""

if not __name__.startswith("agent_party."):
    raise ImportError("import agent_party.eventstore instead of eventstore")
