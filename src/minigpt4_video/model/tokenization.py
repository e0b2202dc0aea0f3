"""A fast tokenizer that gives the original's ids.

The original read `tokenizer.model` with transformers 4's slow LlamaTokenizer, whose ids depend on the folder's `legacy`
value: where it is true, every stretch of text behind a control token gets a leading space of its own; where it is
false, only the beginning of a text does. Transformers 5 builds another tokenizer from the same file, so this one is
built by hand and compared with the SentencePiece model itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minigpt4_video.errors import CheckpointError

SPACE = "▁"
TOKENIZER_FILE = "tokenizer.model"

SAMPLE_TEXTS = (
    "",
    " ",
    "  ",
    "\n",
    "hello",
    " hello",
    "  two spaces before and after  ",
    "<s>",
    "<s>[INST] <Img>",
    "<s> [INST] <Img>",
    "<s>[INST]  <Img>",
    "[INST] <Img>",
    "<Cap>hello and welcome to the kitchen <Img>",
    "<Cap>first add $2 of water, 100% pure \nWhat is the person doing? [/INST]",
    "</Img> Is there any water? [/INST]",
    "\nDescribe this video.[/INST]",
    "He cooks rice in a pot.</s>",
    "a</s>b",
    "a</s> b <s>c</s>",
    "<unk>x<unk>",
    "</s></s>",
    "$$ 5$$ and $$",
    "x\n\ny  z\t\ttab",
    "café naïve Straße Ærøskøbing",
    "你好，世界！这个视频里发生了什么？",
    "视频 with mixed 文字 and 1,234.56",
    "Что происходит? नमस्ते สวัสดี العربية",
    "😀 👩‍👩‍👧 🇫🇷 ™ ½ ﬁ",
    "don't DON'T it's I'll",
    "3.14159e-10 0x1F 00:01:02,345 --> 00:01:03.000",
    "snake_case CamelCase kebab-case http://example.org/?q=1&r=2#top",
    "▁already marked▁text",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      !!!!!!!!",
    "def f(x):\n    return x ** 2  # comment\n",
    "\x00\x07\u200b\ufeff\u00a0edge",
    "The quick brown fox jumps over the lazy dog. " * 3,
)
"""What a built tokenizer is compared on."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a language model's folder, with the original's ids where the folder holds a SentencePiece model.

    Raises CheckpointError where there is none, or where it cannot be rebuilt exactly.
    """
    model = folder / TOKENIZER_FILE
    if not model.is_file():
        try:
            return AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise CheckpointError(
                f"{folder} holds no usable tokenizer ({_first_line(error)}); add tokenizer.model"
            ) from error
    settings = _settings(folder)
    legacy, add_bos = (settings.get(name) for name in ("legacy", "add_bos_token"))
    # Transformers 4 took an absent value, and null, for true.
    return build_tokenizer(model, legacy=legacy in (None, True), add_bos=add_bos in (None, True))


def build_tokenizer(model: Path, *, legacy: bool, add_bos: bool = True) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a SentencePiece byte-pair model, checked against it on `SAMPLE_TEXTS`."""
    proto = _read(model)
    pieces = [(piece.piece, float(piece.score)) for piece in proto.pieces]
    vocabulary = {piece: index for index, (piece, _) in enumerate(pieces)}
    unknown, begin, end = (
        pieces[index][0] for index in (proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id)
    )
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (unknown, begin, end)])
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    else:
        # Only the beginning of the whole text gets a space, also when it begins with one. Metaspace alone would leave
        # it out there, so the text's own spaces are marked first, and the one in front is put there as a plain space.
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False),
                pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
            ]
        )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(SPACE), " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, vocabulary[begin])]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        unk_token=unknown,
        pad_token=unknown,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    own = [piece.piece for piece in proto.pieces if piece.type == piece.USER_DEFINED]
    for text in (*SAMPLE_TEXTS, *(f"a{symbol}b {symbol}" for symbol in own)):
        expected, built = original_ids(proto, text, legacy=legacy), fast(text, add_special_tokens=False)["input_ids"]
        if expected != built:
            raise CheckpointError(
                f"the tokenizer built from {model} differs from it on {text!r} ({built} for {expected}, legacy "
                f"{legacy}); this SentencePiece model is of a kind that cannot be converted"
            )
    return fast


def original_ids(proto: Any, text: str, *, legacy: bool) -> list[int]:
    """What transformers 4's slow LlamaTokenizer gives, without the beginning-of-sequence token it adds.

    Written after its description, upon SentencePiece: control tokens are cut out first; with `legacy` each stretch
    between them is encoded with SentencePiece's own leading space, without it one space is put before the whole text.
    """
    import sentencepiece

    exact = type(proto)()
    exact.CopyFrom(proto)
    exact.normalizer_spec.add_dummy_prefix = legacy
    spm = sentencepiece.SentencePieceProcessor()
    spm.LoadFromSerializedProto(exact.SerializeToString())
    control = {spm.id_to_piece(index): index for index in (spm.unk_id(), spm.bos_id(), spm.eos_id())}
    if not legacy and text:
        text = SPACE + text.replace(SPACE, " ")
    ids: list[int] = []
    first_is_space = False
    for stretch in re.split("(" + "|".join(map(re.escape, control)) + ")", text):
        if stretch in control:
            if first_is_space and len(ids) == 1:
                ids.clear()  # the space that was put before a text which begins with a control token
            first_is_space = False
            ids.append(control[stretch])
        elif stretch:
            here = spm.encode(stretch, out_type=int)
            first_is_space = not ids and not legacy and here == [spm.piece_to_id(SPACE)]
            ids += here
    return ids


def _merges(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Pairs in the order in which SentencePiece joins them: by the score of what they make."""
    order = {piece: index for index, (piece, _) in enumerate(pieces)}
    pairs = [
        (-score, order[piece[:cut]], order[piece[cut:]], piece[:cut], piece[cut:])
        for piece, score in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in order and piece[cut:] in order
    ]
    return [(left, right) for *_, left, right in sorted(pairs)]


def check_sentencepiece() -> None:
    """Raises CheckpointError where what reads `tokenizer.model` is not installed."""
    if find_spec("sentencepiece") is None or find_spec("google") is None or find_spec("google.protobuf") is None:
        raise CheckpointError(
            f'reading {TOKENIZER_FILE} needs sentencepiece and protobuf; pip install "minigpt4-video[convert]"'
        )


def _read(model: Path) -> Any:
    check_sentencepiece()
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model.read_bytes())
    except (DecodeError, OSError) as error:
        raise CheckpointError(f"{model} is not a SentencePiece model ({_first_line(error)})") from error
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE or not proto.trainer_spec.byte_fallback:
        raise CheckpointError(f"{model} is not a byte-pair model with byte fallback, as Llama's and Mistral's are")
    return proto


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({_first_line(error)})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds no settings but a {type(settings).__name__}; copy it from the base model")
    return settings


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
