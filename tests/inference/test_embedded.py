"""The model inside the package gives one answer, whichever way a person comes to it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import minigpt4_video as mv
import minigpt4_video.model
from minigpt4_video.data.world import files
from minigpt4_video.media import read_clip, read_subtitles

QUESTIONS = {
    "en": ["How many shapes are in the video?", "Describe this video in detail."],
    "zh": ["视频里有几个形状？", "详细描述这个视频。"],
}


class Ways:
    """To ask the same of the same: this package, transformers' Auto classes, transformers' pipeline."""

    def __init__(self, folder: Path) -> None:
        self.chat = mv.VideoChat.from_pretrained("tiny", device="cpu")
        self.model = AutoModelForImageTextToText.from_pretrained(folder)
        self.processor = AutoProcessor.from_pretrained(folder)
        self.pipe = pipeline("image-text-to-text", model=str(folder), device="cpu")

    def generated(self, messages: list[dict[str, Any]]) -> str:
        inputs = self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        made = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        (answer,) = self.processor.batch_decode(made, skip_special_tokens=True)
        assert self.processor.post_process_image_text_to_text(made) == [answer.strip()]
        return str(answer.strip())

    def piped(self, messages: list[dict[str, Any]]) -> str:
        whole = self.pipe(text=messages)[0]["generated_text"]
        (alone,) = self.pipe(text=messages, return_full_text=False)
        assert whole[-1] == {"role": "assistant", "content": alone["generated_text"]}
        return str(alone["generated_text"])


@pytest.fixture(scope="module")
def ways() -> Ways:
    from minigpt4_video.model.presets import EMBEDDED

    if not (EMBEDDED / "tiny" / "model.safetensors").is_file():
        pytest.skip("the embedded model is missing; `make train-tiny` makes it")
    return Ways(EMBEDDED / "tiny")


@pytest.fixture(scope="module", params=sorted(QUESTIONS))
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A language, and a video of the world in which something is said in it."""
    folder = tmp_path_factory.mktemp(request.param)
    (video,) = files.render(folder, seed=4, count=1, language=request.param)
    assert video.with_suffix(".srt").is_file()
    return request.param, video


def question(video: dict[str, Any], text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video", **video}, {"type": "text", "text": text}]}]


def test_a_transformers_user_and_a_pipeline_get_the_answer_that_video_chat_gives(ways, scene):
    language, file = scene
    video = ways.chat.open(file)
    assert any(video.plan().kept_subtitles)
    given = set()
    for text in QUESTIONS[language]:
        answer = video.ask(text).text
        messages = question({"path": str(file), "subtitles": "auto"}, text)
        assert ways.generated(messages) == ways.piped(messages) == answer
        given.add(answer)
    assert "" not in given and len(given) == len(QUESTIONS[language])


def test_so_they_do_without_subtitles_which_is_what_a_message_that_names_none_means(ways, scene):
    language, file = scene
    text = QUESTIONS[language][-1]
    answer = ways.chat.open(file, subtitles="off").ask(text).text
    messages = question({"path": str(file)}, text)
    assert ways.generated(messages) == ways.piped(messages) == answer


def test_so_they_do_with_frames_and_cues_in_the_message_itself(ways, scene):
    language, file = scene
    text = QUESTIONS[language][-1]
    clip = read_clip(file, ways.processor.frames)
    cues = [{"start": cue.start, "end": cue.end, "text": cue.text} for cue in read_subtitles(file.with_suffix(".srt"))]
    shown = {"frames": list(clip.frames), "times": clip.times.tolist(), "subtitles": cues}
    messages = question(shown, text)
    answer = ways.chat.open(file).ask(text).text
    assert ways.generated(messages) == ways.piped(messages) == ways.chat.answer(messages).text == answer
