"""A Whisper of a few megabytes that hears " hello world" from 0 to 2 seconds, whatever it is given.

Its layers add nothing; which token follows which is written into the embeddings and the output layer. All that
surrounds the network, from sound to cues, is then as with real weights.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

WIDTH = 64
END = "<|endoftext|>"
LANGUAGE_TOKENS = [f"<|{language}|>" for language in LANGUAGES][:99]
FOLLOWS = {
    "<|0.00|>": ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"],
    "Ġhello": ["<|0.00|>"],
    "Ġworld": ["Ġhello"],
    "<|2.00|>": ["Ġworld"],
    END: ["<|2.00|>"],
}
"""Each token's predecessors."""


def save_stand_in(folder: Path) -> Path:
    """A folder as transformers saves it."""
    words = _words()
    ids = words.get_vocab()
    config = WhisperConfig(
        vocab_size=len(ids),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        bos_token_id=ids[END],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
        decoder = model.model.decoder
        for layer in decoder.layers:
            for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                part.weight.zero_()
                part.bias.zero_()
        decoder.embed_positions.weight.zero_()
        heard = _directions(len(ids))
        heard[[ids[token] for token in LANGUAGE_TOKENS]] = heard[ids["<|en|>"]].clone()
        said = 4 * _directions(len(ids))
        for token, before in FOLLOWS.items():
            said[ids[token]] = 4 * sum(heard[ids[name]] for name in before)
        decoder.embed_tokens.weight.copy_(heard)
        model.proj_out.weight.copy_(said)
    model.generation_config = GenerationConfig(
        bos_token_id=ids[END],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        is_multilingual=True,
        lang_to_id={token: ids[token] for token in LANGUAGE_TOKENS},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        alignment_heads=[[0, 0], [0, 1]],
        max_initial_timestamp_index=50,
        max_length=448,
    )
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=END, eos_token=END, unk_token=END, pad_token=END
    )
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def convert_stand_in(folder: Path, output: Path) -> Path:
    """The same as faster-whisper has it, converted by CTranslate2's own converter."""
    from ctranslate2.converters import TransformersConverter

    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(folder), copy_files=files).convert(str(output), quantization="int8")
    return output


def _directions(count: int) -> torch.Tensor:
    """(count, WIDTH): random, of length 1, and unchanged by a layer norm but for their length."""
    drawn = torch.randn(count, WIDTH)
    drawn -= drawn.mean(1, keepdim=True)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _words() -> Tokenizer:
    """Whisper's vocabulary in its order and size, but for the words themselves."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġhello", "Ġworld"]
    pieces += [f"Ġunused{number}" for number in range(len(pieces), 50257)]
    words = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    words.add_special_tokens([END, "<|startoftranscript|>", *LANGUAGE_TOKENS, *(f"<|{task}|>" for task in tasks)])
    words.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(1501)])
    return words
