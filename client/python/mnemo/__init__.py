"""Client of the mnemo language model daemon.

``Client`` blocks, ``aio.AsyncClient`` is its asyncio form. All times are seconds.
"""

from mnemo import aio
from mnemo.client import Client
from mnemo.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MnemoError,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from mnemo.types import (
    Alternative,
    Completion,
    Delta,
    DeviceEnergy,
    DrainResult,
    Event,
    Final,
    FinishReason,
    GenerateOptions,
    Message,
    Model,
    PromptTokens,
    ServerStatus,
    Started,
    Timing,
    Token,
    Tokens,
    Usage,
    WorkerStatus,
)

__all__ = [
    "Alternative",
    "Cancelled",
    "Client",
    "Completion",
    "DeadlineExceeded",
    "Delta",
    "DeviceEnergy",
    "DrainResult",
    "Event",
    "FailedPrecondition",
    "Final",
    "FinishReason",
    "GenerateOptions",
    "Internal",
    "InvalidArgument",
    "Message",
    "MnemoError",
    "Model",
    "NotFound",
    "PromptTokens",
    "ResourceExhausted",
    "ServerStatus",
    "Started",
    "Timing",
    "Token",
    "Tokens",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "WorkerStatus",
    "aio",
]
