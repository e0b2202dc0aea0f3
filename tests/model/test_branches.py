"""Every branch behind a shared prefix is computed as if it were the only one."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minigpt4_video.errors import ModelError
from minigpt4_video.model import branches as branches_module
from minigpt4_video.model.branches import Beginning, Branches, Places, bytes_per_slot, lay_out, masks, visible
from minigpt4_video.model.configuration import MiniGPT4VideoConfig
from minigpt4_video.model.modeling import MiniGPT4VideoForConditionalGeneration

KINDS = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "mistral with a window": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 7},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen2 with windows in some layers": {
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 12},
}
VOCABULARY = 60


@pytest.fixture(scope="module", params=[(kind, how) for kind in KINDS for how in ("sdpa", "eager")], ids=str)
def model(request) -> MiniGPT4VideoForConditionalGeneration:
    kind, attention = request.param
    config = MiniGPT4VideoConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            **KINDS[kind],
        },
        attn_implementation=attention,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MiniGPT4VideoForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    assert model.config.text_config._attn_implementation == attention
    return model


def words(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=count)


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 32, generator=torch.Generator().manual_seed(seed))


def film(model, count: int, seed: int) -> list[int]:
    """A prefix with that many frames of 4 tokens among words."""
    ids = words(2, seed)
    for number in range(count):
        ids += [model.config.image_token_id] * 4 + words(number % 3, seed + number)
    return ids


def alone(model, ids: list[int], frame_tokens: torch.Tensor | None = None) -> torch.Tensor:
    """Logits (tokens, vocabulary) of an ordinary sequence, by an ordinary forward pass."""
    input_ids = torch.tensor([ids])
    is_frame = input_ids == model.config.image_token_id
    embeds = model.get_input_embeddings()(input_ids.masked_fill(is_frame, 0))
    if frame_tokens is not None:
        embeds = embeds.masked_scatter(is_frame[..., None], frame_tokens)
    with torch.inference_mode():
        return model(inputs_embeds=embeds, attention_mask=torch.ones_like(input_ids)).logits[0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_branches_of_one_forward_pass_are_as_alone(model, side):
    rows = [
        [(words(11, 1), [words(5, 2), words(1, 3), words(9, 4)])],
        [(words(4, 5), [words(3, 6)]), (words(7, 8), [words(2, 9), words(4, 10)])],
        [(words(6, 7), [])],
    ]
    layout = lay_out(rows, pad=0, side=side)
    mask = masks(layout.places, layout.places, model.config.text_config, torch.float32)
    with torch.inference_mode():
        logits = model(input_ids=layout.input_ids, attention_mask=mask, position_ids=layout.places.position).logits

    for number, row in enumerate(rows):
        for film, (prefix, branches) in enumerate(row):
            here = (layout.places.film[number] == film) & (layout.places.branch[number] >= 0)
            mine = torch.where(here, layout.places.branch[number], -1)
            assert torch.allclose(logits[number][mine == 0], alone(model, prefix), atol=1e-5)
            for index, branch in enumerate(branches, start=1):
                expected = alone(model, [*prefix, *branch])[len(prefix) :]
                assert torch.allclose(logits[number][mine == index], expected, atol=1e-5)


def test_questions_read_together_are_as_alone(model):
    prefix, shown = film(model, 3, seed=1), frames(3)
    questions = [words(length, seed) for seed, length in enumerate((4, 1, 12, 7))]
    board = Branches(model, rows=1, slots=110)
    board.begin(0, prefix, shown)

    logits = board.extend([(board.branch(0, 20), question) for question in questions])

    for question, seen in zip(questions, logits, strict=True):
        assert torch.allclose(seen, alone(model, prefix + question, shown)[-1], atol=1e-5)


def test_answers_of_several_videos_decoded_together_are_as_alone(model):
    """Rows of different lengths, branches that end and are followed by others in the slots they left."""
    chance = random.Random(0)
    films = [(film(model, count, seed=count), frames(count, seed=count)) for count in (1, 4, 2)]
    board = Branches(model, rows=3, slots=48)
    for row, (prefix, shown) in enumerate(films):
        board.begin(row, prefix, shown)
    held = {}
    for turn in range(12):
        for row in range(3):
            if board.room(row) >= 9 and chance.random() < 0.7:
                held[board.branch(row, 9)] = []
        new = {branch: words(4 if not said else 1, seed=chance.randrange(10**6)) for branch, said in held.items()}
        logits = board.extend(list(new.items()))
        for (branch, ids), seen in zip(new.items(), logits, strict=True):
            held[branch] += ids
            prefix, shown = films[branch.row]
            assert torch.allclose(seen, alone(model, prefix + held[branch], shown)[-1], atol=1e-5), turn
        for branch in [branch for branch, said in held.items() if len(said) > chance.choice((5, 8))]:
            board.leave(branch)
            del held[branch]
        if turn == 6:  # another video takes a row
            for branch in [branch for branch in held if branch.row == 1]:
                del held[branch]
            board.end(1)
            films[1] = (film(model, 2, seed=9), frames(2, seed=9))
            board.begin(1, *films[1])


@pytest.mark.parametrize(("most", "passes"), [(2048, [4]), (40, [2, 2]), (1, [1, 1, 1, 1])])
def test_prefixes_read_together_are_as_alone(model, monkeypatch, most, passes):
    """Of different lengths and numbers of frames, into rows that are no neighbours, in an order that is not theirs."""
    monkeypatch.setattr(branches_module, "READ_TOGETHER", most)
    films = {
        4: (film(model, 1, seed=1), frames(1, seed=1)),
        0: (film(model, 3, seed=2), frames(3, seed=2)),
        2: (words(9, seed=3), None),
        5: (film(model, 2, seed=4), frames(2, seed=4)),
    }
    board = Branches(model, rows=6, slots=60)
    read, made = model.model.language_model.forward, []

    def watched(*given, **named):
        made.append(len(named["inputs_embeds"]))
        return read(*given, **named)

    monkeypatch.setattr(model.model.language_model, "forward", watched)
    board.begin_all([Beginning(row, *one) for row, one in films.items()])
    monkeypatch.undo()

    assert made == passes and board.empty() == [1, 3]
    for row, (prefix, shown) in films.items():
        first, second = words(5, seed=row), words(1, seed=row + 10)
        branch = board.branch(row, 6)
        for asked, behind in ((first, first), (second, first + second)):
            seen = board.extend([(branch, asked)])[0]
            assert torch.allclose(seen, alone(model, prefix + behind, shown)[-1], atol=1e-5)


def test_a_short_prefix_is_not_padded_to_a_long_one(model, monkeypatch):
    read, made = model.model.language_model.forward, []

    def watched(*given, **named):
        made.append(tuple(named["inputs_embeds"].shape[:2]))
        return read(*given, **named)

    monkeypatch.setattr(model.model.language_model, "forward", watched)
    board = Branches(model, rows=4, slots=120)
    board.begin_all([Beginning(row, words(length, seed=row)) for row, length in enumerate((9, 100, 30, 40))])

    assert made == [(2, 100), (2, 30)]


def test_frames_do_not_go_to_another_video_that_lacks_some(model):
    board = Branches(model, rows=2, slots=60)
    wrong = [Beginning(0, film(model, 2, seed=1), frames(3)), Beginning(1, film(model, 2, seed=2), frames(1))]
    with pytest.raises(ModelError, match="frame placeholders"):
        board.begin_all(wrong)
    assert board.empty() == [0, 1]


def test_prefixes_for_a_row_that_is_taken_leave_the_others_empty(model):
    board = Branches(model, rows=3, slots=60)
    board.begin(1, words(9, seed=1))
    with pytest.raises(ModelError, match="holds a prefix already"):
        board.begin_all([Beginning(row, words(9, seed=row)) for row in range(3)])
    assert board.empty() == [0, 2]


def test_of_main_memory_only_what_is_used_is_taken(model):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    board = Branches(model, rows=8, slots=50_000)
    before = resident()
    for row in range(8):
        board.begin(row, words(20, seed=row))

    assert board.memory > 100 * 2**20
    assert resident() - before < board.memory / 4


def test_a_branch_that_is_cut_back_goes_on_as_if_it_had_not_been_longer(model):
    prefix = words(9, 1)
    board = Branches(model, rows=1, slots=40)
    board.begin(0, prefix)
    branch, other = board.branch(0, 12), board.branch(0, 12)
    board.extend([(branch, words(8, 2)), (other, words(6, 3))])
    board.cut(branch, 3)

    seen = board.extend([(branch, words(5, 4))])[0]

    assert torch.allclose(seen, alone(model, prefix + words(8, 2)[:3] + words(5, 4))[-1], atol=1e-5)


def test_what_was_cut_away_is_not_seen_though_it_lies_where_nothing_new_came(model):
    """A branch whose later tokens took the slots that another one had left in front of its first."""
    prefix = words(9, 1)
    board = Branches(model, rows=1, slots=40)
    board.begin(0, prefix)
    other, branch = board.branch(0, 4), board.branch(0, 12)
    board.extend([(other, words(4, 3)), (branch, words(4, 2))])
    board.leave(other)
    board.extend([(branch, words(4, 5))])
    assert branch.slots[4] < branch.slots[0]
    board.cut(branch, 2)

    seen = board.extend([(branch, words(1, 4))])[0]

    assert torch.allclose(seen, alone(model, prefix + words(4, 2)[:2] + words(1, 4))[-1], atol=1e-5)


def test_what_is_held_can_be_put_back_elsewhere_and_survives_growth(model):
    prefix, shown, question = film(model, 2, seed=3), frames(2), words(5, 1)
    board = Branches(model, rows=1, slots=len(prefix))
    board.begin(0, prefix, shown)
    other = Branches(model, rows=2, slots=60)
    other.restore(1, board.held(0))
    board.grow(60)

    for place, row in ((board, 0), (other, 1)):
        seen = place.extend([(place.branch(row, 20), question)])[0]
        assert torch.allclose(seen, alone(model, prefix + question, shown)[-1], atol=1e-5)


def test_memory_is_what_was_said_and_does_not_grow(model):
    board = Branches(model, rows=2, slots=30)
    said = board.memory
    board.begin(1, words(9, 1))
    board.extend([(board.branch(1, 20), words(20, 2))])
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in board._cache.layers)

    assert kept == said == board.memory
    assert said == 2 * 31 * bytes_per_slot(model.config.text_config, torch.float32)


def test_more_than_fits_is_refused_and_leaves_what_is_there(model):
    board = Branches(model, rows=1, slots=20)
    with pytest.raises(ModelError, match="a prefix of 21 tokens does not fit a row of 20"):
        board.begin(0, words(21, 1))
    board.begin(0, words(10, 1))
    first = board.branch(0, 6)
    with pytest.raises(ModelError, match="does not fit the 4 that are free"):
        board.branch(0, 5)
    other = board.branch(0, 2)
    with pytest.raises(ModelError, match="room for 6 tokens was given 7"):
        board.extend([(other, words(2, 3)), (first, words(7, 2))])
    assert len(other) == 0
    board.leave(other)
    with pytest.raises(ModelError, match="holds a prefix already"):
        board.begin(0, words(3, 1))
    assert torch.allclose(
        board.extend([(first, words(6, 2))])[0], alone(model, words(10, 1) + words(6, 2))[-1], atol=1e-5
    )
    board.leave(first)
    board.leave(first)
    assert board.room(0) == 10


@pytest.mark.parametrize("window", [None, 7])
def test_layers_that_no_mask_keeps_apart_are_refused(window):
    places = Places(torch.zeros(1, 3, dtype=torch.long), torch.arange(3)[None])
    mixed = SimpleNamespace(sliding_window=window, layer_types=["full_attention", "linear_attention"])
    with pytest.raises(ModelError, match="linear_attention take no mask"):
        masks(places, places, mixed, torch.float32)


def test_frames_that_are_not_as_many_as_their_places_are_refused_and_the_row_stays_empty(model):
    board = Branches(model, rows=1, slots=40)
    with pytest.raises(ModelError, match="frame placeholders"):
        board.begin(0, film(model, 2, seed=1), frames(1))
    assert board.empty() == [0]
    board.begin(0, film(model, 2, seed=1), frames(2))


def test_nothing_sees_padding_other_branches_or_the_future():
    places = Places(torch.tensor([[0, 0, 1, 1, 2, -1]]), torch.tensor([[0, 1, 2, 3, 2, 0]]))
    seen = visible(places, places)[0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 0],
    ]
    assert visible(places, places, window=2)[0, 3].tolist() == [False, False, True, True, False, False]
