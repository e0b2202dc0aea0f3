"""A judge on this machine: any causal language model in a folder, as transformers loads it."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from minigpt4_video.errors import ModelError
from minigpt4_video.evaluation.judging import Judge, folder_name
from minigpt4_video.inference.loading import find_device

LONGEST = 64
"""Tokens of a reply: the JSON that is asked for is a dozen."""


def local_judge(folder: Path, device: str | None = None, sending: Callable[[], None] = lambda: None) -> Judge:
    """Raises ModelError where the folder holds none. The name says which weights they are."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no folder of a language model: it has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"the judge in {folder} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    model = model.to(find_device(device)).eval()

    def ask(messages: list[dict[str, str]]) -> str:
        sending()
        if tokenizer.chat_template:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"]
        else:
            text = "\n\n".join(message["content"] for message in messages) + "\n"
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
        ids = ids.to(model.device)
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LONGEST)
        return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))

    return Judge(folder_name(folder), ask)
