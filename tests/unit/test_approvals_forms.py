"""Forms: what a schema says of an answer, the checker and the type must say too."""

import datetime as dt
import enum
import re
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from agent_party.actors.errors import ConfigurationError, InputError
from agent_party.actors.forms import as_answer, completed, described, misfit, schema_of, typed


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=5, pattern="^[a-z]*$")]
    count: Annotated[int, Meta(ge=0, lt=10)] = 1


class Tree(msgspec.Struct):
    below: "list[Tree]" = []


class Whole(msgspec.Struct):
    part: Part
    colour: Colour
    sure: bool
    price: Annotated[float, Meta(gt=0, multiple_of=0.5)] | None = None
    parts: Annotated[list[Part], Meta(max_length=2)] = []
    pair: tuple[int, str] | None = None
    more: dict[str, int] = {}
    kind: Literal["a", 1] = "a"
    tree: Tree | None = None
    share: Annotated[int, Meta(le=100)] = 0


FORMS: list[Any] = [Whole, Part, Tree, int, bool, str | None, list[int], Literal["x", "y"], dict[str, Part], Any]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 12)
    | st.sampled_from((0.5, 1.0, 1.25, -1.5))
    | st.sampled_from(("", "a", "red", "x", "abcdef", "A")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("part", "colour", "sure", "price", "parts", "pair", "name", "count", "below")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {"name": st.sampled_from(("a", "", "abcdef", "A", 1))}, optional={"count": st.integers(-1, 10), "x": st.none()}
)
wholes = st.fixed_dictionaries(
    {"part": parts, "colour": st.sampled_from(("red", "green")), "sure": st.booleans() | st.none()},
    optional={
        "price": st.sampled_from((None, 0.5, 0.7, 0, "1")),
        "parts": st.lists(parts, max_size=3),
        "pair": st.sampled_from((None, [1, "a"], [1], [1, 2], [1, "a", 3])),
        "more": st.dictionaries(st.sampled_from("ab"), st.sampled_from((1, "x"))),
        "kind": st.sampled_from(("a", 1, "b")),
        "share": st.integers(99, 101),
        "tree": st.recursive(st.builds(dict), lambda inner: st.fixed_dictionaries({"below": st.lists(inner)})),
    },
)


@settings(max_examples=500, deadline=None)
@given(form=st.sampled_from(FORMS), value=values | parts | wholes)
def test_the_checker_says_what_the_schema_says(form: Any, value: Any) -> None:
    schema = schema_of(form)
    holds = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (misfit(value, schema) == "") == holds, misfit(value, schema)


@settings(max_examples=300, deadline=None)
@given(form=st.sampled_from(FORMS), value=values | parts | wholes)
def test_what_the_type_takes_fits_the_schema(form: Any, value: Any) -> None:
    try:
        found = typed(value, form)
    except InputError:
        return
    assert misfit(as_answer(found), schema_of(form)) == ""


@settings(max_examples=300, deadline=None)
@given(form=st.sampled_from(FORMS), value=values | parts | wholes)
def test_a_completed_answer_is_the_same_to_the_type(form: Any, value: Any) -> None:
    schema = schema_of(form)
    if misfit(value, schema):
        return
    full = completed(value, schema, schema)
    assert misfit(full, schema) == ""
    assert completed(full, schema, schema) == full
    try:
        assert typed(full, form) == typed(value, form)
    except InputError:
        with pytest.raises(InputError):
            typed(value, form)


@pytest.mark.parametrize(
    ("form", "value", "why"),
    [
        (
            Whole,
            {"part": {"name": "a"}, "colour": "green", "sure": True},
            "colour must be one of blue, red, not 'green'",
        ),
        (
            Whole,
            {"part": {"name": ""}, "colour": "red", "sure": True},
            "part.name must have at least 1 characters, not 0",
        ),
        (Part, {"count": 1}, "the answer lacks 'name'"),
        (Part, {"name": "a", "count": 10}, "count must be less than 10, not 10"),
        (Part, {"name": "a", "colour": 1}, "the answer has 'colour', which the form does not ask for"),
        (Annotated[int, Meta(le=100)], 101, "the answer must be at most 100, not 101"),
        (list[int], [1, "x"], r"\[1\] must be a whole number, not 'x'"),
        (int, True, "the answer must be a whole number, not True"),
        (int, float("inf"), "the answer must be a whole number"),
        (int | None, "x", "the answer must be a whole number or nothing, not 'x'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_with_its_place(form: Any, value: Any, why: str) -> None:
    assert re.search(why, misfit(value, schema_of(form)))


def test_an_answer_that_is_nested_without_end_is_refused() -> None:
    value: dict[str, Any] = {}
    for _ in range(100):
        value = {"below": [value]}
    assert "nested too deep" in misfit(value, schema_of(Tree))


def test_an_answer_is_completed() -> None:
    schema = schema_of(Whole)
    given = {"part": {"name": "a"}, "colour": "red", "sure": True, "parts": [{"name": "b"}], "tree": {}}
    full = completed(given, schema, schema)
    assert (full["part"], full["parts"]) == ({"name": "a", "count": 1}, [{"name": "b", "count": 1}])
    assert (full["kind"], full["price"], full["tree"]) == ("a", None, {"below": []})


def test_answers_in_the_types_of_json() -> None:
    assert as_answer(Part("a", 2)) == {"name": "a", "count": 2}
    assert as_answer({1: dt.date(2026, 1, 2)}) == {"1": "2026-01-02"}
    with pytest.raises(InputError, match="cannot be signed"):
        as_answer(object())
    with pytest.raises(ConfigurationError, match="object cannot be a form"):
        schema_of(object)
    assert described({"type": "string", "format": "date"}, {}) == "text (date)"
