"""A fast tokenizer with the ids of transformers 4's slow one."""

import io
import json
import string

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tiny_models import SHARED
from transformers import AutoTokenizer

from minigpt4_video.errors import CheckpointError
from minigpt4_video.model.tokenization import SAMPLE_TEXTS, build_tokenizer, load_tokenizer, original_ids

SENTENCES = [
    "the person in the video pours water into the pot and stirs the rice",
    "hello and welcome to the kitchen, today we cook some rice",
    "What is the person doing? [/INST] He cooks.",
    "<Img> <Cap> [INST] a red square moves to the left of a blue circle",
]


def train(**options) -> sentencepiece_model_pb2.ModelProto:
    """A small SentencePiece model of Llama's kind."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        **{
            "vocab_size": 420,
            "model_type": "bpe",
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
            "split_digits": True,
            "hard_vocab_limit": False,
            "required_chars": string.ascii_letters,
            "minloglevel": 2,
            **options,
        },
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


@pytest.fixture(scope="module")
def proto():
    return train()


@pytest.fixture
def folder(proto, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    return tmp_path


@pytest.mark.parametrize("legacy", [True, False])
def test_fast_ids_are_the_slow_ones_for_both_values_of_legacy(folder, proto, legacy):
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    tokenizer = load_tokenizer(folder)
    for text in SAMPLE_TEXTS:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == original_ids(proto, text, legacy=legacy), text
        assert tokenizer(text)["input_ids"] == [1, *original_ids(proto, text, legacy=legacy)], text


def test_legacy_decides_about_the_space_behind_a_control_token(proto):
    def pieces(legacy):
        return "".join(proto.pieces[index].piece for index in original_ids(proto, "<s>[hi", legacy=legacy))

    assert (pieces(True), pieces(False)) == ("<s>▁[hi", "<s>[hi")


@pytest.mark.parametrize("settings", ["{}", '{"legacy": null, "add_bos_token": null}'])
def test_absent_value_of_legacy_means_true_as_in_transformers_4(folder, proto, settings):
    (folder / "tokenizer_config.json").write_text(settings)
    tokenizer = load_tokenizer(folder)
    assert tokenizer("<s>[", add_special_tokens=False)["input_ids"] == original_ids(proto, "<s>[", legacy=True)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("settings", ["[1]", "{oops"])
def test_settings_that_are_none_are_refused(folder, settings):
    (folder / "tokenizer_config.json").write_text(settings)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("legacy", [True, False])
def test_saved_tokenizer_keeps_its_ids(folder, tmp_path, legacy):
    tokenizer = build_tokenizer(folder / "tokenizer.model", legacy=legacy)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in SAMPLE_TEXTS:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"], text
    assert (again.bos_token, again.eos_token, again.pad_token) == ("<s>", "</s>", "<unk>")


@pytest.mark.parametrize("legacy", [True, False])
def test_decoding_gives_the_text_back(folder, legacy):
    tokenizer = build_tokenizer(folder / "tokenizer.model", legacy=legacy)
    for text in ("He cooks rice.", "x\n\ny  z", "café 你好 😀", "ends with a space "):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "unigram"}, "not a byte-pair model"),
        ({"byte_fallback": False}, "not a byte-pair model"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "differs from it"),
        ({"remove_extra_whitespaces": True}, "differs from it"),
        ({"user_defined_symbols": ["kwy"]}, "differs from it"),
    ],
)
def test_model_that_cannot_be_rebuilt_exactly_is_refused(tmp_path, options, reason):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train(**options).SerializeToString())
    with pytest.raises(CheckpointError, match=reason):
        build_tokenizer(path, legacy=False)


def test_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\xff not a model")
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)


def test_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)


def test_folder_with_a_fast_tokenizer_only_is_taken_as_it_is(folder, tmp_path):
    build_tokenizer(folder / "tokenizer.model", legacy=True).save_pretrained(tmp_path / "fast")
    assert load_tokenizer(tmp_path / "fast")("<s>hi")["input_ids"][:2] == [1, 1]


def test_real_llama_tokenizer_s_ids_have_the_shape_that_the_description_gives():
    """Its model is not at hand, but its ids are: where they differ by `legacy`, only the piece behind `<s>` does."""
    file = SHARED / "golden" / "real_llama2_tokenizer" / "cases.json"
    if not file.is_file():
        pytest.skip(f"{file} is not at hand")
    recorded = json.loads(file.read_text(encoding="utf-8"))
    spaced = {29961: 518}  # "[" and "▁["
    compared = 0
    for case in recorded["cases"]:
        new, old = case["ids_legacy_False"], case["ids_legacy_True"]
        if case["text"].startswith("<s>[INST]"):
            begin = 2 if case["add_special_tokens"] else 1
            assert new[:begin] == old[:begin] == [1] * begin
            assert old[begin] == spaced[new[begin]] and old[begin + 1 :] == new[begin + 1 :]
            compared += 1
        elif "<s>" not in case["text"] and "</s>" not in case["text"] and "<unk>" not in case["text"]:
            assert new == old, case["text"]
            compared += 1
    assert compared > 10
