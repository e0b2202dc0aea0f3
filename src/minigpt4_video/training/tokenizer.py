"""A small byte-level tokenizer for a model that is trained from nothing, English by words, Chinese by given words."""

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TAGS = ("[INST]", "[/INST]", "<Img>", "</Img>", "<Cap>")


def build_tokenizer(texts: Iterable[str], vocabulary: int, chinese: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer learnt from `texts` in which every tag of the prompt is one token and every other text still has a
    spelling.

    A space goes before each piece, as SentencePiece does, so that a word is the same token wherever it stands. Chinese
    has no spaces: the words in `chinese` are kept whole, everything else goes by characters.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    character = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
    pieces = "|".join([re.escape(word) for word in sorted(chinese, key=len, reverse=True)] + [character])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pieces), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(tag, special=True) for tag in ("<pad>", "<s>", "</s>")]
    special += [AddedToken(tag, special=True, lstrip=True, rstrip=tag in ("[INST]", "</Img>", "<Cap>")) for tag in TAGS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken("\n", lstrip=True, rstrip=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left",
    )  # fmt: skip
