"""Finding and reading the documents of the research example."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.research import corpus
from examples.research.answer import Citation
from examples.research.check import verify_citation
from examples.research.corpus import Document, default_docs, find_files, read_document, survey
from examples.research.errors import DocsEmptyError, DocsMissingError, DocsUnreadableError, OutsideDocsError
from examples.research.passages import Passage, split_passages, visible_lines

SCRAPS = [
    *(
        "# head",
        "\n",
        "\n\n",
        "\r",
        "\x0c",
        "\u2028",
        "\ufeff",
        "words and more ",
        "```\n",
        "日本語" * 200,
        "x y" * 300,
    ),
    *("<p>", "</p>", "&#10;", "&amp;", "<script>", "<!--", "-->"),
    *('"""', "def f(x):\n", "    ", "pass\n", "class A:\n"),
]

PYTHON = '''#!/usr/bin/env python
"""Boats of the harbour.

They sail at dawn.
"""
# A comment that says at some length
# why boats sail.

class Boat(Thing):
    """A boat with a mast."""

    def sail(self,
             wind):
        """Go where the wind blows."""
        text = """
        # not a comment, although it has the looks of one
        """

    def moor(self, quay): return quay

    def _caulk(self): pass
'''


def test_files_are_found_sorted_and_foreign_folders_are_passed_over(tmp_path: Path) -> None:
    for name in (
        "b.md",
        "a/z.py",
        "a/B.HTML",
        "c.bin",
        ".git/x.txt",
        "__pycache__/y.py",
        "site-packages/p.py",
        ".h.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words in it")
    assert find_files(tmp_path) == ["a/B.HTML", "a/z.py", "b.md"]


def test_files_that_cannot_be_read_are_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MAX_BYTES", 100)
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "secret.txt").write_text("not for anybody")
    (docs / "good.txt").write_text("words")
    (docs / "binary.txt").write_bytes(b"words\0words")
    (docs / "large.txt").write_text("w" * 101)
    (docs / "leads-out.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "loop.txt").symlink_to(docs / "loop.txt")
    os.mkfifo(docs / "pipe.txt")
    (docs / os.fsdecode(b"odd\xff.txt")).write_text("words")
    found = survey(docs)
    assert found.files == ["good.txt"]
    reasons = {skip.path: skip.reason for skip in found.skipped}
    assert "zero byte" in reasons["binary.txt"]
    assert "larger than 100 bytes" in reasons["large.txt"]
    assert "leads out" in reasons["leads-out.txt"]
    assert "regular" in reasons["pipe.txt"]
    assert "not UTF-8" in reasons["odd?.txt"]
    assert "loop.txt" in reasons
    msgspec.msgpack.encode(found)


def test_the_number_of_files_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MAX_FILES", 2)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("words")
    found = survey(tmp_path)
    assert found.files == ["0.txt", "1.txt"]
    assert [(skip.path, skip.reason) for skip in found.skipped] == [
        ("2.txt", "the limit of 2 files; so are 2 after it")
    ]


def test_a_missing_folder_a_file_and_an_empty_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DocsMissingError, match=r"does not exist.*--docs DIR"):
        find_files(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("words")
    with pytest.raises(DocsMissingError, match="is not a folder"):
        find_files(tmp_path / "file.txt")
    (tmp_path / "file.txt").write_bytes(b"\0")
    with pytest.raises(DocsEmptyError, match=r"1 were skipped.*zero byte.*Give a folder"):
        find_files(tmp_path)


def test_an_unlistable_folder_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DocsUnreadableError, match="Check its permissions"):
        find_files(tmp_path)


def test_python_gives_docstrings_signatures_and_comments(tmp_path: Path) -> None:
    (tmp_path / "boats.py").write_text(PYTHON)
    document = read_document(tmp_path, "boats.py")
    assert document.sha256 == hashlib.sha256(PYTHON.encode()).hexdigest()
    assert document.lines == 21
    assert document.passages == [
        Passage(2, '"""Boats of the harbour.'),
        Passage(4, 'They sail at dawn.\n"""'),
        Passage(6, "# A comment that says at some length\n# why boats sail."),
        Passage(9, 'class Boat(Thing):\n    """A boat with a mast."""'),
        Passage(12, 'def sail(self,\n             wind):\n        """Go where the wind blows."""'),
        Passage(19, "def moor(self, quay): return quay"),
    ]


def test_python_that_does_not_parse_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text('print "hello"\n\ndef sail(): pass\n')
    assert read_document(tmp_path, "old.py").passages == [Passage(1, 'print "hello"'), Passage(3, "def sail(): pass")]


def test_markdown_keeps_a_heading_with_its_paragraph_and_a_fence_whole() -> None:
    text = "# Sails\n\nHow to set\nthem.\n\n```\nhoist()\n\nlower()\n```\n\nThe end.\n"
    assert split_passages("a.md", text) == [
        Passage(1, "# Sails\n\nHow to set\nthem."),
        Passage(6, "```\nhoist()\n\nlower()\n```"),
        Passage(12, "The end."),
    ]


def test_html_is_read_as_seen_on_the_lines_where_it_stands() -> None:
    page = (
        "<html><head><style>p {\n}</style></head>\n<body><p>Tom &amp; Jerry<br>set&#10;<b>sa</b>ils</p>\n"
        "<!-- a\ncomment -->\n<script>\nx = 1 < 2;\n</script>\n\n<p>at\ndawn</p></body></html>\n"
    )
    assert visible_lines("a.html", page)[2] == "Tom & Jerry set sails"
    assert split_passages("a.html", page) == [Passage(3, "Tom & Jerry set sails"), Passage(10, "at\ndawn")]


def test_form_feeds_and_old_line_ends_do_not_shift_line_numbers() -> None:
    text = "first\r\n\x0c\r\nthird\u2028still third\r\rfifth\n"
    assert [passage.line for passage in split_passages("a.txt", text)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"words\0", "binary"),
        ("a.txt", b"caf\xe9", "not text in utf-8"),
        ("a.py", b"# coding: klingon\n", "encoding is unknown"),
        ("a.py", b"# coding: rot13\n", "not text in rot13"),
        ("a.py", b"# coding: unicode_escape\n# \\ud800 words", "not text in unicode_escape"),
        ("a.txt", b"w" * (corpus.MAX_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_text_becomes_a_document_that_says_why(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    document = read_document(tmp_path, name)
    assert reason in document.skipped
    assert document.passages == []


def test_a_file_that_has_gone_does_not_stop_the_others(tmp_path: Path) -> None:
    assert read_document(tmp_path, "gone.txt").skipped == "cannot be read: no such file"


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "out.txt"])
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "secret.txt").write_text("not for anybody")
    (docs / "out.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(OutsideDocsError):
        read_document(docs, path)


def test_a_declared_encoding_and_a_byte_order_mark_are_understood(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes("# coding: latin-1\n# Über die Boote im Hafen: sie segeln früh\n".encode("latin-1"))
    assert "Über" in read_document(tmp_path, "a.py").passages[0].text
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfwords")
    assert read_document(tmp_path, "b.txt").passages == [Passage(1, "words")]


def test_a_large_document_is_recorded_within_limits_and_keeps_what_is_public(tmp_path: Path) -> None:
    private = "".join(f'def _p{number}():\n    """{"Words of no use. " * 20}"""\n' for number in range(200))
    (tmp_path / "a.py").write_text(f'{private}\ndef sail():\n    """What everybody asks for."""\n')
    document = read_document(tmp_path, "a.py")
    assert len(msgspec.msgpack.encode(document)) < corpus.MAX_PASSAGE_BYTES + 1_000
    assert document.passages[-1].text.startswith("def sail")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(document), type=Document) == document


def test_hostile_files_are_read_in_time(tmp_path: Path) -> None:
    size = corpus.MAX_BYTES // 4
    hostile = {
        "blank.md": "```\n" + "\n" * (size - 4),
        "tags.html": "<p>ab" * (size // 5),
        "line.txt": "ab" * (size // 2),
        "deep.py": "(" * 100_000 + ")" * 100_000,
        "elif.py": "if a: pass\n" + "elif b: pass\n" * 5_000,
    }
    for name, text in hostile.items():
        (tmp_path / name).write_text(text)
        document = read_document(tmp_path, name)
        assert not document.skipped
        assert len(document.passages) <= corpus.MAX_PASSAGES


@given(st.sampled_from(["a.txt", "a.md", "a.html", "a.py"]), st.lists(st.sampled_from(SCRAPS), max_size=40))
def test_every_passage_of_any_file_stands_where_it_says(
    tmp_path_factory: pytest.TempPathFactory, name: str, parts: list[str]
) -> None:
    docs = tmp_path_factory.getbasetemp()
    (docs / name).write_bytes("".join(parts).encode())
    for passage in read_document(docs, name).passages:
        verdict = verify_citation(docs, Citation(name, passage.line, passage.text))
        assert verdict.holds, (verdict, passage)


def test_the_default_is_the_standard_library() -> None:
    files = find_files(default_docs())
    assert 500 <= len(files) < 700
    assert "subprocess.py" in files
    assert not any(path.startswith(("test/", "site-packages/", "idlelib/")) for path in files)
