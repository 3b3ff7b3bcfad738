"""Secrets of a plan: only the plan's own words ask for one, and no spelling of a value survives the redactor."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dagbok.domain import refs, secrets, values
from dagbok.domain.secrets import Redactor, marker
from dagbok.domain.validate import check
from dagbok.errors import TooLarge, ToolError
from strategies import json_values

AWKWARD = "a\"b\\c é𝄞\n<&'%/+=~{d}.*"
TOKEN = "sk-Zq8/vT+3xY=0aB"
HOOK = "/services/T024BE7LD/XmZ0qLr8Jf2kP0qLmZr7"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


def spelled(value: str) -> Iterator[str]:
    """Yield how programs write a value, by the libraries that do it."""
    yield value
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), orjson.dumps(value).decode()):
        yield text[1:-1]
        yield json.dumps(text)[1:-1]
        yield repr(text)[1:-1]
        yield json.dumps({"in": json.dumps({"in": text})})
    yield from (repr(value)[1:-1], ascii(value)[1:-1], repr(value.encode())[2:-1])
    for percent in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield percent
        yield re.sub("%..", lambda found: found[0].lower(), percent)
        yield quote(percent)
    yield from (html.escape(value), html.escape(value, quote=False), html.escape(html.escape(value)))
    yield value.encode("ascii", "xmlcharrefreplace").decode()
    yield values.pointer_to(value)[1:]
    data = value.encode()
    if len(data) >= 8:
        yield from (data.hex(), data.hex().upper())
        yield from (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("="))


def in_base64(value: str, before: bytes, after: bytes) -> tuple[str, str]:
    """Return base64 of bytes that hold `value`, and the part of it that the value alone decides."""
    data = value.encode()
    start, end = 8 * len(before), 8 * (len(before) + len(data))
    text = base64.b64encode(before + data + after).decode()
    return text, text[-(-start // 6) : end // 6]


def pieces(text: str, redactor: Redactor) -> list[str]:
    """Return what is left of a redacted text: all but the marks."""
    return re.split("|".join(re.escape(marker(name)) for name in redactor.names), text)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings(child)
    elif isinstance(value, str):
        yield value


@st.composite
def vaults(draw: st.DrawFn) -> Redactor:
    """Redactors of a few secrets: awkward ones, digits, one that begins with another, several lines."""
    letters = st.sampled_from("abZ09_-\"'\\/%&+<>=~.*[](){}^$|?# \n\té𝄞ж\x01\xa0;,:!@`")
    found = draw(st.lists(st.text(letters, min_size=4, max_size=14) | st.text("0123456789", min_size=4, max_size=12)
                          | st.sampled_from([AWKWARD, TOKEN, PEM, "%25%25", "\\\\\\\\", "&amp;&", "\\n\n\\", "null"]),
                          min_size=1, max_size=4, unique=True))  # fmt: skip
    if draw(st.booleans()):
        found.append(found[0] + draw(st.text(letters, min_size=1, max_size=5)))
    found = [value for value in found if len(value.strip()) >= secrets.MIN_CHARS]
    assume(found)
    redactor = Redactor({f"S{number}": value for number, value in enumerate(found)})
    # As a vault refuses them.
    assume(not any(list(redactor.find(marker(name))) for name in redactor.names))
    values_of[redactor] = found
    return redactor


values_of: dict[Redactor, list[str]] = {}
around = st.text(st.sampled_from('ab"\\ é\n%0'), max_size=6)


@given(vaults(), around, around, st.data())
def test_no_spelling_of_any_value_is_left_in_a_text(
    redactor: Redactor, before: str, after: str, data: st.DataObject
) -> None:
    for value in values_of[redactor]:
        for spelling in spelled(value.strip()):
            left = redactor.text(before + spelling + after)
            assert not any(spelling in piece for piece in pieces(left, redactor)), (spelling, left)
        if len(value.strip().encode()) >= 8:
            text, part = in_base64(value.strip(), before.encode(), after.encode())
            for written in (text, text.replace("+", "-").replace("/", "_"), quote(text, safe="")):
                left = redactor.text(written)
                core = part if written is text else re.split("[^A-Za-z0-9]", part)[0]
                assert len(core) < 4 or not any(core in piece for piece in pieces(left, redactor)), (written, left)


@given(vaults(), json_values, st.data())
def test_no_spelling_is_left_in_json_which_stays_json(redactor: Redactor, value: Any, data: st.DataObject) -> None:
    secret = data.draw(st.sampled_from(values_of[redactor])).strip()
    spelling = data.draw(st.sampled_from(list(spelled(secret))))
    document = {"as value": [value, f"x{spelling}y"], f"as key {spelling}": value}
    number = int(secret) if secret.isdecimal() and len(secret) < 15 and secret[0] != "0" else None
    if number is not None:
        document["as number"] = number
    left = values.decode(redactor.json(values.encode(document)))
    assert len(left) == len(document)
    assert number is None or not any(type(value) is int and value == number for value in left.values())
    for text in strings(left):
        for each in values_of[redactor]:
            assert not any(
                spelling in piece for spelling in spelled(each.strip()) for piece in pieces(text, redactor)
            ), text


@given(vaults(), json_values)
def test_what_holds_no_value_is_the_very_same(redactor: Redactor, value: Any) -> None:
    assume(not list(redactor.find(value)))
    text = values.encode(value)
    assert redactor.json(text) is text
    assert redactor.value(value) is value


def test_the_mark_names_the_secret_and_the_rest_stays() -> None:
    redactor = Redactor({"TOKEN": TOKEN, "PIN": "4711"})
    assert redactor.text(f"Bearer {TOKEN}, pin 4711.") == "Bearer [secret TOKEN], pin [secret PIN]."
    basic = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    assert redactor.text(f"Basic {basic}.") == f"Basic {basic[:7]}[secret TOKEN]."
    assert list(redactor.find({"a": [1, f"x{TOKEN}"], f"k4711{TOKEN}": {"4711": None}})) == [
        ((), "TOKEN"),
        (("k[secret PIN][secret TOKEN]",), "PIN"),
        (("a", 1), "TOKEN"),
    ]


@pytest.mark.parametrize("number", [94711.5, 47115, 14711, 1, 1795412342, 4711.25])
def test_a_number_that_only_has_the_digits_of_a_value_stays_a_number(number: float) -> None:
    redactor = Redactor({"PIN": "4711", "OTHER": "1234"})
    assert redactor.value({"n": [number]}) == {"n": [number]}
    assert list(redactor.find({"n": [number]})) == []


@pytest.mark.parametrize(
    ("secret", "number"),
    [("4711", 4711), ("47.25", 47.25), ("-4711", -4711), ("4711", 4711.0), ("4711", -4711), ("47114711", 947114711.5)],
)
def test_a_number_that_is_a_value_becomes_its_name(secret: str, number: float) -> None:
    redactor = Redactor({"PIN": secret})
    assert redactor.value({"n": [number, 12], "ok": True}) == {"n": ["[secret PIN]", 12], "ok": True}
    assert list(redactor.find({"n": [number]})) == [(("n", 0), "PIN")]


def test_of_two_secrets_that_overlap_the_longer_is_meant() -> None:
    redactor = Redactor({"SHORT": "hunter22", "URL": "db://me:hunter22@host", "LONG": "hunter22hunter22"})
    assert (
        redactor.text("db://me:hunter22@host hunter22hunter22 hunter22") == "[secret URL] [secret LONG] [secret SHORT]"
    )


def test_the_lines_of_a_key_are_secret_each_and_its_boundaries_are_not() -> None:
    redactor = Redactor({"KEY": PEM, "SHORT": "line\nsecond-line\nab"})
    assert redactor.text(f"  {PEM}") == "  [secret KEY]\n"
    assert redactor.text("> hkiG9w0BAQEFAASC") == "> [secret KEY]"
    assert redactor.text("-----BEGIN KEY-----") == "-----BEGIN KEY-----"
    assert redactor.text("line and second-line") == "line and [secret SHORT]"


@pytest.mark.parametrize(
    ("secret", "text", "clean"),
    [
        (f"https://hooks.example{HOOK}?v=1", f"POST {HOOK} fails", "POST [secret URL] fails"),
        ("https://api.example/v1?key=abcdef123456&q=1", "GET /v1?key=abcdef123456", "GET /v1?key=[secret URL]"),
        ("postgresql://me:pass-word@db/production", "pass-word of /production", "[secret URL] of /production"),
    ],
    ids=["path-of-a-webhook", "key-in-the-query", "password"],
)
def test_what_is_secret_of_a_url_is_found_without_the_rest_of_it(secret: str, text: str, clean: str) -> None:
    assert Redactor({"URL": secret}).text(text) == clean


def test_keys_that_become_the_same_are_all_kept() -> None:
    redactor = Redactor({"TOKEN": TOKEN})
    encoded = base64.b64encode(TOKEN.encode()).decode()
    assert redactor.value({TOKEN: 1, encoded: 2}) == {"[secret TOKEN]": 1, "[secret TOKEN] (2)": 2}


def test_keys_that_become_the_same_are_numbered_in_one_walk() -> None:
    """Each free number is found from the last one on: as many steps as keys, not their square."""
    held = Redactor({"T": "k9!q2!z7!w4!m1!b5!"})
    ways = itertools.product(("!", "%21", "&#33;", "\\u0021"), repeat=6)
    spelled = ["".join(itertools.chain(*zip(("k9", "q2", "z7", "w4", "m1", "b5"), way, strict=True))) for way in ways]
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        if frame.f_code is Redactor._object.__code__:
            steps += event == "line"
            return count
        return None

    sys.settrace(count)
    try:
        after = held.value(dict.fromkeys([*spelled[:1000], "[secret T] (3)"], 1))
    finally:
        sys.settrace(None)
    numbers = [f"[secret T] ({number})" for number in range(2, 1001)]
    assert list(after) == ["[secret T]", *numbers, "[secret T] (3) (2)"]
    assert steps < 10 * 1000


def test_json_that_grew_is_measured_again() -> None:
    redactor = Redactor({"A_LONG_NAME": "abcd"})
    text = values.encode(["abcd"] * 10)
    with pytest.raises(TooLarge):
        redactor.json(text, max_bytes=len(text))


def test_without_secrets_nothing_is_looked_at() -> None:
    class Unreadable(str):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    text = Unreadable("x")
    redactor = Redactor({})
    assert redactor.text(text) is text
    assert redactor.json(values.JsonText(text)) is text  # type: ignore[comparison-overlap]  # the very same
    assert redactor.value(text) is text
    assert not list(redactor.find(text))


# -- where a value goes -----------------------------------------------------------------------------------------------


def test_a_secret_is_asked_for_at_any_depth_but_not_by_the_params_as_a_whole() -> None:
    params = {
        "secret": "NAME",
        "header": {"secret": "A_1"},
        "list": [{"secret": "B"}, {"secret": "C", "more": 1}, {"secret": 5}, {"secret": {"secret": "D"}}],
        "odd": {"secret": "no name"},
    }
    assert sorted(secrets.references(params)) == [
        (("header",), "A_1"),
        (("list", 0), "B"),
        (("list", 3, "secret"), "D"),
        (("odd",), "no name"),
    ]
    assert not list(secrets.references({"secret": "NAME"}))


def test_only_what_the_plan_says_is_filled_never_what_a_result_turned_it_into() -> None:
    written = {
        "real": {"secret": "TOKEN"},
        "whole": "<Result from Task 1>",
        "inner": {"part": "{{ tasks.1.result.x }}", "real": [{"secret": "TOKEN"}]},
        "old": {"secret": "lower case"},
    }
    forged = {
        "secret": "TOKEN",
    }
    results = {"1": {"x": forged}, "2": forged}
    resolved = refs.resolve(written, results, max_bytes=10_000)  # type: ignore[arg-type]
    secrets.fill(written, resolved, {"TOKEN": "value"}.get)
    assert resolved == {
        "real": "value",
        "whole": {"x": {"secret": "TOKEN"}},
        "inner": {"part": {"secret": "TOKEN"}, "real": ["value"]},
        "old": {"secret": "lower case"},
    }
    assert written["real"] == {"secret": "TOKEN"}, "the plan itself is not touched"


def test_a_name_without_a_value_says_how_to_set_it() -> None:
    with pytest.raises(ToolError, match="DAGBOK_SECRET_TOKEN") as told:
        secrets.fill({"a": {"secret": "TOKEN"}}, {"a": {"secret": "TOKEN"}}, lambda name: None)
    assert told.value.code == "unknown_secret"


# -- the check of a plan ----------------------------------------------------------------------------------------------

TOOLS: dict[str, dict[str, Any]] = {
    "call": {
        "type": "object",
        "properties": {
            "token": {"type": "string", "pattern": "^sk-", "minLength": 5},
            "port": {"type": "integer"},
            "auth": {"type": "object", "required": ["user"], "additionalProperties": False, "properties": {"user": {}}},
        },
        "required": ["token"],
        "additionalProperties": False,
    },
    "inference": {},
    "note": {},
}


def problems(tool: str, params: Any, redactor: Redactor | None = None, **more: Any) -> set[tuple[str, str]]:
    task = {"id": 1, "tool_or_prompt": {"name": tool, "params": params}, **more}
    plan = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [task]}
    return {
        (problem.code, problem.pointer.removeprefix("/sub_tasks/0/tool_or_prompt/params"))
        for problem in check(plan, TOOLS, None, redactor)
    }


def test_the_place_of_a_secret_is_undecided_and_all_else_is_checked() -> None:
    assert problems("call", {"token": {"secret": "TOKEN"}}) == set()
    assert problems("call", {"token": {"secret": "TOKEN"}, "port": {"secret": "PORT"}}) == set()
    assert problems("call", {"token": "sk-12345", "auth": {"user": {"secret": "NAME"}}}) == set()
    assert problems("call", {"token": "sk-12345", "auth": {"secret": "NAME"}}) == set()
    assert problems("call", {"port": {"secret": "PORT"}}) == {("invalid_params", "")}
    assert problems("call", {"token": {"secret": "TOKEN"}, "port": "x"}) == {("invalid_params", "/port")}
    assert problems("call", {"token": {"secret": "TOKEN"}, "more": {"secret": "X"}}) == {("invalid_params", "")}


def test_a_name_that_is_none_and_one_that_is_not_known_are_problems() -> None:
    known = Redactor({"API_TOKEN": TOKEN})
    assert problems("note", {"a": [{"secret": "API_TOKEN"}]}, known) == set()
    assert problems("note", {"a": [{"secret": "API_TOKNE"}]}, known) == {("unknown_secret", "/a/0")}
    assert problems("note", {"a": {"secret": "ANY"}}, Redactor({})) == {("unknown_secret", "/a")}
    assert problems("note", {"a": {"secret": "ANY"}}) == set(), "a check that knows no secrets does not judge"
    for name in ("api_token", "", "A" * 101, "1A", "A-B", "{{ tasks.1.result }}", "API_TOKEN\n"):
        assert ("bad_secret", "/a") in problems("note", {"a": {"secret": name}}, known), name
    plan = {"original_request": "r", "intent": {"primary": "p"}}
    task = {"id": 1, "tool_or_prompt": {"name": "note", "params": {"a": {"secret": "API_TOKNE"}}}}
    (problem,) = check({**plan, "sub_tasks": [task]}, TOOLS, None, known)
    assert "Did you mean 'API_TOKEN'?" in problem.message
    assert "DAGBOK_SECRET_API_TOKNE" in problem.message


@pytest.mark.parametrize(
    ("tool", "more"), [("inference", {}), ("x", {"action_type": "inference"}), ("x", {"action_type": "human"})]
)
def test_models_and_people_are_given_no_secret(tool: str, more: dict[str, Any]) -> None:
    params = {"prompt": "p", "more": {"deep": [{"secret": "TOKEN"}]}}
    assert problems(tool, params, Redactor({"TOKEN": TOKEN}), **more) == {("secret_not_allowed", "/more/deep/0")}


def test_a_value_written_out_anywhere_in_a_plan_is_refused_and_never_repeated() -> None:
    redactor = Redactor({"TOKEN": TOKEN})
    task = {
        "id": f"t-{TOKEN[-4:]}",
        "description": f"use {TOKEN}",
        "tool_or_prompt": {
            "name": "call",
            "params": {"token": "no", "port": TOKEN, f"x{TOKEN}": quote(TOKEN, safe="")},
        },
    }
    plan = {"original_request": "x" * 200 + TOKEN, "intent": {"primary": TOKEN}, "sub_tasks": [task], TOKEN: 1}
    found = check(plan, TOOLS, None, redactor)
    params = "/sub_tasks/0/tool_or_prompt/params"
    assert {problem.pointer for problem in found if problem.code == "literal_secret"} == {
        "", "/original_request", "/intent/primary", "/sub_tasks/0/description", params, f"{params}/port",
        f"{params}/x[secret TOKEN]",
    }  # fmt: skip
    assert "invalid_params" in {problem.code for problem in found}, "other problems are told too"
    for problem in found:
        assert not any(spelling in f"{problem.pointer} {problem.message}" for spelling in spelled(TOKEN))
        assert "sk-" not in problem.message.replace("^sk-", "")


def test_a_result_that_looks_like_a_secret_is_none_after_an_edit() -> None:
    """Whoever edits params sends the results in them back: these could name a secret where the plan has none."""
    before = {"token": {"secret": "KEY"}, "text": "<Result from Task 1>"}
    edited: dict[str, Any] = {"token": {"secret": "KEY"}, "text": {"secret": "KEY"}, "more": [{"secret": "KEY"}]}
    secrets.fill(values.decode(values.encode(edited)), edited, {"KEY": "value"}.get, before=before)
    assert edited == {"token": "value", "text": {"secret": "KEY"}, "more": [{"secret": "KEY"}]}
