"""The limits in a type's annotations survive the way to another process."""

import pickle

import msgspec
import pytest

from agent_party.cluster import pickling


@pytest.mark.parametrize(
    "meta",
    [
        msgspec.Meta(),
        msgspec.Meta(ge=0, le=10, multiple_of=2, title="Amount", description="In cents", examples=[2, 4]),
        msgspec.Meta(gt=0.5, lt=1.5, extra={"unit": "s"}),
        msgspec.Meta(pattern="^a", min_length=1, max_length=3, extra_json_schema={"format": "x"}),
        msgspec.Meta(tz=False),
    ],
)
def test_what_a_field_may_be_is_pickled(meta: msgspec.Meta) -> None:
    pickling.teach()
    assert pickle.loads(pickle.dumps(meta)) == meta


def test_every_limit_there_is_is_known() -> None:
    there = {name for name in dir(msgspec.Meta) if not name.startswith("_")}
    assert there == set(pickling._FIELDS)
