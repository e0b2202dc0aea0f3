"""Small real things that many tests share: a video file made on the spot, and a whole model with random weights."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from making import SUBTITLES, write_video


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded reference data and a corpus of media, which the repository does not hold."""
    folder = Path(os.environ.get("MINIGPT4_VIDEO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set MINIGPT4_VIDEO_SHARED to the folder that holds them")
    return folder


@pytest.fixture(autouse=True)
def store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what the person who runs it keeps of videos."""
    monkeypatch.setenv("MINIGPT4_VIDEO_STORE", str(tmp_path / "store"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds of video without subtitles."""
    return write_video(tmp_path / "clip.mp4")


@pytest.fixture
def subtitled(video: Path) -> Path:
    """The same with a subtitle file beside it."""
    video.with_suffix(".srt").write_text(SUBTITLES, encoding="utf-8")
    return video


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as users have it, with random weights: 4 tokens a frame, a window of 256 tokens, 4 frames."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from minigpt4_video.model import (
        MiniGPT4VideoConfig,
        MiniGPT4VideoForConditionalGeneration,
        MiniGPT4VideoProcessor,
    )

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        ["[INST] <Img><Cap> what happens in the video [/INST]", SUBTITLES] * 4,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<unk>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    config = MiniGPT4VideoConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    )
    folder = tmp_path_factory.mktemp("random-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MiniGPT4VideoForConditionalGeneration(config).eval()
        # Larger weights make the answers depend on what is seen, which small ones drown.
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    processor = MiniGPT4VideoProcessor(
        tokenizer,
        image_token_id=config.image_token_id,
        tokens_per_frame=config.tokens_per_frame,
        image_size=56,
        frames=4,
        window=256,
        answer_reserve=16,
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def embedded() -> Path:
    """The folder of the model that comes with the package."""
    from minigpt4_video.model.presets import EMBEDDED

    folder = EMBEDDED / "tiny"
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"the embedded model is missing from {folder}; `make train-tiny` makes it")
    return folder


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: `command("ask", ...)` gives the exit status, stdout and stderr."""
    from minigpt4_video.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return status, said.out, said.err

    return run
