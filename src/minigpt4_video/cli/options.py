"""Options that several verbs share, so that they read and behave alike."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

VideoSource = Annotated[
    str,
    Argument(
        metavar="VIDEO", help="A video file, a picture, an http(s) address, or a YouTube link.", show_default=False
    ),
]
Model = Annotated[
    str,
    Option(
        "--model", "-m", envvar="MINIGPT4_VIDEO_MODEL", help="A model folder, or tiny: the one inside this package."
    ),
]
Device = Annotated[
    str, Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU, or several, where that holds the model.")
]
Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"], Option(help="Number format of the weights; auto: as stored.")
]
Quantize = Annotated[
    Literal["8bit", "4bit"] | None,
    Option(
        help="Hold the language model in 8 or 4 bit numbers: less memory, slightly other answers.", show_default=False
    ),
]
Seed = Annotated[
    int | None,
    Option(min=0, max=2**63 - 1, help="Makes the draws of a temperature repeatable.", show_default=False),
]
MaxNewTokens = Annotated[
    int | None, Option(min=1, help="Longest answer, in tokens [default: the model's own].", show_default=False)
]
Temperature = Annotated[
    float, Option(min=0.0, max=1e6, help="0 always takes the likeliest word; higher is more varied.")
]
Subtitles = Annotated[
    str, Option(help="auto: a file beside the video, else a track inside it, else its speech; off; or a file.")
]
SubtitleLanguage = Annotated[
    str | None,
    Option(metavar="CODE", help="Take files and tracks in this language first: en, zh, pt-BR.", show_default=False),
]
Speech = Annotated[
    str | None,
    Option(
        metavar="MODEL",
        envvar="MINIGPT4_VIDEO_SPEECH",
        help="Speech model: a folder, a name on the hub, pocketsphinx, or off [default: one that is on this machine].",
        show_default=False,
    ),
]
SaveSubtitles = Annotated[
    Path | None, Option(metavar="FILE.vtt", help="Write the subtitles, or the speech, to a file.", show_default=False)
]
Encoding = Annotated[
    str | None, Option(help="Character encoding of the subtitle file [default: detected].", show_default=False)
]
Frames = Annotated[int | None, Option(min=1, help="Frames to look at [default: the model's own].", show_default=False)]
Long = Annotated[
    Literal["auto", "on", "off"],
    Option(
        help="on: answer from the clips that the question is about; off: from frames of the whole; auto: on where "
        "frames would lie more than 10 seconds apart."
    ),
]
IndexFolder = Annotated[
    Path | None,
    Option(
        "--index",
        metavar="FOLDER",
        help="A long video's index, as minigpt4-video index makes it [default: kept with the store].",
        show_default=False,
    ),
]
Sentences = Annotated[
    str | None,
    Option(
        "--sentences",
        metavar="MODEL",
        help="Sentence encoder that finds clips beside their words: a folder, or a name on the hub.",
        show_default=False,
    ),
]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout, nothing else there.")]
