"""Text, pictures, videos and subtitles to what the model reads.

Every `<ImageHere>` in a text stands for one frame and becomes `tokens_per_frame` placeholders. The text between two
frames is tokenised by itself, as the original does, and the beginning-of-sequence token goes in front of the first
piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from minigpt4_video.errors import ModelError, PlanError
from minigpt4_video.messages import ROLES
from minigpt4_video.model.chat_templates import ANSWER_OPENINGS, CONTROL_LITERALS, INSTRUCTION_TEMPLATES

if TYPE_CHECKING:
    from minigpt4_video.media import Clip, Cue
    from minigpt4_video.planning import Plan

IMAGE = "<ImageHere>"
VIDEO = "<VideoHere>"
FRAME_TAG = "<Img>"
SUBTITLE_TAG = "<Cap>"
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
VIDEO_OPTIONS = ("start", "end", "num_frames", "subtitles", "times")
VIDEO_KEYS = {"type", "path", "url", "video", "frames", *VIDEO_OPTIONS}
IGNORED = -100
"""The label of a position that is not learned."""

Frame = Image.Image | np.ndarray[Any, Any]
Video = Any
"""A path, a `Clip`, an array (frames, H, W, 3) uint8, or a sequence of frames."""


@dataclass(frozen=True)
class Prepared:
    """A conversation on its way to the model: what is said, what is shown, and what had to be left out."""

    text: str
    """With one `<ImageHere>` for every frame."""
    frames: tuple[Frame, ...]
    clips: tuple[Clip | None, ...]
    """One a video: the frames that were kept and their times. None where the frames were handed in without times."""
    subtitles: tuple[tuple[str, ...], ...]
    """One a video: the text of each kept frame, "" where there is none."""
    plans: tuple[Plan, ...]
    """One a video."""


@dataclass(frozen=True)
class _Sampled:
    frames: Sequence[Frame]
    texts: Sequence[str]
    clip: Clip | None


class MiniGPT4VideoProcessor(ProcessorMixin):  # type: ignore[misc]
    """`processor(text=..., images=[...])` for literal prompts, `apply_chat_template(messages)` for conversations.

    `image_token_id` and `tokens_per_frame` are the model's. `frames` is how many a video is sampled into when nobody
    asks for another number, `window` the context in tokens, and `answer_reserve` what is kept free of it for the
    answer.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | dict[str, str] | None = None,
        image_token_id: int | None = None,
        tokens_per_frame: int = 64,
        image_size: int = 224,
        image_mean: Sequence[float] = IMAGE_MEAN,
        image_std: Sequence[float] = IMAGE_STD,
        frames: int = 45,
        window: int = 4096,
        answer_reserve: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or dict(INSTRUCTION_TEMPLATES))
        self.image_token_id = len(tokenizer) if image_token_id is None else image_token_id
        self.tokens_per_frame = tokens_per_frame
        self.image_size = image_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.frames = frames
        self.window = window
        self.answer_reserve = answer_reserve
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.unk_token or self.tokenizer.eos_token

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]

    # ---- literal prompts

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of one prompt, every `<ImageHere>` as `tokens_per_frame` placeholders.

        Control tokens written out in the text (`<s>`) are control tokens, as in the original; text from people goes
        through `plain` first.
        """
        pieces = text.split(IMAGE)
        ids: list[int] = list(self.tokenizer(pieces[0], add_special_tokens=add_special_tokens)["input_ids"])
        between = {  # mostly the same between one frame and the next
            piece: list(self.tokenizer(piece, add_special_tokens=False)["input_ids"])
            for piece in dict.fromkeys(pieces[1:])
        }
        for piece in pieces[1:]:
            ids += [self.image_token_id] * self.tokens_per_frame
            ids += between[piece]
        return ids

    def pixels(self, frames: Sequence[Frame]) -> torch.Tensor:
        """RGB frames to (frames, 3, image_size, image_size) float32.

        Squashed to a square (bicubic, by Pillow), then ImageNet's mean and standard deviation: bit for bit the
        original's.
        """
        small = np.stack([_squashed(frame, self.image_size) for frame in frames])
        scaled = (
            torch.from_numpy(small).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
        )
        mean = torch.tensor(self.image_mean).view(3, 1, 1)
        std = torch.tensor(self.image_std).view(3, 1, 1)
        return (scaled - mean) / std

    def frame_text(self, subtitles: Sequence[str]) -> str:
        """The literal prompt of a video: `<Img><ImageHere><Cap>text <Img><ImageHere>...`, one text a frame, "" for
        none.
        """
        parts = []
        for subtitle in subtitles:
            said = self.plain(subtitle).strip()
            parts.append(f"{FRAME_TAG}{IMAGE}{SUBTITLE_TAG}{said} " if said else f"{FRAME_TAG}{IMAGE}")
        return "".join(parts)

    def plain(self, text: str) -> str:
        """The text with every control literal broken by a space, so that it can create no placeholder, turn or control
        token; what is no character (half of a surrogate pair, from a name or from JSON) becomes U+FFFD.
        """
        if not text:  # as most frames' subtitles are
            return text
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        literals = {IMAGE, VIDEO, FRAME_TAG, "</Img>", SUBTITLE_TAG, *CONTROL_LITERALS, *self._special_literals()}
        while found := [literal for literal in literals if len(literal) > 1 and literal in text]:
            for literal in found:
                text = text.replace(literal, f"{literal[0]} {literal[1:]}")
        return text

    def _special_literals(self) -> set[str]:
        """How the tokenizer's control tokens are written."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return {*self.tokenizer.all_special_tokens, *added}

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Generated ids (batch, sequence) or (sequence,) to answers, one a row.

        Prompt and answer together give the answer alone: what follows the last instruction, without space around it, as
        the original read its answers. Without an instruction, as after a literal prompt of another form, the whole text
        comes back. Pipelines call this; `kwargs` are those of the tokenizer's `decode`.
        """
        rows = generated_outputs
        if len(rows) == 0 or np.ndim(rows[0]) == 0:
            rows = [rows]
        answers = []
        for row in rows:
            text: str = self.tokenizer.decode(row, skip_special_tokens=False, **kwargs)
            for opening in ANSWER_OPENINGS:
                text = text.rpartition(opening)[2]
            for literal in self._special_literals() if skip_special_tokens else ():
                text = text.replace(literal, "")
            answers.append(text.strip())
        return answers

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        videos: Any = None,
        subtitles: Any = None,
        *,
        answers: str | Sequence[str] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` (batch, sequence), `pixel_values` (frames of all rows, 3, size, size).

        `text` holds one `<ImageHere>` for every frame of `images` (one list a text) and one `<VideoHere>` for every
        video of `videos`; `subtitles` has one entry a video. Batches are padded on the left. With `answers`, one a
        text, each row is the prompt and the answer and its end token, padded on the right, and `labels` are -100
        everywhere else. Raises ModelError when placeholders and frames disagree.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        if not texts:
            raise ModelError("no text was given; give at least a prompt with one <ImageHere> for every frame")
        unknown = {name for name, value in kwargs.items() if value not in (None, False)}
        if unknown:
            raise ModelError(
                f"the processor does not take {', '.join(sorted(unknown))}; see its docstring for what it takes"
            )
        if videos is not None:
            texts, images = self._with_videos(texts, images, videos, subtitles)
        frames = self._rows(texts, images)
        encoded = [self.encode(one, add_special_tokens=add_special_tokens) for one in texts]
        data: dict[str, Any] = {}
        if answers is not None:
            wanted = [answers] if isinstance(answers, str) else list(answers)
            if len(wanted) != len(texts):
                raise ModelError(f"{len(wanted)} answers for {len(texts)} texts; give one for each")
            ends = [
                self.tokenizer(answer + self.tokenizer.eos_token, add_special_tokens=False)["input_ids"]
                for answer in wanted
            ]
            data["labels"] = [[IGNORED] * len(ids) + end for ids, end in zip(encoded, ends, strict=True)]
            encoded = [ids + end for ids, end in zip(encoded, ends, strict=True)]
            padding_side = padding_side or "right"
        data["input_ids"] = encoded
        data["attention_mask"] = [[1] * len(ids) for ids in encoded]
        if padding or (padding is None and return_tensors is not None):
            fill = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0, "labels": IGNORED}
            left = (padding_side or self.tokenizer.padding_side) == "left"
            data = {name: _padded(rows, fill[name], left=left) for name, rows in data.items()}
        features = BatchFeature(data, tensor_type=return_tensors)
        if frames:
            pixels = self.pixels(frames)
            features["pixel_values"] = pixels if return_tensors == "pt" else pixels.numpy()
        return features

    def _rows(self, texts: Sequence[str], images: Any) -> list[Frame]:
        """All frames in reading order, after checking that each text has as many placeholders as frames."""
        wanted = [text.count(IMAGE) for text in texts]
        rows = _frame_lists(images, texts)
        if rows is None:
            flat = [] if images is None else _frames(images)
            if len(flat) != sum(wanted):
                raise ModelError(
                    f"the text has {sum(wanted)} {IMAGE} for {len(flat)} frames; give one frame for every {IMAGE}"
                )
            return flat
        for row, (count, frames) in enumerate(zip(wanted, rows, strict=True)):
            if count != len(frames):
                raise ModelError(
                    f"text {row} has {count} {IMAGE} for {len(frames)} frames; give one frame for every {IMAGE}"
                )
        return [frame for frames in rows for frame in frames]

    # ---- videos

    def _with_videos(
        self, texts: list[str], images: Any, videos: Any, subtitles: Any
    ) -> tuple[list[str], list[list[Frame]]]:
        """Texts with `<ImageHere>` for `<VideoHere>`, and the frames of each, pictures and videos in reading order."""
        counts = [text.count(VIDEO) for text in texts]
        given = _videos(videos, counts)
        said: list[Any]
        if subtitles is None:
            said = ["off"] * len(given)
        elif len(given) == 1 and not (isinstance(subtitles, list) and len(subtitles) == 1):
            said = [subtitles]
        else:
            said = list(subtitles)
        if len(said) != len(given):
            raise ModelError(
                f"{len(said)} subtitles for {len(given)} videos; give one entry for each, or leave them out"
            )
        loose = _frame_lists(images, texts)
        if loose is None:
            flat = [] if images is None else _frames(images)
            loose = []
            for text in texts:
                take = text.count(IMAGE)
                loose.append(flat[:take])
                flat = flat[take:]
        parts = iter([{"video": video, "subtitles": words} for video, words in zip(given, said, strict=True)])
        prepared = [
            self._fill(text, row, [next(parts) for _ in range(count)])
            for text, row, count in zip(texts, loose, counts, strict=True)
        ]
        return [one.text for one in prepared], [list(one.frames) for one in prepared]

    def _sample(self, part: Mapping[str, Any]) -> _Sampled:
        """One video part of a message to frames and one text a frame."""
        unknown = sorted(set(part) - VIDEO_KEYS)
        sources = [name for name in ("frames", "path", "video", "url") if part.get(name) is not None]
        if unknown or len(sources) != 1:
            wrong = f"the unknown key {unknown[0]!r}" if unknown else f"{len(sources)} sources"
            raise ModelError(f'a video part has {wrong}; it takes one of "path", "frames", "url" and {_options()}')
        source = part[sources[0]]
        _check_local(source, "video")
        number = part.get("num_frames")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise ModelError(f"a video part has num_frames {number!r}; give a whole number of at least 1")
        clip: Clip | None = None
        if isinstance(source, (str, PathLike)):
            from minigpt4_video.media import read_clip
            from minigpt4_video.planning import too_many

            most = (self.window - self.answer_reserve) // self.tokens_per_frame
            if number is not None and number > most:
                raise too_many(number, most, self.window)
            clip = read_clip(
                source,
                number or self.frames,
                start=part.get("start"),
                end=part.get("end"),
                size=(self.image_size, self.image_size),
            )
        elif hasattr(source, "frames") and hasattr(source, "times"):
            clip = source
        frames: Sequence[Frame] = _frames(source) if clip is None else list(clip.frames)
        if not frames:
            raise ModelError("a video part has no frames; give at least one")
        times = part.get("times") if clip is None else clip.times
        return _Sampled(frames, self._texts(part, source, len(frames), times), clip)

    def _texts(self, part: Mapping[str, Any], source: Any, frames: int, times: Any) -> list[str]:
        """One text a frame, "" for none."""
        subtitles = part.get("subtitles")
        if subtitles is None or (isinstance(subtitles, str) and subtitles == "off") or len(_listed(subtitles)) == 0:
            return [""] * frames
        if all(isinstance(said, str) for said in _listed(subtitles)) and not isinstance(subtitles, (str, PathLike)):
            if len(subtitles) != frames:
                raise ModelError(
                    f"{len(subtitles)} subtitle texts for {frames} frames; give one a frame, or cues with times"
                )
            return list(subtitles)
        start, end = float(part.get("start") or 0.0), part.get("end")
        cues = [cue for cue in _cues(subtitles, source) if cue.end > start and (end is None or cue.start < end)]
        if cues and times is None:
            raise ModelError('subtitles with times need frames with times; give "times", a path, or one text a frame')
        from minigpt4_video.media import align

        return align(cues, np.asarray(times, dtype=np.float64)) if cues else [""] * frames

    def _fill(self, text: str, images: Sequence[Frame], parts: Sequence[Mapping[str, Any]]) -> Prepared:
        """Puts frames and subtitles in the place of each `<VideoHere>`, as many as the window holds."""
        from minigpt4_video.planning import plan

        pieces = text.split(VIDEO)
        if len(pieces) != len(parts) + 1:
            raise ModelError(f"the text has {len(pieces) - 1} {VIDEO} for {len(parts)} videos; give one video for each")
        around = len(self.encode("".join(pieces)))
        if not parts:
            if around + self.answer_reserve > self.window:
                raise PlanError(
                    f"this conversation ({around} tokens) and the room for the answer ({self.answer_reserve}) do not "
                    f"fit the window of {self.window} tokens; say less, or ask for a shorter answer"
                )
            return Prepared(text, tuple(images), (), (), ())
        share = (self.window - self.answer_reserve - around) // len(parts)
        sampled = [self._sample(part) for part in parts]
        loose = list(images)
        filled, frames = pieces[0], loose[: pieces[0].count(IMAGE)]
        loose = loose[len(frames) :]
        clips, texts, plans = [], [], []
        for video, piece in zip(sampled, pieces[1:], strict=True):
            one = plan(
                question_tokens=around,
                subtitles=[self.plain(said) for said in video.texts],
                tokens_per_frame=self.tokens_per_frame,
                window=around + share + self.answer_reserve,
                answer_reserve=self.answer_reserve,
                count=self._count,
            )
            kept = list(one.kept_frames)
            plans.append(one)
            texts.append(tuple(one.kept_subtitles))
            clips.append(None if video.clip is None else _part_of(video.clip, kept))
            filled += self.frame_text(one.kept_subtitles) + piece
            frames += [video.frames[index] for index in kept]
            here = piece.count(IMAGE)
            frames += loose[:here]
            loose = loose[here:]
        return Prepared(filled, tuple(frames), tuple(clips), tuple(texts), tuple(plans))

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # ---- conversations

    def prepare(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool | None = None,
        **options: Any,
    ) -> Prepared:
        """One conversation to its prompt, frames and plan.

        `num_frames`, `subtitles`, `start` and `end` are defaults for its video parts; any other option is a variable of
        the template, as in transformers.
        """
        shown: list[Mapping[str, Any]] = []
        pictures: list[Any] = []
        messages = [self._safe(message, shown, pictures) for message in conversation]
        if add_generation_prompt is None:
            add_generation_prompt = not conversation or conversation[-1]["role"] != "assistant"
        text = super().apply_chat_template(
            messages,
            chat_template=chat_template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **{name: value for name, value in options.items() if name not in VIDEO_OPTIONS},
        )
        defaults = {name: options[name] for name in VIDEO_OPTIONS if name in options}
        videos = [{**defaults, **part} for part in shown]
        return self._fill(text, [_still(picture) for picture in pictures], videos)

    def plan(self, conversation: Sequence[Mapping[str, Any]], **options: Any) -> Plan | None:
        """What of the conversation's first video fits the window, and what is left out; None without a video."""
        plans = self.prepare(conversation, **options).plans
        return plans[0] if plans else None

    def _safe(self, message: Mapping[str, Any], videos: list[Mapping[str, Any]], pictures: list[Any]) -> dict[str, Any]:
        """The message with its text made plain and its media collected in reading order."""
        if message.get("role") not in ROLES:
            raise ModelError(f"a message has the role {message.get('role')!r}; it can be {', '.join(ROLES)}")
        content = message.get("content", "")
        if isinstance(content, str):
            return {"role": message["role"], "content": [{"type": "text", "text": self.plain(content)}]}
        parts: list[dict[str, Any]] = []
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text" and isinstance(part.get("text"), str):
                parts.append({"type": "text", "text": self.plain(part["text"])})
            elif kind == "video":
                videos.append(part)
                parts.append({"type": "video"})
            elif kind == "image":
                pictures.append(part)
                parts.append({"type": "image"})
            else:
                what = "no text" if kind == "text" else f"type {kind!r}"
                raise ModelError(f"a message part has {what}; write a text, an image or a video")
        return {"role": message["role"], "content": parts}

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool | None = None,
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
        **options: Any,
    ) -> Any:
        """A conversation, or a batch of them, to the model's inputs; to the literal prompts with `tokenize=False`.

        `chat_template` is the name of one of the processor's templates or a template; options are those of `prepare`,
        and `padding`, `padding_side` and `add_special_tokens`.
        """
        options = {**(processor_kwargs or {}), **options}
        call = {
            name: options.pop(name) for name in ("padding", "padding_side", "add_special_tokens") if name in options
        }
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        conversations: Iterable[Any] = conversation if batched else [conversation]
        if continue_final_message:
            add_generation_prompt = False
        prepared = [
            self.prepare(
                getattr(one, "messages", one),
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                **options,
            )
            for one in conversations
        ]
        if not tokenize:
            texts = [one.text for one in prepared]
            return texts if batched else texts[0]
        inputs = self(
            text=[one.text for one in prepared],
            images=[list(one.frames) for one in prepared],
            return_tensors=return_tensors,
            **call,
        )
        return inputs if return_dict else inputs["input_ids"]


def _picture(frame: Frame) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ModelError(
            f"a frame must be a PIL image or RGB uint8 (height, width, 3), not {array.dtype} {tuple(array.shape)}"
        )
    return Image.fromarray(array)


def _squashed(frame: Frame, size: int) -> np.ndarray:
    """RGB uint8 (size, size, 3)."""
    if isinstance(frame, np.ndarray) and frame.shape == (size, size, 3) and frame.dtype == np.uint8:
        return frame
    return np.asarray(_picture(frame).resize((size, size), Image.Resampling.BICUBIC))


def _still(part: Mapping[str, Any]) -> Frame:
    """An image part of a message to a frame."""
    source = next((part[name] for name in ("image", "path", "url") if part.get(name) is not None), None)
    if source is None:
        raise ModelError('an image part names no picture; give it "path", "image" or "url"')
    _check_local(source, "picture")
    if isinstance(source, (str, PathLike)):
        from minigpt4_video.media import read_clip

        still: Frame = read_clip(source, 1).frames[0]
        return still
    frame: Frame = source
    return frame


def _check_local(source: Any, what: str) -> None:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ModelError(f"{source} is an address; download the {what} and give its path")


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, (str, PathLike)) else list(value)


def _options() -> str:
    return ", ".join(f'"{name}"' for name in VIDEO_OPTIONS)


def _cues(subtitles: Any, source: Any) -> list[Cue]:
    """Cues from "auto", a file, or what a message writes out."""
    from minigpt4_video.media import Cue, find_subtitles, read_subtitles

    if not isinstance(subtitles, (str, PathLike)):
        try:
            return [
                cue if isinstance(cue, Cue) else Cue(float(cue["start"]), float(cue["end"]), str(cue["text"]))
                for cue in subtitles
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError('a cue must be {"start": seconds, "end": seconds, "text": ...}') from error
    is_file = isinstance(source, (str, PathLike))
    if subtitles != "auto":
        return read_subtitles(subtitles, fps=_rate(source, subtitles) if is_file else None)
    found = find_subtitles(source) if is_file else None
    if found is None:
        return []
    return read_subtitles(found.path, track=found.track, fps=_rate(source, found.path))


def _rate(video: str | PathLike[str], subtitles: str | PathLike[str]) -> float | None:
    """Frames a second, for subtitles of the kind that counts them; None for the others, which need no look."""
    from minigpt4_video.media import probe

    return probe(video).fps if str(subtitles).lower().endswith(".sub") else None


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (hasattr(value, "ndim") and value.ndim == 3)


def _frames(value: Any) -> list[Frame]:
    """One frame, a sequence of frames, or an array (frames, H, W, 3), to a list of frames."""
    return [value] if _is_frame(value) else list(value)


def _frame_lists(images: Any, texts: Sequence[str]) -> list[list[Frame]] | None:
    """One list of frames a text, or None where the frames come as one flat list."""
    if images is None or _is_frame(images) or not isinstance(images, (list, tuple)) or not images:
        return None
    if any(_is_frame(image) for image in images):
        return None
    if len(images) != len(texts):
        raise ModelError(f"{len(images)} lists of frames for {len(texts)} texts; give one list for each text")
    return [[] if row is None else _frames(row) for row in images]


def _videos(videos: Any, counts: Sequence[int]) -> list[Video]:
    """One entry a `<VideoHere>`: a lone video, a list of videos, or a list of lists."""
    if (
        isinstance(videos, (str, PathLike))
        or hasattr(videos, "times")
        or (hasattr(videos, "ndim") and videos.ndim == 4)
    ):
        return [videos]
    given = list(videos)
    if given and all(_is_frame(one) for one in given):
        return [given]
    if all(isinstance(row, (list, tuple)) and not any(map(_is_frame, row)) for row in given):
        given = [video for row in given for video in row]  # one list of videos for each text
    if len(given) != sum(counts):
        raise ModelError(f"the text has {sum(counts)} {VIDEO} for {len(given)} videos; give one video for each {VIDEO}")
    return given


def _part_of(clip: Clip, kept: Sequence[int]) -> Clip:
    return type(clip)(frames=clip.frames[list(kept)], times=clip.times[list(kept)], duration=clip.duration)


def _padded(rows: Sequence[Sequence[int]], value: int, *, left: bool) -> list[list[int]]:
    width = max(len(row) for row in rows)
    if left:
        return [[value] * (width - len(row)) + list(row) for row in rows]
    return [list(row) + [value] * (width - len(row)) for row in rows]
