"""Objects that a model was asked for by a JSON schema: found in what it said, mended where that is safe, and checked.

What cannot be mended is asked for once more, each wrong field by a question of its own, which even a small model
can answer.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from minigpt4_video.errors import LabellingError

EN_NUMBERS = "zero one two three four five six seven eight nine ten"
NUMBERS = {
    **{word: at for at, word in enumerate(EN_NUMBERS.split())},
    **{word: at for at, word in enumerate("零一二三四五六七八九十")},
    "none": 0, "两": 2, "没有": 0,
}  # fmt: skip
YES = {"yes", "true", "是", "有", "对", "是的"}
NO = {"no", "false", "否", "没有", "不", "不是", "none"}
QUESTION = {"en": "What is the {name} in this video?", "zh": "这段视频的{name}是什么？"}
LISTED = re.compile(r"\s*(?:[,;、，；\n]|\band\b|和)\s*")
REFERENCE = re.compile(r'"\$(?:ref|dynamicRef)": "([^"]*)"')
CLOSERS = {"{": "}", "[": "]"}


class Found(NamedTuple):
    """What was made of an answer."""

    value: dict[str, Any]
    """As far as it was found."""
    wrong: dict[str, str]
    """Fields that are missing or not as the schema says, and why; "" stands for the whole object."""


def check_schema(name: str, schema: Mapping[str, Any]) -> None:
    """Raises LabellingError unless it is a JSON schema of an object with properties."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise LabellingError(f"{name} is no JSON schema: {error.message}") from error
    if any(not reference.startswith("#") for reference in REFERENCE.findall(json.dumps(schema))):
        raise LabellingError(f"{name} refers to another schema; write all of it into one file")
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not properties:
        raise LabellingError(f'{name} is no schema of an object; give it "type": "object" and "properties"')


def found(text: str, schema: Mapping[str, Any]) -> Found:
    """The object in an answer, mended and checked."""
    value = _object(text)
    if value is None:
        return Found({}, dict.fromkeys(wanted(schema), "was not said"))
    mended = {name: as_asked(one, schema["properties"].get(name, {})) for name, one in value.items()}
    if schema.get("additionalProperties") is False:
        mended = {name: one for name, one in mended.items() if name in schema["properties"]}
    return checked(mended, schema)


def checked(value: dict[str, Any], schema: Mapping[str, Any]) -> Found:
    """What of an object is not as the schema says."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    wrong: dict[str, str] = {}
    # The registry is empty, so that a schema cannot have anything fetched.
    for error in Draft202012Validator(dict(schema), registry=Registry()).iter_errors(value):
        missing = error.validator == "required" and not error.absolute_path
        names = [name for name in error.validator_value if name not in value] if missing else error.absolute_path
        wrong |= {str(name): error.message[:200] for name in list(names)[: None if missing else 1]}
        if not missing and not error.absolute_path:
            wrong[""] = error.message[:200]
    return Found(value, wrong)


def wanted(schema: Mapping[str, Any]) -> list[str]:
    """The fields that an object must have; all, where the schema requires none."""
    return list(schema.get("required") or schema["properties"])


def question(name: str, schema: Mapping[str, Any], language: str) -> str:
    """The question for one field: what the schema says of it, or its name."""
    said = schema["properties"].get(name, {}).get("description")
    return str(said) if said else QUESTION[language].format(name=name.replace("_", " "))


def as_asked(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value in the type that a schema asks for, where there is one reading of it; else the value itself."""
    kind = schema.get("type")
    if isinstance(value, str):
        value = _of_text(value, schema)
    if kind == "array":
        inner = schema.get("items") or {}
        listed = value if isinstance(value, list) else [value]
        return [as_asked(one, inner) for one in listed]
    if kind == "object" and isinstance(value, dict):
        properties = schema.get("properties") or {}
        return {name: as_asked(one, properties.get(name, {})) for name, one in value.items()}
    if kind == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _of_text(text: str, schema: Mapping[str, Any]) -> Any:
    kind, options = schema.get("type"), schema.get("enum")
    plain = text.strip().strip(".。!！").strip()
    if options:
        alike = [one for one in options if isinstance(one, str) and one.casefold() == plain.casefold()]
        return alike[0] if alike else text
    if kind == "boolean":
        first = re.split(r"[\s,，.。]", plain.casefold())[0]
        return True if first in YES else False if first in NO else text
    if kind in ("integer", "number"):
        if plain.casefold() in NUMBERS:
            return NUMBERS[plain.casefold()]
        numbers = re.findall(r"-?\d+(?:\.\d+)?", plain)
        if len(numbers) == 1 and (kind == "number" or "." not in numbers[0]):
            return float(numbers[0]) if "." in numbers[0] else int(numbers[0])
        return text
    if kind == "array":
        return [part for part in LISTED.split(plain) if part]
    return text


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text holds, or that it nearly holds."""
    begin = text.find("{")
    if begin < 0:
        return None
    body = text[begin:].replace("“", '"').replace("”", '"')
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(body)
        return value if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        pass
    closed = _closed(body)
    bare = re.sub(r",(\s*[}\]])", r"\1", closed)
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(bare)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _closed(body: str) -> str:
    """Up to the end of the first object; what is open at the end of the text is closed."""
    open_: list[str] = []
    quote = ""
    escaped = False
    for at, letter in enumerate(body):
        if quote:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == quote:
                quote = ""
        elif letter == '"' or (letter == "'" and body[max(0, at - 1)] in "{[:, "):
            quote = letter
        elif letter in CLOSERS:
            open_.append(CLOSERS[letter])
        elif open_ and letter == open_[-1]:
            open_.pop()
            if not open_:
                return body[: at + 1]
    ended = body + quote
    if open_ and open_[-1] == "}":
        ended = re.sub(r'([{,])\s*"[^"]*"\s*:?\s*$', r"\1", ended)  # a name whose value was not said any more
    return re.sub(r"[,:]\s*$", "", ended) + "".join(reversed(open_))
