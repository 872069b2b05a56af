"""The HTML that both pages are made of: escaped text, tables, figures, and one stylesheet inside the page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class Html:
    """A piece of HTML, as opposed to text that must be escaped."""

    text: str


Piece = Html | str


def text_of(piece: Piece) -> str:
    """Return a piece as it stands in a page."""
    return piece.text if isinstance(piece, Html) else escape(piece)


def paragraph(*pieces: Piece, dim: bool = False) -> Html:
    """Return a paragraph."""
    return Html(f"<p{' class=dim' if dim else ''}>{''.join(map(text_of, pieces))}</p>")


def table(head: Sequence[Piece], rows: Iterable[Sequence[Piece]]) -> Html:
    """Return a table; its first column names the row."""
    top = "".join(f"<th>{text_of(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{text_of(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return Html(f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>')


def facts(content: Iterable[tuple[str, str]]) -> Html:
    """Return pairs of a name and a text that may be long."""
    found = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in content)
    return Html(f"<dl>{''.join(found)}</dl>")


def picture(svg: str, caption: Piece) -> Html:
    """Return a drawing with its caption."""
    return Html(f"<figure>{svg}<figcaption>{text_of(caption)}</figcaption></figure>")


def pair(*pieces: Html) -> Html:
    """Return pieces side by side, where the page is wide enough."""
    return Html(f'<div class="pair">{"".join(f"<div>{each.text}</div>" for each in pieces)}</div>')


def together(*pieces: Html) -> Html:
    """Return pieces one below the other, as one."""
    return Html("".join(each.text for each in pieces))


def heading(text: str) -> Html:
    """Return a heading within a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def tiles(content: Iterable[tuple[str, str]]) -> Html:
    """Return figures in large type: (figure, what it is)."""
    found = (f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in content)
    return Html(f'<div class="tiles">{"".join(found)}</div>')


def verdict(held: bool | None) -> Html:
    """Return whether something holds."""
    match held:
        case None:
            return Html('<span class="dim">not measured</span>')
        case True:
            return Html('<span class="good">✓ holds</span>')
        case False:
            return Html('<span class="bad">✗ missed</span>')


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        key: that links lead to.
    """

    key: str
    title: str
    pieces: Sequence[Html]


def write_page(title: str, head: Sequence[Html], sections: Sequence[Section]) -> bytes:
    """Return a page that needs no other file and no other server."""
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{each.key}">{escape(each.title)}</a>' for each in sections)
    body = "".join(
        f'<section id="{each.key}"><h2>{escape(each.title)}</h2>'
        f"{''.join(piece.text for piece in each.pieces)}</section>\n"
        for each in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head><body>\n"
        f"{''.join(piece.text for piece in head)}<nav>{links}</nav>\n{body}</body></html>\n"
    ).encode()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old one or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
