"""Transformers' own test files, from the source distribution of the installed version, run against our classes.

The files are fetched when the test runs and are never part of this repository. What the distribution leaves out, and
its files import, is written here in a few lines: empty mixins, and a path helper.
"""

import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import transformers

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minigpt4-video" / "upstream"

STAND_INS = {
    "tests/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/__init__.py": "",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/__init__.py": "",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/models/__init__.py": "",
    "tests/models/minigpt4_video/__init__.py": "",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, return_url_if_not_found=True):\n    return url\n",
}
"""What the distribution's files import and it does not hold. Our own tests cover generation."""

JUSTIFIED = {
    "modeling": {
        r"test_get_image_features_": "get_image_features returns the frame tokens as a tensor",
        r"test_get_video_features_": "likewise; and a video's frames are its pixel_values",
        r"test_inputs_embeds$": "embeddings hold the frames already, and giving frames beside them is refused",
        r"test_tied_head_has_a_tp_plan_entry": "tensor parallelism is not offered",
    },
    "processing": {
        r"test_apply_chat_template_assistant_mask": "what is learned comes back as labels",
        r"test_call_arguments_default_none": "the processor names what it takes and refuses the rest",
        r"test_call_arguments_not_in_processor_kwargs": "likewise",
        r"test_init_arguments_not_in_processor_kwargs": "mean and deviation are its own",
        r"test_flat_kwarg_applied_when_modality_dict_lacks_it": "there are no parts to hand text_kwargs to",
        r"test_chat_template_save_loading": "named templates do not mix with transformers' old file",
        r"test_model_input_names": "it gives channels first, which are refused",
    },
}
"""For each kind of test, names as patterns, and why they cannot hold for our classes."""

SKIPPED = {
    r"test requires (multiple )?(accelerator|Flash Attention|MPS|deepspeed|the kernels)": "not on this machine",
    r"test requires (Torchcodec|librosa)": "videos are decoded by PyAV, and there is no sound",
    r"test is slow|Not a prioritized model": "transformers runs these on request, or for its own models only",
    r"base_model_class. defined": "rotary positions belong to the language model class",
    r"grouped_mm|sparse experts|output_router_logits": "no experts",
    r"No conversion found": "weights are saved under the names they are loaded by",
    r"sequence-to-sequence language modeling head|decoder-only language modeling head": "for text models, by name",
    r"sliding window mask": "this configuration has none; Mistral's window is tested in tests/model/test_modeling.py",
    r"output_attentions": "meant for the default attention, which does not keep its weights",
    r"does not have position embeddings": "rotary positions, and a tower of one size",
    r"_keep_in_fp32_modules": "nothing is kept in float32",
    r"does not support SDPA": "this test is for models of one part; that for composite ones runs",
    r"(video_processor|image_processor|feature_extractor|audio_processor) attribute not present": "the processor makes "
    "pixels itself: there is only a tokenizer to be tested as a part",
    r"_get_num_multimodal_tokens": "a helper for vLLM's own loader",
    r"requires multimodal processor|doesn't accept videos|doesn't support images with text": "decided by its parts too",
    r"does not support tools": "no tools",
}
"""Reason that transformers gives, or test name, as a pattern, and why that is as it should be here."""


@pytest.fixture(scope="session")
def workshop() -> Path:
    """The distribution's test files laid out as they expect to lie."""
    place = CACHE / transformers.__version__
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if not (place / "complete").is_file():
        place.mkdir(parents=True, exist_ok=True)
        source = [
            f"transformers=={transformers.__version__}",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
        ]
        subprocess.run([*pip, "download", *source, "--dest", str(place)], check=True)
        with tarfile.open(next(place.glob("transformers-*.tar.gz"))) as archive:
            for member in archive.getmembers():
                name = member.name.partition("/")[2]
                if re.fullmatch(r"tests/test_\w+\.py", name):
                    member.name = name
                    archive.extract(member, place, filter="data")
        subprocess.run([*pip, "install", "--target", str(place / "lib"), "--no-deps", "parameterized"], check=True)
        (place / "src").mkdir(exist_ok=True)
        link = place / "src" / "transformers"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(transformers.__file__).parent)
        (place / "complete").touch()
    for name, text in STAND_INS.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return place


def outcomes(workshop: Path, kind: str) -> dict[str, tuple[str, str]]:
    """Each test's name to "passed", "failed" or "skipped", and the message."""
    target = workshop / "tests" / "models" / "minigpt4_video" / f"test_{kind}_minigpt4_video.py"
    target.write_text((HERE / f"{kind}.py").read_text(encoding="utf-8"), encoding="utf-8")
    report = workshop / f"{kind}.xml"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(workshop / part) for part in ("lib", "utils")),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    arguments = ["-c", os.devnull, "--rootdir", str(workshop), "-p", "no:cacheprovider", "--timeout", "120"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments, f"--junitxml={report}", str(target)],
        cwd=workshop,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # its failures are judged one by one
    )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        state, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                state = "skipped" if child.tag == "skipped" else "failed"
                message = child.get("message") or ""
        found[case.get("name", "")] = (state, message)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "fewest"), [("modeling", 90), ("processing", 10)])
def test_transformers_own_tests_pass_or_their_failure_is_justified(workshop, kind, fewest):
    found = outcomes(workshop, kind)
    passed = [name for name, (state, _) in found.items() if state == "passed"]
    unexpected = [
        f"{name}: {message[:200]}"
        for name, (state, message) in found.items()
        if state == "failed" and not any(re.search(pattern, name) for pattern in JUSTIFIED[kind])
    ]
    unexplained = [
        f"{name}: {message[:200]}"
        for name, (state, message) in found.items()
        if state == "skipped" and not any(re.search(pattern, f"{name}: {message}") for pattern in SKIPPED)
    ]
    failed = [name for name, (state, _) in found.items() if state == "failed"]
    outdated = [pattern for pattern in JUSTIFIED[kind] if not any(re.search(pattern, name) for name in failed)]
    assert not outdated, f"these pass: {outdated}"
    assert not unexpected, "\n".join(unexpected)
    assert not unexplained, "\n".join(unexplained)
    assert len(passed) >= fewest, f"only {len(passed)} of {len(found)} ran"
