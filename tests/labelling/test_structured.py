"""Objects by a schema: found, mended where that is beyond doubt, and refused otherwise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.checks import notes, repeats, without_opening
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.structured import as_asked, found, question, wanted

SCHEMA = {
    "type": "object",
    "properties": {
        "subject": {"type": "string"},
        "count": {"type": "integer", "description": "How many objects are there?"},
        "outdoors": {"type": "boolean"},
        "colours": {"type": "array", "items": {"type": "string"}},
        "mood": {"enum": ["calm", "busy"]},
    },
    "required": ["subject", "count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "text",
    [
        '{"subject": "a dog", "count": 2}',
        'Sure! ```json\n{"subject": "a dog", "count": 2}\n``` Enjoy.',
        "{'subject': 'a dog', 'count': 2,}",
        '{"subject": "a dog", "count": "two"',
        '{"subject": "a dog", "count": 2.0, "shoe_size": 44}',
        "{“subject”: “a dog”, “count”: 2}",
    ],
)
def test_what_is_nearly_an_object_is_mended(text):
    value, wrong = found(text, SCHEMA)

    assert wrong == {}
    assert value == {"subject": "a dog", "count": 2}


def test_values_take_the_type_that_is_asked_for():
    text = '{"subject": 7, "count": "3 dogs", "outdoors": "Yes.", "colours": "red, blue and green", "mood": "Calm."}'

    value, wrong = found(text, SCHEMA)

    assert wrong == {}
    assert value == {
        "subject": "7",
        "count": 3,
        "outdoors": True,
        "colours": ["red", "blue", "green"],
        "mood": "calm",
    }


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("A dog runs.", {"subject", "count"}),
        ('{"subject": "a dog"}', {"count"}),
        ('{"subject": "a dog", "count": "between 2 and 5"}', {"count"}),
        ('{"subject": "a dog", "count": 2, "mood": "sleepy"}', {"mood"}),
        ("[1, 2]", {"subject", "count"}),
        ("{{{{", {"subject", "count"}),
        ("{" * 5000, {"subject", "count"}),
    ],
)
def test_what_is_in_doubt_is_told_by_its_field(text, fields):
    assert set(found(text, SCHEMA).wrong) == fields


@given(st.text())
def test_no_answer_is_a_crash(text):
    value, wrong = found(text, SCHEMA)
    assert wrong or {"subject", "count"} <= set(value)


@given(
    st.fixed_dictionaries(
        {"subject": st.text(min_size=1), "count": st.integers(0, 99)},
        optional={"outdoors": st.booleans(), "mood": st.sampled_from(["calm", "busy"])},
    )
)
def test_an_object_that_keeps_to_the_schema_stays_as_it_is(value):
    assert found("Here: " + json.dumps(value), SCHEMA) == (value, {})


def test_numbers_are_read_as_words_of_both_languages():
    assert [as_asked(text, {"type": "integer"}) for text in ("two", "Three.", "两", "0")] == [2, 3, 2, 0]
    assert as_asked("是", {"type": "boolean"}) is True
    assert as_asked("perhaps", {"type": "boolean"}) == "perhaps"


def test_a_field_is_asked_for_by_its_description_or_its_name():
    assert question("count", SCHEMA, "en") == "How many objects are there?"
    assert question("main_subject", SCHEMA, "en") == "What is the main subject in this video?"
    assert "subject" in question("subject", SCHEMA, "zh")
    assert wanted(SCHEMA) == ["subject", "count"]


def test_what_is_no_schema_of_an_object_is_refused_before_any_work():
    fetched = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}
    for schema in ({"type": "array"}, {"type": "object"}, {"type": "nonsense", "properties": {"a": {}}}, fetched):
        with pytest.raises(LabellingError):
            requests(schemas={"scene": schema})


def test_notes_tell_what_looks_wrong():
    assert notes("A red circle moves.", "en") == []
    assert notes("红色圆形向左移动。", "zh") == []
    assert notes("I'm sorry, I cannot see the video.", "en") == ["refusal"]
    assert notes("抱歉，我无法观看视频。", "zh") == ["refusal"]
    assert notes("红色圆形", "en") == ["other language"]
    assert notes("A red circle", "zh") == ["other language"]
    assert notes("The video shows a red circle.", "en") == ["opening"]
    assert "repeats" in notes("and then a cat " * 5, "en")
    assert not repeats("a cat and a dog and a cat and a bird")


def test_an_opening_is_taken_off():
    assert without_opening("The video shows a red circle.") == "A red circle."
    assert without_opening("This video depicts a dog.") == "A dog."
    assert without_opening("这段视频展示了一只狗。") == "一只狗。"
    for whole in ("A red circle.", "The videographer waves.", "视频", "The video shows"):
        assert without_opening(whole) == whole
