"""Tables that are written once and read as Markdown and as HTML."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

STYLE = """
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
tr.ours td { font-weight: 600; }
.right { color: var(--subtitles); } .wrong { color: var(--question); }
"""


class Table(NamedTuple):
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown(title: str, facts: Sequence[str], tables: Sequence[Table]) -> str:
    parts = [f"# {_cell(title)}", *(f"* {_cell(fact)}" for fact in facts)]
    for table in tables:
        lines = [
            "| " + " | ".join(map(_cell, table.header)) + " |",
            "|" + "---|" * len(table.header),
            *("| " + " | ".join(map(_cell, row)) + " |" for row in table.rows),
        ]
        parts += ["", f"## {_cell(table.title)}", "", *lines]
        if table.note:
            parts += ["", _cell(table.note)]
    return "\n".join(parts) + "\n"


def html(title: str, facts: Sequence[str], tables: Sequence[Table]) -> str:
    """The body of a page; all text is escaped."""
    listed = "".join(f'<li dir="auto">{escape(fact)}</li>' for fact in facts)
    body = [f'<header><h1 dir="auto">{escape(title)}</h1><ul class="facts">{listed}</ul></header>']
    for table in tables:
        head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
        rows = "".join(
            "<tr>" + "".join(f'<td dir="auto">{escape(cell)}</td>' for cell in row) + "</tr>" for row in table.rows
        )
        body.append(f"<h2>{escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>")
        if table.note:
            body.append(f'<p class="facts" dir="auto">{escape(table.note)}</p>')
    return "\n".join(body)


def _cell(text: str) -> str:
    """One line that no character of the text turns into something else."""
    for letter in "\\|<>`*_[]":
        text = text.replace(letter, "\\" + letter)
    return " ".join(text.split())
