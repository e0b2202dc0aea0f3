"""MiniGPT4-Video: ask questions about videos, train such a model, label collections."""

from minigpt4_video.errors import (
    CheckpointError,
    MediaError,
    ModelError,
    PlanError,
    RecipeError,
    UserError,
)

__version__ = "0.1.0"

__all__ = ["CheckpointError", "MediaError", "ModelError", "PlanError", "RecipeError", "UserError", "__version__"]
