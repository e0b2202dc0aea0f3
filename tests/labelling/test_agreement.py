"""Likeness of texts and frames is what a CLIP model itself says of them."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from minigpt4_video.errors import ModelError
from minigpt4_video.labelling.agreement import Agreement
from minigpt4_video.labelling.browse import rows_where
from minigpt4_video.labelling.label import Order, label

SIZE, LONGEST = 32, 12
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model with random weights, as its folder. They are NumPy's, as torch draws others on other processors."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    # The end is last: with an end of 2, transformers reads a text up to its highest number, as OpenAI's first files.
    words = ["<pad>", "<s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    end = len(words) - 1
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", end)]
    )
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=layers
        | {
            "vocab_size": len(words),
            "max_position_embeddings": LONGEST,
            "bos_token_id": 1,
            "eos_token_id": end,
            "pad_token_id": 0,
        },
        vision_config=layers | {"image_size": SIZE, "patch_size": 8},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    model, drawn = CLIPModel(config), np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data = torch.tensor(drawn.standard_normal(parameter.shape), dtype=torch.float32)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def own(clip: Path, frames: np.ndarray, texts: list[str]) -> np.ndarray:
    """The cosines of CLIP's own forward pass, (texts, frames)."""
    from transformers import AutoTokenizer, CLIPModel

    pixels = torch.tensor((frames / 255 - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2)
    tokens = AutoTokenizer.from_pretrained(clip)(
        texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
    )
    with torch.inference_mode():
        told = CLIPModel.from_pretrained(clip).eval()(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels
        )
    return (told.text_embeds @ told.image_embeds.T).numpy()


def test_agreement_is_the_mean_of_the_cosines_of_a_quarter_the_half_and_three_quarters(clip):
    frames = np.random.default_rng(0).integers(0, 255, (8, SIZE, SIZE, 3), np.uint8)
    texts = ["a dog", "a red circle that is longer than the model reads", "一只狗"]

    found = Agreement(clip)(frames, texts)

    cosines = own(clip, frames, texts)
    assert found == pytest.approx(cosines[:, [2, 4, 6]].mean(1).tolist(), abs=2e-4)
    assert min(abs(one - other) for one, other in combinations(found, 2)) > 0.01
    assert np.abs(found - cosines.mean(1)).max() > 0.01


def test_a_clip_of_one_frame_agrees_as_that_frame(clip):
    frame = np.random.default_rng(1).integers(0, 255, (1, SIZE, SIZE, 3), np.uint8)

    assert Agreement(clip)(frame, ["a dog"]) == pytest.approx(own(clip, frame, ["a dog"])[0].tolist(), abs=2e-4)


def test_every_text_of_a_job_has_its_agreement(clip, mixed, tmp_path, random_model):
    label(Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4, agreement=clip))

    for row in rows_where(tmp_path / "out"):
        assert (row["agreement"] is not None) == bool(row["text"])


def test_a_folder_without_such_a_model_is_refused(tmp_path, random_model):
    for folder in (tmp_path, random_model):
        with pytest.raises(ModelError, match="knows texts and pictures"):
            Agreement(folder)
