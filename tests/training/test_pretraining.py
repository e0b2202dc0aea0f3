"""Pretraining: told frames are the language model's own words, and both losses fall on what they should."""

import torch
from transformers import Blip2VisionConfig, LlamaConfig, LlamaModel

from minigpt4_video.data.world.language import chinese_words
from minigpt4_video.data.world.pictures import UNKNOWN
from minigpt4_video.data.world.samples import DENSE_WORDS, PLACES, video_sample
from minigpt4_video.data.world.scene import COLOURS, SHAPES
from minigpt4_video.training.muon import Muon, orthogonal
from minigpt4_video.training.pretraining import DenseVision, ToldFrames, begin_with_lookup, begin_with_neighbours, spell
from minigpt4_video.training.tokenizer import build_tokenizer


def test_a_told_word_is_its_english_and_chinese_tokens() -> None:
    texts = [text for seed in range(60) for turn in video_sample(seed, "train", 8, questions=30).turns for text in turn]
    tokenizer = build_tokenizer([*texts, *texts], 800, chinese_words())
    table = spell(tokenizer)
    assert table.shape == (DENSE_WORDS, len(tokenizer))
    assert table[0].sum() == 0 and torch.allclose(table[1:].sum(1), torch.full((DENSE_WORDS - 1,), 2.0))
    told = {tokenizer.decode([int(token)]).strip() for token in table[1 + COLOURS.index("red")].nonzero()}
    assert told == {"red", "红色"}


def test_attention_begins_by_finding_what_is_alike() -> None:
    torch.manual_seed(0)
    language_model = LlamaModel(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    )
    begin_with_lookup(language_model)
    attention = language_model.layers[0].self_attn
    tokens = torch.randn(20, 32)
    scores = attention.q_proj(tokens) @ attention.k_proj(tokens).T
    assert (scores.argmax(1) == torch.arange(20)).float().mean() > 0.9


def test_half_of_the_first_heads_begin_at_the_words_before() -> None:
    torch.manual_seed(0)
    sizes = LlamaConfig(
        vocab_size=64, hidden_size=192, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6,
        attention_bias=True, attn_implementation="eager",
    )  # fmt: skip
    told = ToldFrames(sizes, 4, torch.zeros(DENSE_WORDS, 64))
    begin_with_neighbours(told.language_model)
    seen = told.language_model(inputs_embeds=torch.randn(1, 40, 192) * 0.1, output_attentions=True).attentions
    for layer, distances in enumerate(((1, 2, 4), (2, 4, 5))):
        for head, distance in enumerate(distances):
            assert seen[layer][0, head, 30].argmax() == 30 - distance
    assert seen[0][0, 3].max(-1).values[20:].mean() < 0.5  # the fourth head is left free


def test_a_tower_is_not_taught_what_has_no_name() -> None:
    torch.manual_seed(0)
    vision = DenseVision(
        Blip2VisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=4,
            initializer_range=0.02,
        )
    )
    pixels = torch.randn(2, 3, 32, 32)
    middle = torch.zeros(2, 64, 5, dtype=torch.long)
    middle[:, 5] = torch.tensor([1, 1, 1, 3, 4])
    named = vision(pixels, middle)["loss"]
    middle[0, 5, 0] = UNKNOWN
    unnamed = vision(pixels, middle)["loss"]
    unnamed.backward()
    head = vision.head.weight.grad
    assert head is not None and torch.isfinite(head).all() and head.abs().sum() > 0
    assert not torch.allclose(named, unnamed)
    assert vision.choices == (1 + len(COLOURS), 1 + len(SHAPES), 3, 1 + PLACES, 1 + PLACES)


def test_muon_steps_are_as_long_in_every_direction_and_tables_are_left_to_adam() -> None:
    update = orthogonal(torch.randn(24, 16))
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6 and values.max() < 1.3
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(8, 16), "inner": torch.nn.Linear(16, 16)})
    optimizer = Muon(model.named_parameters(), matrix_rate=0.1, rate=0.01)
    kinds = {id(p): group["muon"] for group in optimizer.param_groups for p in group["params"]}
    assert (
        kinds[id(model["inner"].weight)] and not kinds[id(model["embed"].weight)] and not kinds[id(model["inner"].bias)]
    )
    first = None
    for _ in range(60):
        loss = (model["inner"](model["embed"](torch.arange(8))) - 1).square().mean()
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert first is not None and loss.item() < 0.05 * first


def test_words_that_do_not_occur_yet_are_hardly_pushed() -> None:
    """Their gradients are tiny and all alike; whole steps would carry them to one place."""
    rows = torch.nn.Parameter(torch.zeros(2, 4))
    optimizer = Muon([("embed", rows)], matrix_rate=0.1, rate=1e-3, weight_decay=0.0)
    for _ in range(100):
        rows.grad = torch.tensor([[1e-3], [1e-7]]).expand(2, 4).clone()
        optimizer.step()
    moved = -rows.detach()[:, 0]
    assert moved[0] > 0.09 and moved[1] < 0.002
