"""Finding a program's agents by ``module:attribute``."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from .actors.agent import Agent
from .actors.errors import ConfigurationError


def find_app(app: str) -> Sequence[Agent]:
    """The agent, or the list of agents, that an attribute of a module holds. The current folder is looked in too."""
    module_name, found, attribute = app.partition(":")
    if not found or not module_name or not attribute:
        raise ConfigurationError(f"--app {app!r}: write module:attribute, for example examples.hello:writer")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"--app {app!r} cannot be found: {error}") from error
    agents = [value] if isinstance(value, Agent) else list(value) if isinstance(value, list | tuple) else []
    if not agents or not all(isinstance(agent, Agent) for agent in agents):
        raise ConfigurationError(f"--app {app!r} is no agent and no list of agents")
    return agents
