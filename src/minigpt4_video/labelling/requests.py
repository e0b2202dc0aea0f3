"""What is asked of every clip: captions in styles and languages, questions, and objects by a JSON schema."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt4_video.errors import LabellingError
from minigpt4_video.instructions import CAPTION_STYLE, caption_request
from minigpt4_video.labelling.structured import check_schema

SCHEMA_REQUEST: dict[str, str] = {
    "en": "Describe this video as one JSON object, without any other words, by this JSON schema: ",
    "zh": "请用一个 JSON 对象描述这段视频，不要其他文字，格式遵循此 JSON schema：",
}


@dataclass(frozen=True)
class Asked:
    """One request that is put to every clip."""

    style: str
    """Its name: "brief", "detailed", "tags", "question-1", or the title of a schema."""
    language: str
    """"en" or "zh"; "" for questions, which are in whatever language they are written."""
    text: str
    """The words that the model reads."""
    schema: str | None = None
    """The JSON schema that the answer must keep to, as text."""

    @property
    def name(self) -> str:
        return f"{self.style}/{self.language}" if self.language else self.style

    @property
    def is_caption(self) -> bool:
        """Whether answers to it should differ from video to video."""
        return self.style in CAPTION_STYLE["en"]

    @property
    def is_question(self) -> bool:
        """Whether it may be about one part of a video alone."""
        return self.schema is None and not self.is_caption


def requests(
    styles: Sequence[str] = ("brief",),
    languages: Sequence[str] = ("en",),
    questions: Sequence[str] = (),
    schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Asked, ...]:
    """Every style and every schema (by its name) in every language, then the questions. Raises LabellingError where
    nothing is asked, or the same twice."""
    asked = [Asked(style, language, caption_request(style, language)) for style in styles for language in languages]
    for name, schema in (schemas or {}).items():
        check_schema(name, schema)
        written = json.dumps(schema, ensure_ascii=False, sort_keys=True)
        asked += [Asked(name, language, SCHEMA_REQUEST[language] + written, written) for language in languages]
    asked += [Asked(f"question-{number}", "", text) for number, text in enumerate(questions, 1)]
    if not asked:
        raise LabellingError("nothing is asked of the videos; name a style, a question or a schema")
    if any(not one.text.strip() for one in asked):
        raise LabellingError("a question is empty; write what you want to know")
    for kind, values in (("text", [one.text for one in asked]), ("name", [one.name for one in asked])):
        if twice := [value for value in values if values.count(value) > 1]:
            raise LabellingError(f"two requests have the same {kind}, {twice[0]!r:.80}; ask each once")
    return tuple(asked)
