"""Original checkpoints, in the original's layout and in all the ways in which they can be wrong."""

import argparse
import json
import string
from importlib.util import find_spec

import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, LlamaConfig, LlamaForCausalLM

from minigpt4_video.errors import CheckpointError
from minigpt4_video.model.conversion import convert, read_checkpoint, verify
from minigpt4_video.model.exporting import export
from original import WIDTH, eva

HIDDEN, LAYERS, RANK = 48, 2, 4


def base_model(folder, hidden=HIDDEN, layers=LAYERS):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=112,
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def official(hidden=HIDDEN, layers=LAYERS, rank=RANK, values=HIDDEN // 2):
    """The original's trainable weights under peft 0.2.0's names."""
    torch.manual_seed(3)
    state = {}
    for layer in range(layers):
        for name, out in (("q_proj", hidden), ("v_proj", values)):
            key = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{name}"
            state[f"{key}.lora_A.weight"] = torch.randn(rank, hidden) * 0.3
            state[f"{key}.lora_B.weight"] = torch.randn(out, rank) * 0.3
    state["llama_proj.weight"] = torch.randn(hidden, 4 * WIDTH) * 0.1
    state["llama_proj.bias"] = torch.randn(hidden)
    return state


class Parts:
    """Where the three inputs of a conversion lie."""

    def __init__(self, folder):
        self.folder = folder
        self.base = base_model(folder / "base")
        self.vision = folder / "eva_vit_g.pth"
        self.output = folder / "out"
        torch.save(eva(), self.vision)

    def checkpoint(self, state, **more):
        path = self.folder / "official.pth"
        torch.save({"model": state, "epoch": 3, "optimizer": {}, "scaler": None, **more}, path)
        return path

    def convert(self, state=None, **options):
        checkpoint = self.checkpoint(official() if state is None else state)
        return convert(checkpoint, self.base, self.vision, options.pop("output", self.output), **options)

    def refused(self, reason, state=None, **options):
        before = sorted(self.folder.iterdir())
        with pytest.raises(CheckpointError, match=reason):
            self.convert(state, **options)
        left = set(self.folder.iterdir()) - {*before, self.folder / "official.pth"}
        assert not left, "something half-written was left"


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    parts = Parts(tmp_path_factory.mktemp("conversion"))
    return parts, parts.convert()


def logits(model, frames):
    inputs = AutoProcessor.from_pretrained(frames[0])(
        text="<s>[INST] <Img><ImageHere><Img><ImageHere>\nWho? [/INST]", images=frames[1], return_tensors="pt"
    )
    with torch.inference_mode():
        return model(**inputs).logits


def test_report_counts_every_key(converted):
    _, report = converted
    assert (report.lora_keys, report.lora_rank, report.lora_alpha) == (8, RANK, 16)
    assert (report.projection_keys, report.projection_shape) == (2, (HIDDEN, 4 * WIDTH))
    assert (report.vision_keys, report.vision_blocks, report.vision_heads) == (4 + 2 * 13, 2, WIDTH // 16)
    assert report.unused_checkpoint_keys == ()
    assert len(report.unused_vision_keys) == 13 + 2
    assert {name.split(".")[0] for name in report.unused_vision_keys} == {"blocks", "norm"}
    assert "blocks.N.norm1.weight" in "\n".join(report.lines())


def test_lora_is_merged_into_the_base_and_nothing_else_moves(converted):
    parts, report = converted
    base = AutoModelForCausalLM.from_pretrained(parts.base).state_dict()
    ours = AutoModelForImageTextToText.from_pretrained(parts.output).state_dict()
    state, total = official(), 0.0
    for name, weight in base.items():
        new = ours[name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name]
        key = f"llama_model.base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in state:
            delta = 16 / RANK * state[f"{key}.lora_B.weight"] @ state[f"{key}.lora_A.weight"]
            total += float(delta.square().sum())
            torch.testing.assert_close(new, weight + delta)
        else:
            assert torch.equal(new, weight), name
    assert report.lora_norm == pytest.approx(total**0.5)


def test_key_bias_of_the_tower_is_zero_and_its_last_norm_the_identity(converted):
    parts, _ = converted
    tower, state = AutoModelForImageTextToText.from_pretrained(parts.output).model.vision_tower, eva()
    bias = tower.encoder.layers[1].self_attn.qkv.bias
    expected = [state["blocks.1.attn.q_bias"].float(), torch.zeros(WIDTH), state["blocks.1.attn.v_bias"].float()]
    assert torch.equal(bias, torch.cat(expected))
    assert torch.equal(tower.post_layernorm.weight, torch.ones(WIDTH))
    assert torch.equal(tower.post_layernorm.bias, torch.zeros(WIDTH))


def test_adapter_kept_apart_computes_the_same(converted, frames):
    parts, _ = converted
    parts.convert(output=parts.folder / "kept", adapter="keep")
    merged = AutoModelForImageTextToText.from_pretrained(parts.output)
    plain = AutoModelForImageTextToText.from_pretrained(parts.folder / "kept")
    bare = logits(plain, (parts.output, frames[:2]))
    tuned = peft.PeftModel.from_pretrained(plain, parts.folder / "kept" / "adapter").eval()
    together = logits(merged, (parts.output, frames[:2]))
    torch.testing.assert_close(logits(tuned, (parts.output, frames[:2])), together, rtol=0, atol=1e-3)
    assert (bare - together).abs().max() > 0.1


@pytest.mark.parametrize("spelling", ["peft 0.2.0", "default", "module", "default and module", "bare"])
def test_every_spelling_of_the_keys_gives_the_same_weights(parts, spelling):
    state = official()
    if "default" in spelling:
        state = {
            name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): value
            for name, value in state.items()
        }
    if "module" in spelling:
        state = {f"module.{name}": value for name, value in state.items()}
    path = parts.folder / "spelled.pth"
    torch.save(state if spelling == "bare" else {"model": state, "config": None}, path)
    expected, found = read_checkpoint(parts.checkpoint(official())), read_checkpoint(path)
    assert found.unused == () and found.lora.pairs.keys() == expected.lora.pairs.keys()
    assert found.lora.norm == pytest.approx(expected.lora.norm)
    assert torch.equal(found.projection["llama_proj.weight"], expected.projection["llama_proj.weight"])


def test_exported_checkpoint_has_the_original_s_keys_and_converts_back(parts):
    state = official()
    parts.convert(adapter="keep")
    told = export(parts.output, parts.folder / "back.pth")
    written = torch.load(parts.folder / "back.pth", weights_only=True)

    assert (told.lora_keys, told.rank, told.alpha, told.projection_shape) == (8, RANK, 16, (HIDDEN, 4 * WIDTH))
    assert written["model"].keys() == state.keys()
    assert all(torch.equal(written["model"][key], state[key]) for key in state)
    convert(parts.folder / "back.pth", parts.base, parts.vision, parts.folder / "again")
    convert(parts.checkpoint(state), parts.base, parts.vision, parts.folder / "first")
    one, two = (load_file(parts.folder / name / "model.safetensors") for name in ("first", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_alpha_goes_out_and_comes_back(parts):
    checkpoint = parts.checkpoint(official(), config={"model": {"lora_alpha": 32, "lora_dropout": 0.1}})
    convert(checkpoint, parts.base, parts.vision, parts.output, adapter="keep")
    export(parts.output, parts.folder / "back.pth")
    lora = read_checkpoint(parts.folder / "back.pth").lora
    assert (lora.alpha, lora.dropout, lora.rank) == (32, 0.1, RANK)


def test_what_cannot_be_exported_is_refused(parts):
    back = parts.folder / "back.pth"
    parts.convert()
    with pytest.raises(CheckpointError, match="no LoRA apart from its weights"):
        export(parts.output, back)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        export(parts.folder, back)
    parts.convert(output=parts.folder / "kept", adapter="keep")
    (parts.folder / "kept" / "recipe.toml").write_text("[learn]\nvision = true\n")
    with pytest.raises(CheckpointError, match=r"vision tower .* was trained"):
        export(parts.folder / "kept", back)
    (parts.folder / "kept" / "recipe.toml").unlink()
    (parts.folder / "kept" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        export(parts.folder / "kept", back)
    assert not list(parts.folder.glob("*back*"))
    back.write_text("mine")
    with pytest.raises(CheckpointError, match="exists; name another file"):
        export(parts.folder / "kept", back)
    assert back.read_text() == "mine"


def test_alpha_comes_from_the_checkpoint_s_configuration(parts):
    told = parts.checkpoint(official(), config={"model": {"lora_alpha": 32, "lora_dropout": 0.1}})
    assert read_checkpoint(told).lora.scale == 32 / RANK
    assert read_checkpoint(told).lora.dropout == 0.1
    assert read_checkpoint(parts.checkpoint(official())).lora.scale == 16 / RANK


def test_other_keys_are_listed(parts):
    other = {
        "llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "visual_encoder.norm.weight": torch.ones(4),
    }
    report = parts.convert(official() | other)
    assert report.unused_checkpoint_keys == tuple(other)
    recorded = json.loads((parts.output / "conversion.json").read_text())
    assert recorded["unused_checkpoint_keys"] == list(other)


def test_old_container_and_argparse_namespace_are_read(parts):
    path = parts.folder / "old.pth"
    content = {"model": official(), "config": argparse.Namespace(lora_r=RANK)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).lora.rank == RANK


def test_checkpoint_without_lora_or_projection_is_refused_with_the_numbers(parts):
    state = official()
    projection = {name: value for name, value in state.items() if "proj." in name and "llama_proj" in name}
    lora = {name: value for name, value in state.items() if "lora" in name}
    parts.refused(r"2 keys, of which 0 modules with LoRA and 2 of the 2 projection keys", projection)
    parts.refused(r"8 keys, of which 4 modules with LoRA and 0 of the 2 projection keys", lora)
    parts.refused(r"1 keys, of which 0 modules .* \(something are left\)", {"something": torch.ones(1)})


def test_half_a_pair_and_mixed_ranks_are_refused(parts):
    state = official()
    key = next(name for name in state if "v_proj.lora_B" in name)
    parts.refused("only one of the two LoRA matrices", {name: value for name, value in state.items() if name != key})
    parts.refused(r"ranks \[4, 8\]", official(rank=4) | {n: v for n, v in official(rank=8).items() if ".0.self" in n})


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"hidden": 64, "values": 32}, r"4 LoRA pairs, 4 misfits .*is 48 x 48, LoRA 64 x 64"),
        ({"layers": 3}, r"6 LoRA pairs, 2 misfits .*layers.2.self_attn.q_proj is not there"),
        ({"layers": 1}, r"2 LoRA pairs, 2 misfits .*layers.1.self_attn.q_proj has no LoRA"),
        ({"values": 48}, r"2 misfits .*v_proj is 24 x 48, LoRA 48 x 48"),
    ],
)
def test_checkpoint_of_another_language_model_size_is_refused(parts, sizes, reason):
    parts.refused(reason, official(**sizes))


def test_projection_for_another_tower_is_refused(parts):
    state = official() | {"llama_proj.weight": torch.zeros(HIDDEN, 768)}
    parts.refused("projects 48 x 768, but .* need 48 x 128", state)


@pytest.mark.parametrize("key", ["llama_proj.bias", "blocks.1.mlp.fc2.weight", "blocks.0.norm1.bias"])
def test_weights_of_an_odd_shape_are_refused(parts, key):
    state, tower = official(), eva()
    (state if key in state else tower)[key] = torch.zeros(7)
    torch.save(tower, parts.vision)
    parts.refused("do not fit each other .*size mismatch", state)


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [
        ("lora", torch.tensor(1.0), "no matrices"),
        ("patch_embed.proj.weight", torch.zeros(7, 7), "patches and positions of the shapes"),
        ("pos_embed", torch.zeros(7), "patches and positions of the shapes"),
        (3, torch.zeros(7), "holds no state dict"),
    ],
)
def test_weights_of_no_form_at_all_are_refused(parts, key, wrong, reason):
    state, tower = official(), eva()
    key = next(name for name in state if "lora_A" in name) if key == "lora" else key
    (tower if key in tower else state)[key] = wrong
    torch.save(tower, parts.vision)
    parts.refused(reason, state)


@pytest.mark.parametrize("alpha", [None, "x", [1]])
def test_alpha_that_is_no_number_is_refused(parts, alpha):
    told = parts.checkpoint(official(), config={"model": {"lora_alpha": alpha}})
    with pytest.raises(CheckpointError, match="is no number"):
        read_checkpoint(told)


@pytest.mark.parametrize("heads", [0, 5, 64])
def test_heads_that_do_not_divide_the_tower_are_refused(parts, heads):
    parts.refused(f"{WIDTH} wide cannot have {heads} heads", vision_heads=heads)


def test_tower_that_does_not_tell_its_heads_is_asked_about(parts):
    torch.save(eva(width=24), parts.vision)
    parts.refused("24 wide does not tell its heads")


def test_place_where_no_folder_can_be_made_is_refused_before_the_work(parts):
    (parts.folder / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert("absent.pth", parts.base, parts.vision, parts.folder / "file" / "out")


@pytest.mark.parametrize(
    ("package", "where", "options", "remedy"),
    [("sentencepiece", "tokenization", {}, "convert"), ("peft", "conversion", {"adapter": "keep"}, "train")],
)
def test_package_that_is_missing_is_named_before_the_work(parts, monkeypatch, package, where, options, remedy):
    (parts.base / "tokenizer.model").touch()
    monkeypatch.setattr(
        f"minigpt4_video.model.{where}.find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(CheckpointError, match=rf"{package}.*minigpt4-video\[{remedy}\]"):
        convert("absent.pth", parts.base, parts.vision, parts.output, **options)


def test_pickled_code_is_not_run(parts, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    parts.refused("cannot be read as a checkpoint", {"model": Evil()})
    assert not (tmp_path / "written").exists()


def test_files_that_are_no_inputs_are_refused(parts):
    checkpoint = parts.checkpoint(official())
    (parts.folder / "noise.pth").write_bytes(b"noise")
    for arguments, reason in [
        ((parts.folder / "absent.pth", parts.base, parts.vision), "is no file"),
        ((parts.folder / "noise.pth", parts.base, parts.vision), "cannot be read"),
        ((parts.base, parts.base, parts.vision), "is no file"),
        ((checkpoint, parts.folder, parts.vision), "no config.json"),
        ((checkpoint, parts.base, checkpoint), "without cls_token"),
    ]:
        with pytest.raises(CheckpointError, match=reason):
            convert(*arguments, parts.output)
        assert not parts.output.exists()


def test_base_model_that_lacks_weights_is_refused(parts):
    from safetensors.torch import load_file, save_file

    file = parts.base / "model.safetensors"
    state = load_file(file)
    save_file(
        {name: value for name, value in state.items() if "layers.1." not in name}, file, metadata={"format": "pt"}
    )
    parts.refused("lacks 9 weights")


def test_output_that_holds_something_is_left_alone(parts):
    parts.output.mkdir()
    (parts.output / "precious").write_text("mine")
    parts.refused("is not empty")
    assert (parts.output / "precious").read_text() == "mine"


def test_interrupted_conversion_leaves_nothing(parts, monkeypatch):
    from minigpt4_video.model.processing import MiniGPT4VideoProcessor

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MiniGPT4VideoProcessor, "save_pretrained", interrupt)
    before = set(parts.folder.iterdir())
    with pytest.raises(KeyboardInterrupt):
        parts.convert()
    assert set(parts.folder.iterdir()) == before | {parts.folder / "official.pth"}


def test_dtype_is_the_base_s_unless_named(parts):
    model = AutoModelForCausalLM.from_pretrained(parts.base).to(torch.bfloat16)
    model.save_pretrained(parts.base)
    assert parts.convert().dtype == "bfloat16"
    assert AutoModelForImageTextToText.from_pretrained(parts.output, dtype="auto").dtype == torch.bfloat16
    assert parts.convert(dtype="float32", output=parts.folder / "wide").dtype == "float32"
    parts.refused("dtype .int3. is not known", dtype="int3", output=parts.folder / "none")


def test_generation_settings_are_the_original_s(converted):
    parts, _ = converted
    settings = AutoModelForImageTextToText.from_pretrained(parts.output).generation_config
    assert settings.repetition_penalty == 1.5
    assert not settings.do_sample
    assert settings.eos_token_id == 2


def test_processor_fits_the_model(converted):
    parts, _ = converted
    processor = AutoProcessor.from_pretrained(parts.output)
    assert (processor.image_token_id, processor.tokens_per_frame, processor.image_size) == (112, 4, 28)
    assert (processor.frames, processor.window, processor.answer_reserve) == (45, 512, 64)
    assert set(processor.chat_template) == {"default", "demo", "benchmark"}


def test_verify_tells_the_loss_with_and_without_lora(converted, tmp_path):
    from PIL import Image

    parts, report = converted
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(picture)
    assert set("A red picture.") <= {*string.printable}
    result = verify(parts.output, parts.folder / "official.pth", picture, answer="A red picture.")
    kept = parts.folder / "kept for verify"
    parts.convert(output=kept, adapter="keep")
    apart = verify(kept, parts.folder / "official.pth", picture, answer="A red picture.")
    assert result.loss == pytest.approx(apart.loss, abs=1e-3)
    assert result.loss_without_lora == pytest.approx(apart.loss_without_lora, abs=1e-3)
    assert abs(result.loss - result.loss_without_lora) > 0.05
    assert result.lora_norm == pytest.approx(report.lora_norm)
    assert result.bytes == 4 * result.parameters == report.bytes
    assert "loss without LoRA" in "\n".join(result.lines())
