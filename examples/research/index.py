"""A retrieval index over the passages of documents: which of them speak to a question.

Three BM25 scores are added (bm25s; Lù 2024, arXiv:2407.03618): of the passage, of the whole file, and of the file's
headline, that is its path and its first passages. A passage that happens to share words with the question is common;
one in a file that is *about* the question is what a person would cite. Everything is deterministic: equal documents
and an equal question give equal hits in equal order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import bm25s  # type: ignore[import-untyped]
import msgspec
import numpy as np
import Stemmer
from numpy.typing import NDArray

from .corpus import Document
from .passages import Passage

HITS = 8
HITS_PER_FILE = 2
FILE_WEIGHT = 0.5
HEADLINE_WEIGHT = 0.5
BARE_WEIGHT = 0.6
HEADLINE_PASSAGES = 3

_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*|\d+")
_CAMEL = re.compile(r"[^\W\d_a-z]+(?![a-z])|[^\W\d_a-z]?[a-z]+|\d+")
_DEFINITION = re.compile(r"(?:async )?(?:def|class) (\w+)")
_BARE = re.compile(_DEFINITION.pattern + r"[^\n]*")
_STOP_WORDS = """
a about all also am an and any are as at be been but by can could do does for from give had has have how i if
in into is it its me my no not of on or our please should show so some such tell than that the their them then
there these they this to us use used using want was we were what when where which while who why will with would
you your
"""
_STOP = frozenset(_STOP_WORDS.split())

Scores = NDArray[np.float32]


class Hit(msgspec.Struct, frozen=True):
    """A passage that speaks to the question; scores are comparable within one search only."""

    path: str
    line: int
    text: str
    score: float


def terms(text: str) -> list[str]:
    """The stemmed words of a text, in order; names in code are taken apart (`DictReader`, `to_bytes`, `sha256`)."""
    found: list[str] = []
    for word in _WORD.findall(text):
        found.extend(_word_terms(word))
    return found


@lru_cache(maxsize=200_000)
def _word_terms(word: str) -> tuple[str, ...]:
    """The parts of one word, and the whole when it has several: `e-mail` is also `email`, `ZipFile` also `zipfile`."""
    pieces = re.split(r"[-'\u2019]", word)
    parts = [part.lower() for piece in pieces for part in (_CAMEL.findall(piece) if piece.isascii() else [piece])]
    if len(parts) > 1:
        parts.append("".join(parts))
    stem = _stemmer().stemWord
    return tuple(stem(part) for part in parts if part not in _STOP and (len(part) > 1 or part.isdigit()))


@lru_cache(maxsize=1)
def _stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("english", 0)  # `_word_terms` is the cache


class Index:
    """Searchable passages of documents. Build one with `Index.build`; it never changes afterwards."""

    def __init__(self, passages: Sequence[tuple[str, Passage]], file_of: NDArray[np.int64], scorers: _Scorers) -> None:
        self._passages = passages
        self._file_of = file_of
        self._scorers = scorers

    @classmethod
    def build(cls, documents: Iterable[Document]) -> Index:
        """Index documents, in any order; those without passages are left out."""
        read = sorted((document for document in documents if document.passages), key=lambda document: document.path)
        passages = [(document.path, passage) for document in read for passage in document.passages]
        file_of = np.repeat(np.arange(len(read)), [len(document.passages) for document in read])
        return cls(passages, file_of, _Scorers(read))

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, question: str, k: int = HITS) -> list[Hit]:
        """The best `k` passages, best first, at most `HITS_PER_FILE` of one file. Empty if no word is known."""
        words = list(dict.fromkeys(terms(question)))
        if not words or not self._passages:
            return []
        own = self._scorers.passages.scores(words)
        about = FILE_WEIGHT * self._scorers.files.scores(words) + HEADLINE_WEIGHT * self._scorers.headlines.scores(
            words
        )
        total = np.where(own > 0, own * self._scorers.substance + about[self._file_of], 0)
        hits: list[Hit] = []
        taken: dict[str, int] = {}
        for place in np.argsort(-total, kind="stable"):
            path, passage = self._passages[place]
            if total[place] <= 0 or len(hits) == k:
                break
            taken[path] = taken.get(path, 0) + 1
            if taken[path] <= HITS_PER_FILE:
                hits.append(Hit(path, passage.line, passage.text, round(float(total[place]), 4)))
        return hits


class _Scorers:
    """The three views of the documents that `search` adds up."""

    def __init__(self, documents: Sequence[Document]) -> None:
        texts = [[terms(passage.text) for passage in document.passages] for document in documents]
        names = [terms(document.path.rsplit(".", 1)[0]) for document in documents]
        owners = [owner for document in documents for owner in _owners(document.passages)]
        own = [words for file in texts for words in file]
        self.passages = _Bm25([words + owner for words, owner in zip(own, owners, strict=True)])
        # A bare signature is short, which BM25 takes for pertinence, and explains nothing.
        self.substance = np.array(
            [
                BARE_WEIGHT if _BARE.fullmatch(passage.text) else 1
                for document in documents
                for passage in document.passages
            ],
            dtype=np.float32,
        )
        self.files = _Bm25(
            [name + [word for words in file for word in words] for name, file in zip(names, texts, strict=True)]
        )
        self.headlines = _Bm25(
            [
                name * 2 + [word for words in file[:HEADLINE_PASSAGES] for word in words]
                for name, file in zip(names, texts, strict=True)
            ]
        )


def _owners(passages: Sequence[Passage]) -> Iterator[list[str]]:
    """For each passage the name of the class or function it is about: later paragraphs of its docstring lack it."""
    name: list[str] = []
    for passage in passages:
        definition = _DEFINITION.match(passage.text)
        if definition:
            name = terms(definition[1])
        yield [] if definition else name


class _Bm25:
    """BM25 over one set of texts, scaled so that the best text of a question scores 1."""

    def __init__(self, texts: Sequence[list[str]]) -> None:
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in texts]
        self._vocabulary = vocabulary
        self._bm25 = bm25s.BM25(method="lucene", backend="numpy", csc_backend="numpy")
        if vocabulary:
            self._bm25.index((ids, vocabulary), show_progress=False)
        self._size = len(texts)

    def scores(self, words: Sequence[str]) -> Scores:
        """A score from 0 to 1 for each text."""
        known = [self._vocabulary[word] for word in words if word in self._vocabulary]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        scores: Scores = self._bm25.get_scores_from_ids(known)
        return scores / max(float(scores.max()), 1e-9)
