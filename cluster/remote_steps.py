"""Steps marked ``where="ray"``: each call is a Ray remote function of one CPU, wherever Ray has room."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError, TaskUnschedulableError

from ..actors.errors import RemoteStepError, StepCrashedError
from . import ray_calls
from .pickling import Sent, dumps, loads

CPUS = 1


def _call(packed: bytes) -> Any:
    return Sent(loads(packed)())


@functools.cache
def _remote() -> Any:
    # Retries are the step's own affair: Ray would repeat a call without anything of it on the log.
    return ray.remote(num_cpus=CPUS, max_retries=0)(_call)


async def on_ray(call: Callable[[], Any]) -> Any:
    """What a call comes to on Ray. Its own error is raised as it is; `RemoteStepError` where Ray did not begin it;
    `StepCrashedError` where the process or the node ended that it was on.

    A step that nobody waits for any more is cancelled on Ray too.
    """
    try:
        packed = dumps(call)
        with ray_calls.counted():
            reference = _remote().remote(packed)
    except Exception as error:
        raise RemoteStepError(f"the call cannot be sent to Ray: {type(error).__name__}: {error}") from error
    try:
        return await ray_calls.answer(reference)
    except RayTaskError as error:
        raise error.cause from None
    except (RuntimeEnvSetupError, TaskUnschedulableError) as error:
        raise RemoteStepError(f"Ray did not begin the call: {type(error).__name__}: {error}") from error
    except RayError as error:
        raise StepCrashedError(f"Ray did not come to the end of the call: {type(error).__name__}: {error}") from error
    except asyncio.CancelledError:
        await ray_calls.in_thread(ray.cancel, reference, force=True)
        raise
