"""Finding a program's agents, and its entities' deciders, by ``module:attribute``."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .actors.agent import Agent
from .actors.decider import Decider
from .actors.errors import ConfigurationError


def find_app(app: str) -> Sequence[Agent]:
    """The agent, or the agents of the list, that an attribute of a module holds; deciders in the list are passed over.

    The current folder is looked in too. `ConfigurationError` if there is nothing of that kind.
    """
    agents = [value for value in _values(app) if isinstance(value, Agent)]
    if not agents:
        raise ConfigurationError(f"--app {app!r} is no agent and no list of agents")
    return agents


def find_deciders(app: str) -> Sequence[type[Decider[Any, Any, Any]]]:
    """The `Decider` classes that an attribute of a module holds, alone or in a list."""
    return [value for value in _values(app) if _is_decider(value)]


def _is_decider(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Decider)


def _values(app: str) -> list[Any]:
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
    except Exception as error:
        raise ConfigurationError(
            f"--app {app!r}: importing {module_name} fails with {type(error).__name__}: {error}; what it does as a "
            "program belongs under if __name__ == '__main__'"
        ) from error
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(value, Agent) or _is_decider(value) for value in values):
        raise ConfigurationError(f"--app {app!r} holds something that is no agent and no Decider class")
    return values
