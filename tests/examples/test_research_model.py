"""The composer that asks a model, against a small server on the loopback."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from examples.research.answer import MIN_CITATIONS, Citation, compose
from examples.research.errors import ModelAnswerError, ModelCallError, ModelMissingError
from examples.research.index import Hit
from examples.research.model import ModelComposer, composer_from_environment

HITS = [
    Hit("harbour.txt", 4, "Boats sail at dawn.\nThe harbour is closed at night.", 2.0),
    Hit("nets.txt", 1, "Nets are mended on the quay.", 1.0),
    Hit("ropes.txt", 9, "Ropes are not mended.", 0.5),
]


class FakeModel(BaseHTTPRequestHandler):
    """Answers every call with `reply` and remembers what it was asked."""

    reply: ClassVar[str] = ""
    status: ClassVar[int] = 200
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append({"path": self.path, "key": self.headers["authorization"], **body})
        message = {"role": "assistant", "content": self.reply}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}
        data = json.dumps(answer if self.status == 200 else {"error": {"message": "no such model"}}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing: a test's output is its own."""


@pytest.fixture
def composer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelComposer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(FakeModel, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeModel) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield ModelComposer(f"http://127.0.0.1:{server.server_port}/v1", "fake")
        server.shutdown()


def says(monkeypatch: pytest.MonkeyPatch, reply: object, status: int = 200) -> None:
    monkeypatch.setattr(FakeModel, "reply", reply if isinstance(reply, str) else json.dumps(reply))
    monkeypatch.setattr(FakeModel, "status", status)


def test_quotations_are_widened_to_whole_lines_and_invented_ones_dropped(
    composer: ModelComposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotes = [
        {"passage": 1, "quote": "harbour is closed"},
        {"passage": 1, "quote": "The harbour never closes."},
        {"passage": 2, "quote": "Boats sail at dawn."},
        {"passage": 7, "quote": "Boats sail at dawn."},
        {"passage": 3, "quote": "Ropes are not mended."},
    ]
    says(monkeypatch, "Here it is:\n```json\n" + json.dumps({"answer": "At **night**.", "quotes": quotes}) + "\n```")
    report = composer("When is it closed?", HITS)
    assert report.answer == "At **night**."
    assert report.composer == "model fake"
    assert report.citations[:2] == [
        Citation("harbour.txt", 5, "The harbour is closed at night."),
        Citation("ropes.txt", 9, "Ropes are not mended."),
    ]
    assert len(report.citations) == MIN_CITATIONS
    asked = FakeModel.asked[0]
    assert asked["path"] == "/v1/chat/completions"
    assert asked["key"] == "Bearer none"
    assert "[2] nets.txt, line 1" in asked["messages"][1]["content"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I do not know.",
        "{",
        '{"quotes": []}',
        {"answer": "yes"},
        {"answer": "a", "quotes": [{"passage": 1, "quote": "x"}]},
    ],
)
def test_an_answer_without_a_true_quotation_is_refused(
    composer: ModelComposer, monkeypatch: pytest.MonkeyPatch, reply: object
) -> None:
    says(monkeypatch, reply)
    with pytest.raises(ModelAnswerError, match=r"[Tt]ry again"):
        composer("When is it closed?", HITS)


def test_a_refusing_server_and_a_missing_one_are_call_errors(
    composer: ModelComposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, "", status=404)
    with pytest.raises(ModelCallError, match="no such model"):
        composer("When is it closed?", HITS)
    with pytest.raises(ModelCallError, match="Is the server up"):
        ModelComposer("http://127.0.0.1:9/v1", "fake")("When is it closed?", HITS)


def test_without_hits_no_model_is_asked(composer: ModelComposer) -> None:
    assert composer("When is it closed?", []).citations == []
    assert FakeModel.asked == []


def test_the_environment_chooses_the_composer() -> None:
    assert composer_from_environment({}) is compose
    settings = {"PARTY_MODEL_URL": "http://x/v1", "PARTY_MODEL_NAME": "m", "OPENAI_API_KEY": "of another service"}
    assert composer_from_environment(settings) == ModelComposer("http://x/v1", "m", "none")
    with pytest.raises(ModelMissingError, match="Set both"):
        composer_from_environment({"PARTY_MODEL_NAME": "m"})


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModelMissingError, match=r"agent-party-runtime\[models\]"):
        ModelComposer("http://x/v1", "m")("boats", HITS)
