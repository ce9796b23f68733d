"""The models that come with it, and all that is needed to write or to use one. Drivers come with the first call."""

from ..conversation import Answer
from ..model import (
    Cost,
    Estimate,
    Message,
    Model,
    ModelAnswer,
    ModelBusyError,
    ModelError,
    ModelNoAnswerError,
    ModelNonsenseError,
    ModelRefusedError,
    ModelRequest,
    ModelRoundsError,
    ModelTimeoutError,
    ModelTooMuchError,
    Prices,
    ToolCall,
    ToolSpec,
    Usage,
)
from .openai_compatible import OpenAICompatible
from .recorded import RecordedModel
from .scripted import ScriptedModel, at_once, calling, hang

__all__ = [
    "Answer",
    "Cost",
    "Estimate",
    "Message",
    "Model",
    "ModelAnswer",
    "ModelBusyError",
    "ModelError",
    "ModelNoAnswerError",
    "ModelNonsenseError",
    "ModelRefusedError",
    "ModelRequest",
    "ModelRoundsError",
    "ModelTimeoutError",
    "ModelTooMuchError",
    "OpenAICompatible",
    "Prices",
    "RecordedModel",
    "ScriptedModel",
    "ToolCall",
    "ToolSpec",
    "Usage",
    "at_once",
    "calling",
    "hang",
]
