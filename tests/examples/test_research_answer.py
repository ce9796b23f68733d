"""Retrieval, composition, the critic, and the twenty questions of the research example."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from examples.research.answer import Citation, compose, render
from examples.research.check import plant_false, verify_citation
from examples.research.corpus import Document, default_docs, find_files, read_document
from examples.research.errors import DocsMissingError
from examples.research.index import Hit, Index, terms
from examples.research.passages import LONG_LINE, Passage
from examples.research.questions import DEFAULT_QUESTION, HELD_OUT, QUESTIONS, evaluate

HARBOUR = "Boats sail at dawn.\nThe harbour is closed at night.\n\nNets are mended on the quay.\nRopes are not.\n"


@pytest.fixture(scope="module")
def stdlib() -> list[Document]:
    docs = default_docs()
    return [read_document(docs, path) for path in find_files(docs)]


@pytest.fixture
def harbour(tmp_path: Path) -> Path:
    (tmp_path / "harbour.txt").write_text(HARBOUR)
    (tmp_path / "bread.txt").write_text("Bread is baked at night.\n")
    return tmp_path


def read_all(docs: Path) -> list[Document]:
    return [read_document(docs, path) for path in find_files(docs)]


# ----------------------------------------------------------------------------------------------------------- the index


def test_names_in_code_are_taken_apart_and_words_are_stemmed() -> None:
    assert terms("DictReader") == ["dict", "reader", "dictread"]
    assert terms("How do I send an e-mail?") == ["send", "mail", "email"]
    assert terms("to_bytes sha256 zipping") == ["byte", "sha", "256", "zip"]
    assert terms("日本語") == ["日本語"]


def test_the_passage_that_speaks_to_the_question_comes_first(harbour: Path) -> None:
    hits = Index.build(read_all(harbour)).search("When is the harbour closed?")
    assert (hits[0].path, hits[0].line) == ("harbour.txt", 1)
    assert "harbour is closed" in hits[0].text


def test_one_file_does_not_take_all_the_hits() -> None:
    many = Document("many.txt", "", 9, [Passage(line, f"boat number {line}") for line in range(1, 10)])
    one = Document("one.txt", "", 1, [Passage(1, "a boat among many other words about the sea")])
    hits = Index.build([many, one]).search("boat")
    assert [hit.path for hit in hits].count("many.txt") == 2
    assert "one.txt" in {hit.path for hit in hits}


@pytest.mark.parametrize("question", ["", "How do I?", "zyzzyva", "?!"])
def test_a_question_without_a_known_word_finds_nothing(harbour: Path, question: str) -> None:
    assert Index.build(read_all(harbour)).search(question) == []


def test_an_index_of_nothing_is_searched_in_vain() -> None:
    assert Index.build([]).search("boats") == []
    assert Index.build([Document("a.txt", "", 0, [], skipped="binary")]).search("boats") == []
    assert Index.build([Document("a.txt", "", 1, [Passage(1, "how do")])]).search("boats") == []


def test_the_order_of_the_documents_does_not_matter(stdlib: list[Document]) -> None:
    few = stdlib[:60]
    assert Index.build(few).search("text encoding") == Index.build(reversed(few)).search("text encoding")


def test_sixteen_of_twenty_answers_cite_the_right_file_and_every_quotation_stands(stdlib: list[Document]) -> None:
    assert len(QUESTIONS) == 20
    index = Index.build(stdlib)
    for questions in (QUESTIONS, HELD_OUT):
        score = evaluate(index, questions)
        assert score.total == 20
        assert score.right >= 16, score.missed
    for question in QUESTIONS:
        citations = compose(question.text, index.search(question.text)).citations
        assert len(citations) >= 3
        for citation in citations:
            assert verify_citation(default_docs(), citation).holds, citation
            false = plant_false(citation)
            assert not verify_citation(default_docs(), false).holds, false


def test_a_documents_record_is_small(stdlib: list[Document]) -> None:
    sizes = [len(msgspec.msgpack.encode(document)) for document in stdlib]
    assert sum(sizes) / len(sizes) < 8_000
    assert not [document for document in stdlib if document.skipped]


# ---------------------------------------------------------------------------------------------------------- the report


def test_a_single_passage_is_quoted_line_by_line(harbour: Path) -> None:
    hits = [Hit("harbour.txt", 1, "Boats sail at dawn.\n\nThe harbour is closed at night.\nRopes", 1.0)]
    assert compose("boats", hits).citations == [
        Citation("harbour.txt", 1, "Boats sail at dawn."),
        Citation("harbour.txt", 3, "The harbour is closed at night."),
        Citation("harbour.txt", 4, "Ropes"),
    ]
    only = [Hit("a.txt", 1, "Boats", 1.0)]
    assert len(compose("boats", only).citations) == 1


def test_a_long_passage_is_cut_to_the_lines_that_speak_to_the_question() -> None:
    text = "\n".join(["nothing here"] * 9 + ["", "boats sail", "at dawn"])
    citation = compose("When do boats sail?", [Hit("a.txt", 5, text, 1.0)] * 3).citations[0]
    assert "boats sail" in citation.quote
    assert citation.line == 5 + text.split("\n").index("nothing here", 5)


def test_nothing_found_is_said() -> None:
    report = compose("boats", [])
    assert report.citations == []
    assert "No document" in render(report)


def test_the_report_shows_each_quotation_with_its_place() -> None:
    hits = [
        Hit("a.md", 3, "```\nhoist()\n```", 2.0),
        Hit("b.py", 7, "def sail(): pass", 1.0),
        Hit("c.txt", 1, "sail", 1.0),
    ]
    text = render(compose("sail", hits))
    assert "`b.py:7`\n\n```python\ndef sail(): pass\n```" in text
    assert "````text\n```\nhoist()\n```\n````" in text
    assert text.startswith("# sail\n")


# ---------------------------------------------------------------------------------------------------------- the critic


@pytest.mark.parametrize(
    ("citation", "reason"),
    [
        (
            Citation("harbour.txt", 2, "The harbour is closed at noon."),
            "at harbour.txt:2 stands 'The harbour is closed at night.'",
        ),
        (Citation("harbour.txt", 1, "The harbour is closed at night."), "stands at line 2"),
        (Citation("harbour.txt", 2, "harbour is closed"), "at harbour.txt:2 stands"),
        (Citation("harbour.txt", 5, "Ropes are"), "Ropes are not."),
        (Citation("harbour.txt", 99, "Boats sail at dawn."), "does not exist; the file has 5 lines"),
        (Citation("harbour.txt", 0, "Boats sail at dawn."), "does not exist"),
        (Citation("harbour.txt", -4, "Boats sail at dawn."), "does not exist"),
        (Citation("harbour.txt", 3, " "), "holds no word"),
        (Citation("gone.txt", 1, "Boats"), "cannot be reread"),
        (Citation("a\0b.txt", 1, "Boats"), "cannot be reread"),
        (Citation("../harbour.txt", 1, "Boats"), "leads out"),
    ],
)
def test_a_false_citation_is_rejected_with_the_reason(harbour: Path, citation: Citation, reason: str) -> None:
    verdict = verify_citation(harbour, citation)
    assert not verdict.holds
    assert reason in verdict.reason


def test_a_true_citation_holds_until_the_file_changes(harbour: Path) -> None:
    citation = Citation("harbour.txt", 1, "Boats sail at dawn.\nThe harbour is closed at night.")
    assert verify_citation(harbour, citation).holds
    (harbour / "harbour.txt").write_text("\n" + HARBOUR)
    assert verify_citation(harbour, citation).reason == "the quotation stands at line 2, not at harbour.txt:1"


def test_only_a_very_long_line_may_be_quoted_in_part(tmp_path: Path) -> None:
    line = "boats sail at dawn " * LONG_LINE
    (tmp_path / "a.txt").write_text(line)
    assert verify_citation(tmp_path, Citation("a.txt", 1, "sail at dawn")).holds
    assert not verify_citation(tmp_path, Citation("a.txt", 1, "ail at dawn")).holds


def test_html_may_be_quoted_as_seen_or_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>Boats <b>sail</b></p>\n")
    for quote in ("Boats sail", "<p>Boats <b>sail</b></p>"):
        assert verify_citation(tmp_path, Citation("a.html", 1, quote)).holds


def test_a_missing_folder_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(DocsMissingError):
        verify_citation(tmp_path / "nowhere", Citation("a.txt", 1, "Boats"))


@pytest.mark.parametrize(
    "quote", ["It is so", "It is not so", "x = True", "return None", "a 5", "one two", "word", "日本"]
)
def test_a_planted_citation_is_another_one_and_always_rejected(tmp_path: Path, quote: str) -> None:
    (tmp_path / "a.txt").write_text(f"{quote}\n" * 3)
    citation = Citation("a.txt", 2, quote)
    assert verify_citation(tmp_path, citation).holds
    assert not verify_citation(tmp_path, plant_false(citation)).holds


def test_the_default_question_is_the_first() -> None:
    assert QUESTIONS[0].text == DEFAULT_QUESTION
