"""One self-contained page about one video: what the model was shown, what was asked, what it said."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from minigpt4_video.inference.answer import Answer, Evidence
from minigpt4_video.inference.contact_sheet import clock
from minigpt4_video.planning import Plan

FRAME_WIDTH = 320

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1f2328; --soft: #667; --line: #e2e0da;
  --frames: #3f6fb5; --tags: #8aa6d0; --subtitles: #2f9c7a; --question: #d18f2c; --reserve: #b9a7cf; --free: #e9e7e1; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --card: #1f2227; --ink: #e8e6e1; --soft: #9aa0a8;
  --line: #33373e; --frames: #6b9be0; --tags: #46608a; --subtitles: #4dbf9a; --question: #e0a950; --reserve: #7e6d98;
  --free: #2a2e35; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: 2.5rem 0 .75rem; }
.facts { color: var(--soft); margin: .25rem 0 0; }
.turn { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem;
  margin-top: 1.25rem; overflow-wrap: anywhere; }
.question { color: var(--soft); margin: 0; }
.answer { font-size: 1.35rem; margin: .25rem 0 .75rem; white-space: pre-wrap; }
.confidence { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; font-size: .875rem; }
.confidence span { color: var(--soft); }
.meter { width: 8rem; height: .5rem; border-radius: .25rem; background: var(--free); overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--subtitles); }
.bar { display: flex; height: 1.5rem; border-radius: .4rem; overflow: hidden; background: var(--free); }
.bar i { display: block; min-width: 1px; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .6rem 0 0;
  font-size: .875rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: .2rem; margin-right: .4rem; }
.frames { background: var(--frames); } .tags { background: var(--tags); } .subtitles { background: var(--subtitles); }
.words { background: var(--question); } .reserve { background: var(--reserve); } .free { background: var(--free); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { display: block; width: 100%; border-radius: .4rem; background: var(--free); }
figcaption { font-size: .875rem; margin-top: .3rem; overflow-wrap: anywhere; }
.evidence { padding-left: 1.25rem; font-size: .875rem; } .evidence p { margin: .1rem 0 .6rem; white-space: pre-wrap; }
.evidence .meter { display: inline-block; vertical-align: middle; }
time { color: var(--soft); font-variant-numeric: tabular-nums; margin-right: .4rem; }
.unseen img { opacity: .3; } .unseen figcaption { color: var(--soft); }
footer { margin-top: 3rem; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
"""


class Turn(NamedTuple):
    question: str
    answer: Answer


class Shown(NamedTuple):
    """The frames that were taken from a video, before the plan chose among them."""

    title: str
    facts: str
    """One line: length, size, codec, where the subtitles came from."""
    frames: np.ndarray
    """(N, H, W, 3) uint8 RGB."""
    times: Sequence[float]
    """N, seconds."""
    subtitles: Sequence[str]
    """N, "" where nothing was said."""


def page(shown: Shown, turns: Sequence[Turn], model: str) -> str:
    """The page as HTML. All text is escaped, and a policy forbids scripts and the network."""
    plan = turns[-1].answer.plan
    kept = dict(zip(plan.kept_frames, plan.kept_subtitles, strict=True))
    figures = "\n".join(
        _figure(frame, time, kept.get(index, text), index in kept)
        for index, (frame, time, text) in enumerate(zip(shown.frames, shown.times, shown.subtitles, strict=True))
    )
    left_out = "".join(f"<li>{escape(sentence)}</li>" for sentence in plan.left_out)
    return document(
        shown.title,
        f"""<header><h1 dir="auto">{escape(shown.title)}</h1><p class="facts">{escape(shown.facts)}</p></header>
{"".join(_turn(turn) for turn in turns)}
<h2>What fits the model's context</h2>
{_bar(plan)}
{f"<ul>{left_out}</ul>" if left_out else "<p class=facts>Nothing was left out.</p>"}
<h2>What the model saw</h2>
<div class="grid">
{figures}
</div>
<footer>Answered by {escape(model)}. Made with MiniGPT4-Video.</footer>
""",
    )


def document(title: str, body: str, style: str = "") -> str:
    """A whole page. Nothing in it can run or reach the network, whatever `body` quotes; `style` is added."""
    return f"""<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def _turn(turn: Turn) -> str:
    answer = turn.answer
    percent = round(100 * answer.certainty)
    return f"""<section class="turn">
<p class="question" dir="auto">{escape(turn.question)}</p>
<p class="answer" dir="auto">{escape(answer.text) or "<em>(no words)</em>"}</p>
<div class="confidence"><span class="meter"><i style="width:{percent}%"></i></span>
<span>confidence {percent} % a token (mean log-probability {answer.confidence:.3f})</span>
<span>{answer.timings.total:.1f} s</span></div>
{_evidence(answer.evidence)}</section>
"""


def _evidence(evidence: Sequence[Evidence]) -> str:
    """The parts of a long video that an answer was drawn from, with a bar for each score."""
    if not evidence:
        return ""
    rows = "".join(
        f'<li><time>{clock(one.start)} – {clock(one.end)}</time><span class="meter" title="score {one.score:.2f}">'
        f'<i style="width:{100 * min(1.0, max(0.0, one.score)):.0f}%"></i></span>'
        f'<p dir="auto">{escape(one.text)}</p></li>'
        for one in evidence
    )
    return f'<ol class="evidence">{rows}</ol>\n'


def _bar(plan: Plan) -> str:
    parts = [
        ("frames", f"{len(plan.kept_frames)} frames", plan.frame_tokens),
        ("tags", "tags", plan.tag_tokens),
        ("subtitles", "subtitles", plan.subtitle_tokens),
        ("words", "question", plan.question_tokens),
        ("reserve", "kept for the answer", plan.answer_reserve),
        ("free", "free", max(0, plan.window - plan.total)),
    ]
    whole = max(1, sum(tokens for _, _, tokens in parts))
    bar = "".join(f'<i class="{name}" style="width:{100 * n / whole:.3f}%"></i>' for name, _, n in parts if n)
    legend = "".join(f'<li><i class="{name}"></i>{label}: {n} tokens</li>' for name, label, n in parts)
    return (
        f'<div class="bar" role="img" aria-label="{plan.total} of {plan.window} tokens">{bar}</div>'
        f'<ul class="legend">{legend}</ul>'
    )


def _figure(frame: np.ndarray, time: float, subtitle: str, seen: bool) -> str:
    note = "" if seen else " (left out)"
    return (
        f'<figure{"" if seen else " class=unseen"}><img alt="frame at {clock(time)}" src="{data_url(frame)}">'
        f'<figcaption dir="auto"><time>{clock(time)}{note}</time>{escape(subtitle)}</figcaption></figure>'
    )


def data_url(frame: np.ndarray, width: int = FRAME_WIDTH) -> str:
    """A frame as JPEG inside the address itself; wide ones are made smaller, small ones are left as they are."""
    image = Image.fromarray(frame)
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
