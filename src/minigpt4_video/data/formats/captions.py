"""Sets with one text for a whole video or picture."""

from collections.abc import Iterator

from minigpt4_video.data.formats.place import Place, asked, captioned, drawn, language_of, marked
from minigpt4_video.data.formats.rows import Records, Row, Unusable, each, table, words
from minigpt4_video.data.sample import Record
from minigpt4_video.instructions import VIDEO_DETAIL
from minigpt4_video.messages import Part


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


def sharegpt4video(place: Place) -> Records:
    """ShareGPT4Video: `{"video_id", "video_path", "captions": [{"idx", "content"}]}`; the caption with the idx -1 is
    that of the whole video, the others have no times and are left."""

    def convert(row: Row) -> Iterator[Record]:
        captions = row.list("captions")
        whole = [one for one in captions if isinstance(one, dict) and str(one.get("idx")) == "-1"]
        if len(whole) != 1:
            raise Unusable("has not one caption of the whole video", f"{len(whole)} with the idx -1")
        part = place.shown_video(place.video(row.name("video_path", "video_id")))
        yield _detailed(place, row.name("video_id"), part, words(whole[0].get("content"), "content"))

    return each(table(place.path), convert)


def shot2story(place: Place) -> Records:
    """Shot2Story: a summary of the video and a caption for each of its shots, which are files of their own."""

    def convert(row: Row) -> Iterator[Record]:
        part = place.shown_video(place.video(row.name("video")))
        yield _detailed(place, row.name("image_id", "id", "video"), part, row.text("whole_caption"))
        names, texts = row.values.get("video_names") or [], row.values.get("captions") or []
        if not isinstance(names, list) or not isinstance(texts, list) or len(names) != len(texts):
            raise Unusable("has another number of shots than of captions", row.values.get("video_names"))
        for name, text in zip(names, texts, strict=True):
            shot = place.shown_video(place.video(words(name, "video_names")))
            yield captioned(place, name, shot, words(text, "captions"))

    return each(table(place.path), convert)


def labels(place: Place) -> Records:
    """Captions and answers that a model wrote: `id`, `video`, `text`, and as far as they are known `prompt`, `start`,
    `end`, `language`, `subtitles`, `status` and `error`; a row whose status is not "success" is none to learn from.
    Where a row has a `file`, `video` is no more than a name."""

    def convert(row: Row) -> Iterator[Record]:
        status = row.values.get("status") or "success"
        if status != "success":
            raise Unusable("was not labelled", f"{status}: {row.values.get('error')}")
        name, text = row.name("id"), row.text("text")
        start, end = row.number("start"), row.number("end")
        if (start or 0) < 0 or (end is not None and end <= (start or 0)):
            raise Unusable("ends before it starts", f"{start} to {end}")
        video = row.name("file" if row.values.get("file") else "video")
        part = place.shown_video(place.video(video), start, end)
        if row.values.get("subtitles") == "off":
            part["subtitles"] = "off"
        if row.values.get("prompt") is None:
            yield captioned(place, name, part, text)
        else:
            language = row.values.get("language")
            known = language if language in ("en", "zh") else None
            yield asked(place, name, part, row.text("prompt"), text, known)

    return each(table(place.path, (".parquet", ".jsonl", ".csv")), convert)


def _detailed(place: Place, name: str, part: Part, text: str) -> Record:
    """A record that asks for all that a video shows."""
    language = language_of(text)
    return asked(place, name, part, drawn(VIDEO_DETAIL[language], name), text, language)
