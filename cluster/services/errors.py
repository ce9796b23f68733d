"""What can go wrong with the services.

PartyError
├── ConfigurationError
│   ├── MissingProgramError     a program that is needed is not on this machine
│   └── DifferentServicesError  other services were started here before, with another number of brokers or the like
└── RuntimeUnavailableError
    ├── FetchError              a program could not be fetched or built
    │   └── ArtifactError       what was fetched, or lies in the cache, is not what was pinned
    └── ServiceError            a service does not start, does not answer, or does not end
"""

from ...actors.errors import ConfigurationError, RuntimeUnavailableError


class MissingProgramError(ConfigurationError):
    """A program that is needed is not on this machine. ``program``: its name."""

    def __init__(self, program: str, wanted_by: str, advice: str) -> None:
        super().__init__(f"{wanted_by} needs {program}, which is not on this machine: {advice}")
        self.program, self.wanted_by, self.advice = program, wanted_by, advice

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.program, self.wanted_by, self.advice)


class DifferentServicesError(ConfigurationError):
    """The services of this folder were made with other options, which their data holds."""


class FetchError(RuntimeUnavailableError):
    """A program could not be fetched or built; the text ends with what its client said last."""


class ArtifactError(FetchError):
    """What was fetched, or lies in the cache, is not what was pinned. Nothing of it is run."""


class ServiceError(RuntimeUnavailableError):
    """A service does not start, does not answer, or does not end; the text names its log."""
