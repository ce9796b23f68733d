"""The party on Ray: hosts, placement and services. The only package that imports ray."""

if not __name__.startswith("agent_party."):
    raise ImportError("import agent_party.cluster instead of cluster")
