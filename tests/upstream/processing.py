"""Transformers' common processor tests on ours. Copied beside their files by `test_upstream.py`; not run in place."""

import unittest

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from minigpt4_video.model import MiniGPT4VideoProcessor

from ...test_processing_common import ProcessorTesterMixin


class MiniGPT4VideoProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = MiniGPT4VideoProcessor
    image_token = "<ImageHere>"
    video_token = "<VideoHere>"

    @classmethod
    def _setup_tokenizer(cls):
        vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {chr(code): code - 29 for code in range(32, 127)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
        )

    @staticmethod
    def prepare_processor_dict():
        return {"image_token_id": 98, "tokens_per_frame": 4, "image_size": 16, "frames": 4, "window": 2000}
