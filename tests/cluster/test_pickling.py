"""A program's own types come to another process as they are."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent_party.cluster import pickling

PROGRAM = '''
import sys
from typing import Annotated
import msgspec
from agent_party.cluster.pickling import Sent, dumps

class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Has a name."""
    name: str = "nobody"

class Payment(Named, rename="camel", tag="pay", frozen=True):
    in_cents: Annotated[int, msgspec.Meta(ge=1)]
    parts: list[int] = []
    tax: int = 0

    def __post_init__(self):
        if self.tax > self.in_cents:
            raise ValueError("too much tax")

    def twice(self):
        return Payment(2 * self.in_cents, name=self.name)

sys.stdout.buffer.write(dumps([Payment, Payment(3), Named(name="x"), Sent(Payment(4, [1], name="y"))]))
'''


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
    assert pickling.loads(pickling.dumps(meta)) == meta


def test_all_that_msgspec_has_is_known() -> None:
    for kind, known in ((msgspec.Meta, pickling._META), (msgspec.structs.StructConfig, pickling._CONFIG)):
        assert {name for name in dir(kind) if not name.startswith("_")} == set(known)


def test_a_programs_struct_comes_with_its_fields(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    sent = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, check=True, env={"PYTHONPATH": root}
    ).stdout
    payment, three, named, four = pickling.loads(sent)
    assert msgspec.json.encode(three) == b'{"type":"pay","inCents":3,"parts":[],"tax":0,"name":"nobody"}'
    assert (four.in_cents, four.parts, four.name, named.name) == (4, [1], "y", "x")
    assert type(three) is payment is type(four)
    assert payment.__mro__[1] is type(named)
    assert three.twice() == payment(6)
    assert msgspec.json.schema(payment)["$defs"]["Payment"]["properties"]["inCents"] == {
        "type": "integer",
        "minimum": 1,
    }
    with pytest.raises(ValueError, match="too much tax"):
        payment(1, tax=2)
    with pytest.raises(AttributeError):
        three.tax = 1
    assert pickling.loads(sent)[0] is payment, "the same type, however often it comes"
    assert pickling.loads(pickling.dumps(payment)) is payment, "also on its way back"
