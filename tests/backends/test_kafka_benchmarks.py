"""The benchmarks on Kafka run and verify what they wrote; how fast they are is no test's business."""

import json

import pytest

from benchmarks.__main__ import SERVED, main
from tests.services_kit import Services

KAFKA = [part for part in SERVED if part.startswith("kafka-")]


def test_every_part_runs_and_verifies_its_data(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARTY_BENCH_KAFKA", services.kafka)
    assert main([*KAFKA, "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["verified"]) == set(KAFKA)
    assert {figure["part"] for figure in told["figures"]} == {part.replace("-", " ") for part in KAFKA}
    assert all(figure["min"] > 0 for figure in told["figures"])
