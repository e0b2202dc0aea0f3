"""Lists and times written into cells of csv files by strangers."""

import ast
import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt4_video.data.formats.clips import cell, seconds, span
from minigpt4_video.data.formats.rows import Unusable

TEXTS = st.lists(st.text(max_size=12) | st.sampled_from(["a man's dog", 'say "no"', 'it\'s "so"', "a, b", "]", "\\"]))


@given(TEXTS)
@example(["a man's", 'he said "hi"'])
def test_a_list_of_texts_is_read_as_python_wrote_it(texts):
    assert cell(repr(texts)) == texts


@given(TEXTS)
def test_a_list_of_texts_is_read_as_json_wrote_it(texts):
    assert cell(json.dumps(texts)) == texts


@given(st.lists(st.lists(st.tuples(st.text(max_size=6), st.floats(-1e9, 1e9)).map(list), max_size=3), max_size=3))
def test_nested_lists_are_read(values):
    assert cell(repr(values)) == values


@given(st.text(st.sampled_from("[]()'\",\\ ab1.{}:\nnul-"), max_size=20))
@example("['a' 'b']")
@example("[\"a\", 'b',]")
@example("[,]")
@example("[1] [2]")
@example("  ['a']")
def test_what_python_reads_as_a_list_is_the_same_list_here_and_the_rest_is_refused_or_json(text):
    try:
        wanted = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError):
        wanted = None
    try:
        found = cell(text)
    except Unusable:
        assert not isinstance(wanted, list)
        return
    assert isinstance(found, list)
    if isinstance(wanted, list):
        assert found == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "None", "5", "'a'", "{'a': 1}", "('a',)", "[" * 100_000, "[" * 100_000 + "]" * 100_000, "[(" * 50_000,
        "__import__('os').getcwd()", "[x for x in 'ab']", "[open('/etc/passwd').read()]", "['a', ", "[\0]", "[1e",
        "[-]", "[*'ab']", "['a'] + ['b']", "[{[]}]", "['a'" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(text):
    with pytest.raises(Unusable):
        cell(text)


@given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_times_are_read_to_the_millisecond(hours, minutes, whole, thousandths):
    wanted = hours * 3600 + minutes * 60 + whole + thousandths / 1000

    assert seconds(f"{hours}:{minutes:02}:{whole:02}.{thousandths:03}") == pytest.approx(wanted, abs=1e-6)
    assert seconds(f"{hours:02}:{minutes:02}:{whole:02},{thousandths:03}") == pytest.approx(wanted, abs=1e-6)
    assert seconds(wanted) == wanted


@given(
    st.text(max_size=12) | st.none() | st.booleans() | st.floats() | st.integers(max_value=-1) | st.lists(st.integers())
)
@example("٠:٠١:٠٢")
@example("1:2")
@example("::")
@example("-1:00:00")
@example("inf")
@example(10**400)
def test_what_is_no_time_is_refused_and_never_negative_or_endless(value):
    try:
        found = seconds(value)
    except Unusable:
        return
    assert 0 <= found <= sys.float_info.max


@pytest.mark.parametrize(
    "value", [None, [], ["0:00:01"], ["0:00:02", "0:00:01"], ["0:00:01", "0:00:01"], "ab", [1, None], [1, 2, 3], {}]
)
def test_what_is_no_span_is_refused(value):
    with pytest.raises(Unusable):
        span(value)
