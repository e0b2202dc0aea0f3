"""Transformers' common model tests on our classes. Copied beside their files by `test_upstream.py`, not run here."""

import unittest

import torch
from transformers.testing_utils import torch_device

from minigpt4_video.model import (
    MiniGPT4VideoConfig,
    MiniGPT4VideoForConditionalGeneration,
    MiniGPT4VideoModel,
)

from ...generation.test_utils import GenerationTesterMixin
from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin
from ...test_training_mixin import TrainingTesterMixin


class Tester:
    """What the common tests ask of a model's own: sizes, a configuration, inputs."""

    def __init__(self, parent):
        self.parent = parent
        self.batch_size, self.words, self.frames_per_row = 7, 7, 1  # 7 rows is what some tests cut or fill to
        self.hidden_size, self.num_hidden_layers, self.num_attention_heads = 32, 2, 4
        self.vocab_size, self.image_token_id, self.image_size = 99, 50, 16
        self.text_config = {
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": 37,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        self.vision_config = {
            "hidden_size": 24,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": self.image_size,
            "patch_size": 4,
        }
        self.seq_length = self.encoder_seq_length = self.words + 4 * self.frames_per_row
        self.is_training = True
        self.causal_lm_class = MiniGPT4VideoForConditionalGeneration

    def get_config(self):
        config = MiniGPT4VideoConfig(
            vision_config=dict(self.vision_config),
            text_config=dict(self.text_config),
            image_token_id=self.image_token_id,
        )
        config.vocab_size = self.vocab_size  # the training test asks the whole configuration for it
        return config

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(4, self.image_token_id, (self.batch_size, self.seq_length), generator=generator)
        ids[:, 1 : 1 + 4 * self.frames_per_row] = self.image_token_id
        frames = self.batch_size * self.frames_per_row
        pixels = torch.rand(frames, 3, self.image_size, self.image_size, generator=generator)
        return self.get_config(), {
            "pixel_values": pixels.to(torch_device),
            "input_ids": ids.to(torch_device),
            "attention_mask": torch.ones_like(ids).to(torch_device),
        }


class MiniGPT4VideoModelTest(ModelTesterMixin, TrainingTesterMixin, GenerationTesterMixin, unittest.TestCase):
    model_tester = None  # made for each test
    all_model_classes = (MiniGPT4VideoModel, MiniGPT4VideoForConditionalGeneration)
    _is_composite = True
    additional_model_inputs = ("pixel_values",)

    def setUp(self):
        self.model_tester = Tester(self)
        self.config_tester = ConfigTester(self, config_class=MiniGPT4VideoConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_training(self):
        self.all_model_classes = (MiniGPT4VideoForConditionalGeneration,)  # the other has no loss
        super().test_training()

    def check_training_gradient_checkpointing(self, **options):
        self.all_model_classes = (MiniGPT4VideoForConditionalGeneration,)
        super().check_training_gradient_checkpointing(**options)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is MiniGPT4VideoForConditionalGeneration:
            inputs["labels"] = torch.zeros_like(inputs["input_ids"])
        return inputs
