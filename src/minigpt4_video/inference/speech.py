"""Which recogniser of speech is at hand."""

import json
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from minigpt4_video.errors import ModelError
from minigpt4_video.inference.loading import find_device
from minigpt4_video.media import Cue, Recogniser
from minigpt4_video.media.sound import RATE, Samples
from minigpt4_video.media.transcription import FasterWhisper, PocketSphinx, folder_key

AT_HAND = ("large-v3-turbo", "large-v3", "distil-large-v3", "large-v2", "medium", "small", "base", "tiny")
"""Models of faster-whisper that are taken unnamed where an earlier download left them, the best first."""
FASTER_WHISPER_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]
TRANSFORMERS_FILES = ["*.json", "*.txt", "*.safetensors"]
LEAST_HEARD = 30
"""Seconds of sound that Whisper hears at once; shorter sound is filled up with silence."""


class TransformersWhisper:
    """Whisper by transformers, on the GPU where there is one. Tells stretches of a few seconds, not words."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = f"Whisper, {name}"

    @property
    def key(self) -> str:
        return f"transformers {version('transformers')} {find_device(None).type} {folder_key(self.folder)}"

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        import torch
        from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

        device = find_device(None)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        try:
            model = WhisperForConditionalGeneration.from_pretrained(self.folder, dtype=dtype, local_files_only=True)
            listener = AutoFeatureExtractor.from_pretrained(self.folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"the speech model in {self.folder} cannot be loaded: {reason}") from error
        return model.to(device).eval(), listener, tokenizer

    def words(self, samples: Samples) -> Iterator[Cue]:
        import torch

        model, listener, tokenizer = self._parts
        filled = np.pad(samples, (0, max(0, LEAST_HEARD * RATE - len(samples))))
        heard = listener(
            filled,
            sampling_rate=RATE,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=False,
            padding="longest",
        )
        with torch.inference_mode():
            told = model.generate(
                heard.input_features.to(model.device, model.dtype),  # (1, mel bands, hundredths of a second)
                attention_mask=heard.attention_mask.to(model.device),
                return_timestamps=True,
                return_segments=True,
                condition_on_prev_tokens=False,
                temperature=0.0,
                no_speech_threshold=0.6,
                logprob_threshold=-1.0,
            )
        for segment in told["segments"][0]:
            tokens = [token for token in segment["tokens"].tolist() if token < tokenizer.eos_token_id]  # no times
            yield Cue(float(segment["start"]), float(segment["end"]), tokenizer.decode(tokens))


def find_recogniser(name: str | Path | None = None) -> Recogniser | None:
    """By name: a folder with Whisper as faster-whisper or transformers have it, a name on the hub, or "pocketsphinx".

    A name that is no folder is looked up on the hub, and downloaded where it is not there yet. Without a name nothing
    is downloaded: one of faster-whisper's models that is on this machine is taken, else None. Raises ModelError.
    """
    if name in (None, ""):
        return _at_hand()
    if str(name) == "pocketsphinx":
        _need("pocketsphinx", "pocketsphinx", "pocketsphinx")
        return PocketSphinx()
    folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(str(name))
    if (folder / "model.bin").is_file():
        _need("faster_whisper", str(name), '"minigpt4-video[speech]"')
        return FasterWhisper(folder, str(name))
    if _is_whisper(folder / "config.json"):
        return TransformersWhisper(folder, str(name))
    raise ModelError(
        f"{folder} holds no speech model; name a Whisper folder of transformers, or one converted for faster-whisper"
    )


def _need(module: str, name: str, package: str) -> None:
    if find_spec(module) is None:
        raise ModelError(f'the speech model "{name}" needs a package that is missing: pip install {package}')


def _at_hand() -> Recogniser | None:
    if find_spec("faster_whisper") is None:
        return None
    from faster_whisper import download_model

    for size in AT_HAND:
        try:
            folder = Path(download_model(size, local_files_only=True))
        except (OSError, ValueError):  # not on this machine, or unknown to this version
            continue
        if (folder / "model.bin").is_file() and (folder / "tokenizer.json").is_file():
            return FasterWhisper(folder, size)
    return None


def _from_hub(name: str) -> Path:
    """The folder of a model that the hub knows: "small" and the like by faster-whisper's table, else owner/name."""
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if "/" not in name:
            _need("faster_whisper", name, '"minigpt4-video[speech]"')
            from faster_whisper import download_model

            return Path(download_model(name))
        config = Path(hf_hub_download(name, "config.json"))
        wanted = TRANSFORMERS_FILES if _is_whisper(config) else FASTER_WHISPER_FILES
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f'there is no folder "{name}", and no such speech model could be had from the hub ({reason})'
        ) from error


def _is_whisper(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_text(encoding="utf-8"))["model_type"] == "whisper")
    except (OSError, ValueError, KeyError, TypeError):
        return False
