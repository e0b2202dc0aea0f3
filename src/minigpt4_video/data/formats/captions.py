"""Sets with one text for a whole video or picture."""

from collections.abc import Iterator

from minigpt4_video.data.formats.place import Place, asked, captioned, marked
from minigpt4_video.data.formats.rows import Records, Row, each, table
from minigpt4_video.data.sample import Record


def webvid(place: Place) -> Records:
    """WebVid, csv (`videoid,contentUrl,duration,page_dir,name`) or json. Captions are whole: the original's loader lost
    all that stands before the last "-" or ":"."""

    def convert(row: Row) -> Iterator[Record]:
        name = row.name("videoid")
        inner = f"{row.name('page_dir')}/{name}" if row.values.get("page_dir") else name
        yield captioned(place, name, place.shown_video(place.video(inner)), row.text("name"))

    return each(table(place.path), convert)


def cmd(place: Place) -> Records:
    """Condensed Movies, `{"image_id", "caption"}`; subtitles are `ID.en.vtt`."""

    def convert(row: Row) -> Iterator[Record]:
        name = row.name("image_id")
        yield captioned(place, name, place.shown_video(place.video(name)), row.text("caption"))

    return each(table(place.path), convert)


def cc_sbu_align(place: Place) -> Records:
    """MiniGPT-4's second stage: `filter_cap.json`, `{"annotations": [{"image_id", "caption"}]}`, with `image/`."""

    def convert(row: Row) -> Iterator[Record]:
        name = row.name("image_id")
        part = {"type": "image", "path": place.picture(f"image/{name}")}
        yield captioned(place, name, part, row.text("caption"))

    return each(table(place.path), convert)


def videoinstruct(place: Place) -> Records:
    """VideoInstruct-100K as Video-ChatGPT gives it: `{"q", "a", "video_id"}`, one question a row."""

    def convert(row: Row) -> Iterator[Record]:
        name, question, answer = row.name("video_id"), row.text("q", "question"), row.text("a", "answer")
        part = place.shown_video(place.video(name))
        yield asked(place, marked(name, question, answer), part, question, answer)

    return each(table(place.path), convert)
