"""The rule by which approvals are decided, as a pure function: what it must hold for all people, terms and orders."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_party.actors.approvals import (
    Moment,
    Rules,
    Terms,
    Verdict,
    agreed,
    approvals_in,
    judge,
    pack_terms,
    postponed,
    seated,
    seats_of,
    unknown_role,
)
from agent_party.actors.errors import ConfigurationError, StatementError
from agent_party.actors.events import Signed
from agent_party.actors.statements import Decision, Statement

PEOPLE = ("ada", "bob", "cai", "dan", "eve")
NAMES = (*PEOPLE, "role:editor", "role:boss")
MOMENT = Moment(100, 100)


def said(person: str, decision: Decision = "approve", *, key: str = "", answer: Any = None, to: str = "") -> Statement:
    packed = msgspec.msgpack.encode(answer) if answer is not None else b""
    return Statement(
        b"", "t", 0, b"", "publish", b"", decision, person, (key or person).encode(), 0, "", b"", packed, to
    )


class Table:
    """An approval's statements so far, judged one after the other."""

    def __init__(self, terms: Terms, roles: dict[str, list[str]] | None = None, **more: Any) -> None:
        self.terms, self.roles, self.more = terms, roles or {}, more
        self.signed: tuple[Signed, ...] = ()
        self.outcome = "open"

    def hear(self, statement: Statement, moment: Moment = MOMENT) -> Verdict:
        assert self.outcome == "open"
        verdict = judge(statement, self.terms, self.signed, self.roles, moment, **self.more)
        packed = msgspec.msgpack.encode(statement)
        self.signed += (Signed(0, statement.person, packed, b"", statement.to, verdict.seats),)
        self.outcome = verdict.outcome
        return verdict

    def refuses(self, statement: Statement, why: str, moment: Moment = MOMENT) -> None:
        with pytest.raises(StatementError, match=why):
            self.hear(statement, moment)


roles_of = st.fixed_dictionaries(
    {"editor": st.lists(st.sampled_from(PEOPLE), unique=True), "boss": st.lists(st.sampled_from(PEOPLE), unique=True)}
)
named = st.lists(st.sampled_from(NAMES), unique=True, max_size=4).map(tuple)
moves = st.lists(
    st.builds(
        said,
        st.sampled_from(PEOPLE),
        st.sampled_from(("approve", "approve", "approve", "delegate")),
        key=st.sampled_from(("", "", "", "shared")),
        to=st.sampled_from(PEOPLE),
    ),
    max_size=12,
).map(lambda found: [one if one.decision == "delegate" else msgspec.structs.replace(one, to="") for one in found])


def standing_for(person: str, signed: tuple[Signed, ...]) -> set[str]:
    """A model of handing on: everybody begins by standing for themselves, and gives all of it away."""
    stands = {one: {one} for one in PEOPLE}
    for one in signed:
        if one.to:
            stands[one.to] |= stands[one.person]
            stands[one.person] = set()
    return stands[person]


@settings(max_examples=400, deadline=None)
@given(by=named, need=st.sampled_from((1, 2, 3, "all")), apart=st.sampled_from(("", "ada")), roles=roles_of, said=moves)
def test_what_is_approved_was_approved_by_enough_who_may(
    by: tuple[str, ...], need: Any, apart: str, roles: dict[str, list[str]], said: list[Statement]
) -> None:
    table = Table(Terms(by=by, need=need if by else 1, apart=apart), roles)
    for one in said:
        before = table.signed
        try:
            table.hear(one)
        except StatementError:
            assert table.signed is before
            continue
        roots = standing_for(one.person, before) - {apart}
        assert one.person != apart
        assert any(
            not by or root in by or any(f"role:{role}" in by and root in roles[role] for role in roles)
            for root in roots
        )
        if table.outcome == "approved":
            break
    approvals = approvals_in(table.signed)
    keys = {msgspec.msgpack.decode(one.statement, type=Statement).key for one in approvals}
    assert len({one.person for one in approvals}) == len(keys) == len(approvals)
    needed = (len(by) if need == "all" else need) if by else 1
    assert (table.outcome == "approved") == (len(approvals) >= needed)
    if table.outcome == "approved" and by and need == "all":
        assert any(
            all(seat in one.seats for seat, one in zip(by, order, strict=True))
            for order in itertools.permutations(approvals)
        )


@settings(max_examples=200, deadline=None)
@given(by=named.filter(bool), roles=roles_of, order=st.permutations(PEOPLE), until=st.integers(0, 5), said=moves)
def test_whoever_may_decide_can_reject_alone(
    by: tuple[str, ...], roles: dict[str, list[str]], order: list[str], until: int, said: list[Statement]
) -> None:
    table = Table(Terms(by=by, need="all"), roles)
    for one in said[:until]:
        if table.outcome == "open":
            try:
                table.hear(one)
            except StatementError:
                continue
    if table.outcome != "open":
        return
    for person in order:
        may = bool(seats_of(person, table.terms, table.signed, roles))
        fresh = Table(table.terms, roles)
        fresh.signed = table.signed
        if may:
            assert fresh.hear(msgspec.structs.replace(said_no, person=person)).outcome == "rejected"
        else:
            fresh.refuses(msgspec.structs.replace(said_no, person=person), "may not decide")


said_no = said("ada", "reject")


@settings(max_examples=200, deadline=None)
@given(choices=st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=5))
def test_as_many_are_seated_as_can_be(choices: list[list[str]]) -> None:
    best = 0
    for seats in itertools.product(*([None, *one] for one in choices)):
        taken = [seat for seat in seats if seat]
        best = max(best, len(taken)) if len(set(taken)) == len(taken) else best
    assert seated(choices) == best


@settings(max_examples=200, deadline=None)
@given(order=st.permutations(("ada", "bob", "cai")), roles=st.just({"editor": ["ada", "bob"], "boss": ["bob", "cai"]}))
def test_all_is_reached_in_every_order(order: list[str], roles: dict[str, list[str]]) -> None:
    """Whoever comes first takes no place that only somebody else could do without."""
    table = Table(Terms(by=("ada", "role:editor", "role:boss"), need="all"), roles)
    outcomes = [table.hear(said(person)).outcome for person in order]
    assert outcomes == ["open", "open", "approved"]


def test_two_of_one_role_do_not_make_all() -> None:
    table = Table(Terms(by=("ada", "role:editor"), need="all"), {"editor": ["bob", "cai"]})
    assert table.hear(said("bob")).outcome == "open"
    table.refuses(said("cai"), "nothing left to decide")
    assert table.hear(said("ada")).outcome == "approved"


def test_four_eyes_are_two_people_and_two_keys() -> None:
    table = Table(Terms(need=2))
    table.hear(said("ada"))
    table.refuses(said("ada"), "ada has signed 'publish' already")
    table.refuses(said("bob", key="ada"), "key of ada")
    assert table.hear(said("bob")).outcome == "approved"


def test_who_approved_may_still_reject() -> None:
    table = Table(Terms(need=2))
    table.hear(said("ada"))
    assert table.hear(said("ada", "reject")).outcome == "rejected"


def test_the_requester_is_kept_apart_by_name_and_by_key() -> None:
    table = Table(Terms(by=("ada", "bob", "role:editor"), apart="ada"), {"editor": ["ada"]}, requesters_key=b"ada")
    table.refuses(said("ada"), "asked for the task")
    table.refuses(said("ada", "reject"), "asked for the task")
    table.refuses(said("bob", key="ada"), "with the key of ada")
    table.refuses(said("bob", "delegate", to="ada"), "may not decide it")
    assert table.hear(said("bob")).outcome == "approved"


def test_all_sign_the_same_answer() -> None:
    form = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    table = Table(Terms(need=2, form=form))
    table.refuses(said("ada"), "lacks an answer")
    table.refuses(said("ada", answer={"amount": "much"}), "amount must be a whole number")
    table.hear(said("ada", answer={"amount": 3}))
    table.refuses(said("bob", answer={"amount": 4}), "otherwise than ada did")
    assert table.hear(said("bob", answer={"amount": 3})).outcome == "approved"
    Table(Terms()).refuses(said("ada", answer=1), "no answer")
    other = Table(Terms(need=2, form={"anyOf": [{"type": "boolean"}, {"type": "integer"}]}))
    other.hear(said("ada", answer=1))
    other.refuses(said("bob", answer=True), "otherwise than ada did")


def test_late_is_late() -> None:
    table = Table(Terms(expires=100, need=2))
    assert table.hear(said("ada"), Moment(200, 99)).outcome == "open", "it was left in time, and is read later"
    table.refuses(said("bob"), "too late", Moment(100, 100))
    table.refuses(said("bob", "reject"), "too late", Moment(100, 100))


def test_those_behind_may_decide_when_it_is_escalated() -> None:
    terms, roles = Terms(by=("ada", "bob"), need="all", escalate=("role:boss",), escalates=100), {"boss": ["cai"]}
    table = Table(terms, roles)
    table.refuses(said("cai"), "may not decide", Moment(99, 99))
    table.hear(said("bob"), Moment(99, 99))
    assert table.hear(said("cai"), Moment(100, 100)).outcome == "approved"
    escalated = Table(terms, roles, escalated=True)
    escalated.hear(said("cai"), Moment(1, 1))
    assert escalated.hear(said("ada"), Moment(1, 1)).outcome == "approved"


def test_handing_on() -> None:
    table = Table(Terms(by=("ada", "role:editor")), {"editor": ["bob"]})
    table.refuses(said("eve", "delegate", to="dan"), "may not decide")
    for to, why in (("ada", "already"), ("bob", "already"), ("role:x", "one person's id"), ("", "one person's id")):
        table.refuses(said("ada", "delegate", to=to), why)
    table.hear(said("bob", "delegate", to="cai"))
    table.refuses(said("bob"), "handed it on to cai")
    table.hear(said("cai", "delegate", to="dan"))
    table.refuses(said("cai"), "may not decide")
    table.roles = {"editor": []}
    table.refuses(said("dan"), "may not decide")  # who stands for somebody without the role has none either
    table.roles = {"editor": ["bob"]}
    assert table.hear(said("dan")).outcome == "approved"
    Table(Terms()).refuses(said("ada", "delegate", to="bob"), "everybody may decide")


def test_a_signature_cannot_be_taken_over() -> None:
    table = Table(Terms(by=("ada", "bob", "role:editor"), need=3), {"editor": ["cai"]})
    table.hear(said("cai"))
    table.roles = {"editor": []}
    table.refuses(said("ada", "delegate", to="cai"), "already")
    table.hear(said("ada", "delegate", to="dan"))
    assert table.hear(said("dan")).outcome == "open"
    assert table.hear(said("bob")).outcome == "approved", "what was judged once stays"


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"by": ("Ada",)}, "names 'Ada'"),
        ({"by": ("role:",)}, "names 'role:'"),
        ({"by": ("ada", "ada")}, "name each once"),
        ({"by": ("ada",), "need": 2}, "needs 2 people, but only ada may"),
        ({"by": ("ada", "req"), "need": 2, "apart_from_requester": True}, "only ada may"),
        ({"by": ("req",), "apart_from_requester": True}, "only nobody may"),
        ({"by": ("ada", "req"), "need": "all", "apart_from_requester": True}, "req, who asked"),
        ({"need": "all"}, "names nobody"),
        ({"need": 0}, "need must be 1 or more"),
        ({"need": -1}, "need must be 1 or more"),
        ({"need": True}, "need must be 1 or more"),
        ({"expires": -1}, "expires must be seconds from now"),
        ({"expires": 0}, "expires must be seconds from now"),
        ({"expires": float("nan")}, "expires must be seconds"),
        ({"expires": 1e300}, "expires must be seconds"),
        ({"by": ("ada",), "escalate": ("bob",)}, "go together"),
        ({"by": ("ada",), "escalate_after": 1.0}, "go together"),
        ({"escalate": ("bob",), "escalate_after": 1.0}, "needs by="),
        ({"by": ("ada",), "escalate": ("bob",), "escalate_after": 9.0, "expires": 9.0}, "expires before"),
    ],
    ids=str,
)
def test_terms_that_cannot_be(rules: Rules, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        agreed("publish", rules, None, 0, "req")


def test_terms() -> None:
    with pytest.raises(ConfigurationError, match="does not say who"):
        agreed("publish", {"apart_from_requester": True}, None, 0, "")
    with pytest.raises(ConfigurationError, match="cannot be a form"):
        agreed("publish", {}, type(object()), 0, "req")
    assert pack_terms(agreed("publish", {}, None, 7, "req")) == b"", "as it was before there were terms"
    terms = agreed("publish", {"by": "ada", "expires": 2, "escalate": ["role:x"], "escalate_after": 1}, int, 7, "req")
    assert (terms.by, terms.expires, terms.escalates, terms.due) == (("ada",), 2_000_007, 1_000_007, 1_000_007)
    assert terms.form == {"type": "integer"}
    assert msgspec.msgpack.decode(pack_terms(terms), type=Terms) == terms
    later = msgspec.msgpack.decode(postponed(pack_terms(terms), 5), type=Terms)
    assert later == msgspec.structs.replace(terms, expires=2_000_012, escalates=1_000_012)
    assert postponed(b"", 5) == b""
    assert "nobody ever had role x" in unknown_role("publish", terms, {})
    assert unknown_role("publish", terms, {"x": []}) == ""
