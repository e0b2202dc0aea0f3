"""What stops a job."""

import pytest

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.alarms import LEAST, Alarms
from minigpt4_video.labelling.rows import Label


def labelled(
    number: int, text: str = "", status: str = "success", style: str = "brief", frames: str = ""
) -> list[Label]:
    label = Label(number, str(number), f"{number}.mp4", None, None, style, "en", "?", status, text=text)
    label.error = "broken" if status == "error" else ""
    label.frame_hash = frames or f"{number:048x}"
    return [label]


def alarms(failures: float = 0.5, alike: float = 0.5) -> Alarms:
    return Alarms(failures, alike, lambda label: label.style == "brief")


def look(alarm: Alarms, all_labels) -> int:
    for count, labels in enumerate(all_labels):
        try:
            alarm.look(labels)
        except LabellingError:
            return count + 1
    return 0


def test_a_model_that_says_the_same_of_everything_is_noticed():
    alarm = alarms()
    for number in range(LEAST - 1):
        alarm.look(labelled(number, "A dog"))

    with pytest.raises(LabellingError, match="are the same, 'A dog'"):
        alarm.look(labelled(LEAST, "A dog"))


def test_captions_that_differ_are_no_alarm():
    assert look(alarms(), (labelled(n, f"A dog {n % 3}") for n in range(500))) == 0


def test_videos_that_look_the_same_may_be_called_the_same():
    assert look(alarms(), (labelled(n, "A dog", frames="0") for n in range(500))) == 0


def test_answers_to_questions_may_be_the_same_everywhere():
    assert look(alarms(), (labelled(n, "Yes", style="question-1") for n in range(500))) == 0


def test_the_alarm_rings_when_a_model_begins_to_fail_late():
    good = [labelled(n, f"A dog {n}") for n in range(300)]
    assert 300 < look(alarms(), good + [labelled(n, "A dog") for n in range(300, 600)]) <= 300 + 110


def test_too_many_failures_stop_the_job_with_the_last_reason():
    alarm = alarms()
    with pytest.raises(LabellingError, match="the last: broken"):
        for number in range(LEAST):
            alarm.look(labelled(number, status="error"))


def test_what_failed_before_may_fail_again():
    alarm = alarms()
    for number in range(2 * LEAST):
        alarm.look(labelled(number, status="error"), failed_before=True)
    with pytest.raises(LabellingError, match=f"{LEAST} of the last {LEAST}"):
        for number in range(LEAST):
            alarm.look(labelled(number, status="error"))


def test_some_failures_and_any_number_of_skips_are_no_alarm():
    mixed = [labelled(n, status="error" if n % 2 else "success", text=str(n)) for n in range(400)]
    assert look(alarms(), mixed) == 0
    assert look(alarms(0.1), (labelled(n, status="skipped") for n in range(400))) == 0
    assert look(alarms(0.4), mixed) == LEAST
    assert look(alarms(1.0, 1.0), (labelled(n, status="error") for n in range(400))) == 0
