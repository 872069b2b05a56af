from __future__ import annotations

from pathlib import Path

import pytest

from training.report.markup import (
    Html,
    Section,
    facts,
    heading,
    paragraph,
    picture,
    table,
    tiles,
    verdict,
    write_page,
    write_whole,
)

NASTY = '<script>alert("&")</script>'
SAFE = "&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;"


def test_text_is_escaped_wherever_it_stands() -> None:
    pieces = [
        paragraph(NASTY),
        heading(NASTY),
        table([NASTY], [[NASTY]]),
        facts([(NASTY, NASTY)]),
        tiles([(NASTY, NASTY)]),
        picture("<svg></svg>", NASTY),
    ]
    page = write_page(NASTY, pieces, [Section("x", NASTY, [])]).decode()
    assert "<script" not in page
    assert page.count(SAFE) == 12
    assert table(["a"], [[Html("<b>x</b>")]]).text.count("<b>x</b>") == 1


def test_a_page_links_to_its_sections_and_brings_its_style() -> None:
    page = write_page("T", [], [Section("first", "First", [paragraph("text")])]).decode()
    assert '<a href="#first">First</a>' in page
    assert '<section id="first"><h2>First</h2><p>text</p></section>' in page
    assert "prefers-color-scheme: dark" in page
    assert "<link" not in page


def test_verdicts_say_in_words_what_holds() -> None:
    assert [verdict(each).text.count(word) for each, word in ((True, "holds"), (False, "missed"))] == [1, 1]
    assert "not measured" in verdict(None).text


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "page.html", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
