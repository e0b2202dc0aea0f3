"""The model and its processor, in transformers' form. Importing this package registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from minigpt4_video.model.configuration import MiniGPT4VideoConfig
from minigpt4_video.model.modeling import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoModel
from minigpt4_video.model.processing import MiniGPT4VideoProcessor

AutoConfig.register("minigpt4_video", MiniGPT4VideoConfig, exist_ok=True)
AutoModel.register(MiniGPT4VideoConfig, MiniGPT4VideoModel, exist_ok=True)
AutoModelForImageTextToText.register(MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(MiniGPT4VideoConfig, MiniGPT4VideoProcessor, exist_ok=True)

__all__ = [
    "MiniGPT4VideoConfig",
    "MiniGPT4VideoForConditionalGeneration",
    "MiniGPT4VideoModel",
    "MiniGPT4VideoProcessor",
]
