"""One meaning of a value in every layer: what `encode` takes, what `faults` names, what `parse` reads."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dagbok.domain import values
from dagbok.errors import MalformedJson, NotJson, TooLarge
from strategies import json_values, odd_values, texts


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Object(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Pair(collections.namedtuple("Pair", "left right")):
    __slots__ = ()


class Word(enum.StrEnum):
    A = "a"


class Plain(enum.Enum):
    SOUND = 1
    ODD = math.nan
    STRANGE = object()


@dataclasses.dataclass
class Record:
    field: int = 1


def nested(depth: int, *, objects: bool = False) -> Any:
    """Return containers `depth` levels deep."""
    value: Any = {} if objects else []
    for _ in range(depth - 1):
        value = {"a": value} if objects else [value]
    return value


ODD = [
    pytest.param(math.nan, "", id="nan"),
    pytest.param([1, math.inf], "/1", id="inf"),
    pytest.param({"a": {"b": -math.inf}}, "/a/b", id="minus_inf"),
    pytest.param([2**70], "/0", id="2_to_70"),
    pytest.param([2**63], "/0", id="2_to_63_fits_orjson"),
    pytest.param([2**64 - 1], "/0", id="2_to_64_less_1_fits_orjson"),
    pytest.param({"n": -(2**63) - 1}, "/n", id="below_64_bits"),
    pytest.param([0.0012345678901234567, 2**63], "/1", id="beside_a_long_fraction"),
    pytest.param([2**63, 0.0012345678901234567], "/0", id="before_a_long_fraction"),
    pytest.param(["a\0b"], "/0", id="nul"),
    pytest.param({"a": "\ud800"}, "/a", id="lone_surrogate"),
    pytest.param({"a": {"\ud800": 1}}, "/a", id="lone_surrogate_in_key"),
    pytest.param({"a": {"x\0": 1}}, "/a", id="nul_in_key"),
    pytest.param([b"bytes"], "/0", id="bytes"),
    pytest.param([{1, 2}], "/0", id="set"),
    pytest.param({"a": [{1: 2}]}, "/a/0", id="integer_key"),
    pytest.param({"a": {None: 2}}, "/a", id="null_key"),
    pytest.param({"a": {Text("k"): 2}}, "/a", id="key_of_a_subclass"),
    pytest.param({"a": {Word.A: 2}}, "/a", id="key_of_an_enum"),
    pytest.param([Text("x")], "/0", id="str_subclass"),
    pytest.param([Whole(1)], "/0", id="int_subclass"),
    pytest.param([Real(1)], "/0", id="float_subclass"),
    pytest.param([Object()], "/0", id="dict_subclass"),
    pytest.param([collections.OrderedDict(a=1)], "/0", id="ordered_dict"),
    pytest.param([Items()], "/0", id="list_subclass"),
    pytest.param([Pair(1, 2)], "/0", id="namedtuple"),
    pytest.param([Record()], "/0", id="dataclass"),
    pytest.param([datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)], "/0", id="datetime"),
    pytest.param([decimal.Decimal(1)], "/0", id="decimal"),
    pytest.param([1j], "/0", id="complex"),
    pytest.param([Plain.ODD], "/0", id="enum_of_nan"),
    pytest.param([Plain.STRANGE], "/0", id="enum_of_an_object"),
    pytest.param({"a/b": {"~": [math.nan]}}, "/a~1b/~0/0", id="pointer_is_escaped"),
    pytest.param(nested(201), "/0" * 200, id="201_lists"),
    pytest.param(nested(201, objects=True), "/a" * 200, id="201_objects"),
    pytest.param(nested(300), "/0" * 200, id="deeper_than_orjson"),
]


@pytest.mark.parametrize(("value", "pointer"), ODD)
def test_an_odd_value_is_refused_with_a_pointer_to_its_place(value: Any, pointer: str) -> None:
    """Were one let through, one database or another would store something else, or fail in the middle of a commit."""
    with pytest.raises(NotJson) as caught:
        values.encode(value)
    assert caught.value.code == "not_json"
    assert caught.value.pointer == pointer
    assert [fault.pointer for fault in values.faults(value)] == [pointer]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (nested(200), "[" * 200 + "]" * 200),
        ([[]] * 300, "[" + ",".join(["[]"] * 300) + "]"),
        (values.MAX_INTEGER, "9223372036854775807"),
        (values.MIN_INTEGER, "-9223372036854775808"),
        (r"\u0000", r'"\\u0000"'),
        ({r"\u0000": None}, r'{"\\u0000":null}'),
        ("null", '"null"'),
        ((1, (2,)), "[1,[2]]"),
        ([Word.A, Plain.SOUND, None], '["a",1,null]'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        ("\u2028𝄞", '"\u2028𝄞"'),
        (-0.0, "-0.0"),
        (1e308, "1e+308"),
        ("9" * 30, f'"{"9" * 30}"'),
    ],
)
def test_what_looks_odd_and_is_not_passes(value: Any, text: str) -> None:
    assert values.encode(value) == text
    assert list(values.faults(value)) == []


@given(json_values)
@example([r"\u0000", "\\", '"\\u0000'])
@example({"": None})
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    text = values.encode(value)
    back = values.decode(text)
    assert back == value
    assert values.encode(back) == text, "1 and 1.0, True and 1 are equal to Python; their texts are not"
    assert values.encode(values.parse(text)) == text
    assert values.encode(values.parse(text.encode())) == text


@given(odd_values)
@example([2**63, "x"])
@example([math.nan])
@example({"a": None, "b": [2**64 - 1]})
def test_encode_refuses_exactly_what_the_walker_names(value: Any) -> None:
    """The fast path looks for signs of trouble in the text; one missed sign and NaN is stored as null."""
    if named := {fault.pointer for fault in values.faults(value)}:
        with pytest.raises(NotJson) as caught:
            values.encode(value)
        assert caught.value.pointer in named
    else:
        assert values.decode(values.encode(value)) == value


@given(odd_values)
def test_what_the_standard_parser_reads_is_judged_like_what_python_made(value: Any) -> None:
    try:
        text = json.dumps(value)
    except TypeError:
        return
    written = json.loads(text)  # keys became strings
    assert {fault.pointer for fault in values.faults(values.read(text))} == {
        fault.pointer for fault in values.faults(written)
    }


@given(json_values)
def test_equal_values_have_equal_canonical_bytes(value: Any) -> None:
    def reordered(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: reordered(item[key]) for key in reversed(list(item))}
        return [reordered(child) for child in item] if isinstance(item, list) else item

    assert values.canonical(value) == values.canonical(reordered(value))


def test_all_faults_are_found_not_the_first_only() -> None:
    value = {"a": math.nan, "b": ["\0", {"c": 2**64}], "d": b"x", "fine": [None, True, 1, 1.5, "x"]}
    assert {fault.pointer for fault in values.faults(value)} == {"/a", "/b/0", "/b/1/c", "/d"}


def test_a_value_that_holds_itself_is_refused_in_no_time() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    with pytest.raises(NotJson):
        values.encode(loop)


def test_too_many_bytes_are_too_large() -> None:
    assert values.encode("é" * 10, max_bytes=22) == f'"{"é" * 10}"'
    with pytest.raises(TooLarge) as caught:
        values.encode("é" * 10, max_bytes=21)
    assert (caught.value.size, caught.value.limit) == (22, 21)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        (b"", 1, 1),
        ("{", 1, 2),
        ('{"a": 1,}', 1, 9),
        ('{\n  "a": 1\n  "b": 2\n}', 3, 3),
        ("{'a': 1}", 1, 2),
        ("[1, 2", 1, 6),
        ("nul", 1, 1),
        ("1 2", 1, 3),
        ('"\x01"', 1, 2),
        ('["\\x"]', 1, 3),
        ("\ufeff{}", 1, 1),
    ],
)
def test_malformed_json_names_line_and_column(text: str | bytes, line: int, column: int) -> None:
    with pytest.raises(MalformedJson) as caught:
        values.parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert f"line {line}, column {column}" in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_does_no_harm(encoding: str) -> None:
    assert values.parse('{"å": ["𝄞"]}'.encode(encoding)) == {"å": ["𝄞"]}


@pytest.mark.parametrize("data", [b'"\xff"', b'"\xc3"', b"\xff\xfe{", b'\xef\xbb\xbf"\xe4'])
def test_bytes_that_are_no_text_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedJson):
        values.parse(data)


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("[" * 100_000, ""),
        ("[" * 100_000 + "]" * 100_000, ""),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, ""),
        ("[" * 201 + "]" * 201, "/0" * 200),
        ("[" + "9" * 5_000 + "]", ""),
        ("[" + "9" * 4_000 + "]", "/0"),
        ("[-" + "9" * 5_000 + "]", ""),
        ("[1e400]", "/0"),
        ('{"a": NaN}', "/a"),
        ("[Infinity]", "/0"),
        ('["\\u0000"]', "/0"),
        ('["\\ud800"]', "/0"),
        (b'["\xed\xa0\x80"]', "/0"),
        ('{"\\udfff": 1}', ""),
        ("[18446744073709551615]", "/0"),
    ],
)
def test_json_outside_the_rules_is_refused_when_read(text: str | bytes, pointer: str) -> None:
    with pytest.raises(NotJson) as caught:
        values.parse(text)
    assert caught.value.pointer == pointer


def test_a_surrogate_pair_is_one_character() -> None:
    assert values.parse('"\\ud834\\udd1e"') == "𝄞"


@given(st.lists(st.one_of(texts, st.integers(0, 10_000)), max_size=4))
def test_a_pointer_finds_its_place(parts: list[str | int]) -> None:
    steps = values.pointer_to(*parts).split("/")[1:]
    assert [step.replace("~1", "/").replace("~0", "~") for step in steps] == [str(part) for part in parts]


@given(st.text(max_size=50), st.integers(1, 60))
def test_cleaned_text_is_a_value(text: str, limit: int) -> None:
    cleaned = values.clean(text, limit)
    assert list(values.faults(cleaned)) == []
    if not list(values.faults(text)):
        assert len(cleaned) <= limit
        assert cleaned == text or cleaned.endswith("…")


def test_text_stays_text_and_the_rest_becomes_json() -> None:
    assert values.as_text("a") == "a"
    assert values.as_text(None) == "null"
    assert values.as_text({"a": [1]}) == '{"a":[1]}'
