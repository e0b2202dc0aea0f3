"""MiniGPT4-Video: ask questions about videos, train such a model.

Importing this loads neither torch nor transformers: the names that need them are loaded when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minigpt4_video.errors import (
    CheckpointError,
    MediaError,
    ModelError,
    PlanError,
    RecipeError,
    UserError,
)

if TYPE_CHECKING:
    from minigpt4_video.inference import Answer, Video, VideoChat
    from minigpt4_video.model import (
        MiniGPT4VideoConfig,
        MiniGPT4VideoForConditionalGeneration,
        MiniGPT4VideoProcessor,
    )

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "CheckpointError",
    "MediaError",
    "MiniGPT4VideoConfig",
    "MiniGPT4VideoForConditionalGeneration",
    "MiniGPT4VideoProcessor",
    "ModelError",
    "PlanError",
    "RecipeError",
    "UserError",
    "Video",
    "VideoChat",
    "__version__",
]

_LOADED_WHEN_ASKED_FOR = {
    "Answer": "minigpt4_video.inference",
    "MiniGPT4VideoConfig": "minigpt4_video.model",
    "MiniGPT4VideoForConditionalGeneration": "minigpt4_video.model",
    "MiniGPT4VideoProcessor": "minigpt4_video.model",
    "Video": "minigpt4_video.inference",
    "VideoChat": "minigpt4_video.inference",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LOADED_WHEN_ASKED_FOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
