"""References: every spelling, JSON type or text, results inserted once, and no input costs more than its length."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import expressions, refs
from dagbok.domain.ids import TaskId
from dagbok.errors import BadReference, TooLarge
from strategies import json_values

RESULTS: dict[TaskId, Any] = {
    TaskId("1"): {"items": [{"url": "u0", "n": 1}, {"url": "u1", "n": 5}], "a b": 3, "none": None},
    TaskId("2"): [1, 2, 3],
    TaskId("3"): "text",
    TaskId("4"): None,
    TaskId("fetch page"): {"ok": True},
    TaskId("a-b_c"): 7,
    TaskId("it's"): "quoted",
    TaskId("1.1"): "dotted",
}


def resolve(params: Any, *, max_bytes: int = 10_000) -> Any:
    return refs.resolve(params, RESULTS, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("<Result from Task 1>", ["1"]),
        ("<Results from Task 1>", ["1"]),
        ("<Result of Task 1>", ["1"]),
        ("<Results of Tasks 1>", ["1"]),
        ("<result from task 1>", ["1"]),
        ("<RESULT FROM TASK 1>", ["1"]),
        ("< Result  from\n Task  1 >", ["1"]),
        ("<Result from Task: 1>", ["1"]),
        ("<Result from Task : 1>", ["1"]),
        ("<Result from Task:1>", ["1"]),
        ("<Result from Task #1>", ["1"]),
        ("<Result from Task '1'>", ["1"]),
        ('<Result from Task "1">', ["1"]),
        ("<Result from Task ' 1 '>", ["1"]),
        ("<Result from Sub-Task 1>", ["1"]),
        ("<Result from subtask 1>", ["1"]),
        ("<Result from Task fetch page>", ["fetch page"]),
        ("<Result from Task 1.1>", ["1.1"]),
        ("<Results from Tasks 1, 2>", ["1", "2"]),
        ("<Results from Tasks 1,2,3>", ["1", "2", "3"]),
        ("<Results from Tasks 1 and 2>", ["1", "2"]),
        ("<Results from Tasks 1, 2, and 3>", ["1", "2", "3"]),
        ("<Results from Tasks 1, 2 AND 3>", ["1", "2", "3"]),
        ("<Results from Tasks 1 & 2; 3>", ["1", "2", "3"]),
        ("<Results from Tasks '1', \"2\">", ["1", "2"]),
        ("<Results from Tasks 2,\n1>", ["2", "1"]),
        ("<Result from Task sand>", ["sand"]),
        ("<Result from Task and-1>", ["-1"]),
        ("{{ tasks.1.result }}", ["1"]),
        ("{{tasks.1.result}}", ["1"]),
        ("{{  tasks.1.result\n}}", ["1"]),
        ("{{ TASKS.1.Result }}", ["1"]),
        ("{{ tasks.a-b_c.result }}", ["a-b_c"]),
        ("{{ tasks['fetch page'].result }}", ["fetch page"]),
        ('{{ tasks["fetch page"].result }}', ["fetch page"]),
        ('{{ tasks[ "it\'s" ].result }}', ["it's"]),
        ("{{ tasks['it's'].result }}", ["it's"]),
        ("{{ tasks['1.1'].result }}", ["1.1"]),
        ("{{ tasks.1.result.items[0].url }}", ["1"]),
    ],
)
def test_a_reference_is_found_however_it_is_spelled(text: str, tasks: list[str]) -> None:
    (found,) = refs.find(f"see {text}, please")
    assert list(found.tasks) == tasks
    assert (found.start, found.end) == (4, 4 + len(text))
    assert found.several == (len(tasks) > 1)
    assert refs.named({"a": [{"b": text}]}) == tasks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Result from Task 1",
        "<Result from Task 1",
        "<Result from Task >",
        "<Result from Task , and >",
        "<Result from 1>",
        "<Resulting from Task 1>",
        "<b>Results</b> of task 1",
        "<Result from Task <1>>",
        "{{ tasks.1 }}",
        "{{ tasks.1.result }",
        "{ tasks.1.result }",
        "{{ mytasks.1.result }}",
        "{{ tasks..result }}",
        "{{ tasks[''].result }}",
        "{{ tasks['1].result }}",
        "{{ tasks.1.result {{",
        "a < b and c > d",
        "{{ user.name }}",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert refs.find(text) == []
    assert resolve({"a": text}) == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<Result from Task 1>", RESULTS[TaskId("1")]),
        ("  <Result from Task 2>\n", [1, 2, 3]),
        ("<Result from Task 3>", "text"),
        ("<Result from Task 4>", None),
        ("<Results from Tasks 2, 3>", [[1, 2, 3], "text"]),
        ("<Results from Tasks 3, 2, 3>", ["text", [1, 2, 3], "text"]),
        ("{{ tasks.2.result }}", [1, 2, 3]),
        ("{{ tasks.2.result[0] }}", 1),
        ("{{ tasks.2.result[-1] }}", 3),
        ("{{ tasks.2.result[::2] }}", [1, 3]),
        ("{{ tasks.2.result | length(@) }}", 3),
        ("{{ tasks.2.result | [0] }}", 1),
        ("{{ tasks.1.result.items[0].url }}", "u0"),
        ("{{ tasks.1.result.items[*].url }}", ["u0", "u1"]),
        ("{{ tasks.1.result.items[*].url | [1] }}", "u1"),
        ("{{ tasks.1.result.items[?n > `2`].url | [0] }}", "u1"),
        ("{{ tasks.1.result.items[?url == 'u0'] | [0].n }}", 1),
        ("{{ tasks.1.result.length(items) }}", 2),
        ("{{ tasks.1.result.sort_by(items, &n)[-1].url }}", "u1"),
        ("{{ tasks.1.result.join(', ', items[].url) }}", "u0, u1"),
        ('{{ tasks.1.result."a b" }}', 3),
        ("{{ tasks.1.result.[items[0].n, none] }}", [1, None]),
        ("{{ tasks.2.result[] }}", [1, 2, 3]),
        ("{{ tasks.2.result[*] }}", [1, 2, 3]),
        ("{{ tasks.2.result[?@ > `1`] }}", [2, 3]),
        ("{{ tasks.2.result.@[1] }}", 2),
        ("{{ tasks.1.result.{first: items[0].url} }}", {"first": "u0"}),
        ("{{ tasks.1.result.{first: items[0].url}}}", {"first": "u0"}),
        ("{{tasks.1.result.{a:{b:none}}}}", {"a": {"b": None}}),
        ("{{ tasks.1.result.{a: {b: items[0].n}} }}", {"a": {"b": 1}}),
        ("{{ tasks.1.result.items[?url == '}}'] }}", []),
        ("{{ tasks.1.result.items[?url == '\\'}}'] }}", []),
        ('{{ tasks.1.result | `{"a": {}}` }}', {"a": {}}),
        ("{{ tasks.1.result.no.such[3].path }}", None),
        ("{{ tasks.3.result.items }}", None),
        ("{{ tasks.4.result.items[0] }}", None),
        ("{{ tasks['fetch page'].result.ok }}", True),
    ],
)
def test_a_string_that_is_one_reference_becomes_its_value(text: str, value: Any) -> None:
    assert resolve({"a": [text]}) == {"a": [value]}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("See: <Result from Task 3>!", "See: text!"),
        ("See: <Result from Task 2>", "See: [1,2,3]"),
        ("See: <Result from Task 4>", "See: null"),
        ("<Result from Task 3><Result from Task 3>", "texttext"),
        ("<Results from Tasks 2, 3>.", "[1,2,3]\n\ntext."),
        ("{{ tasks.1.result.items[0].url }}/{{ tasks.2.result[0] }}", "u0/1"),
        ("{{ tasks['fetch page'].result.ok }} <Result from Task 3>", "true text"),
        ("{{ user }} {{ tasks.3.result }} {{ tasks.3.result", "{{ user }} text {{ tasks.3.result"),
        ("å<Result from Task 3>𝄞", "åtext𝄞"),
    ],
)
def test_inside_a_longer_string_a_result_becomes_text(text: str, filled: str) -> None:
    assert resolve(text) == filled


def test_only_strings_of_values_are_replaced() -> None:
    params = {"<Result from Task 3>": [1, None, True, {"x": "<Result from Task 3>"}]}
    assert resolve(params) == {"<Result from Task 3>": [1, None, True, {"x": "text"}]}


@pytest.mark.parametrize("form", ["{}", "so: {}", "{} {}"])
def test_a_result_that_holds_a_reference_is_not_read_again(form: str) -> None:
    """A fetched page that says `<Result from Task 2>` would otherwise read what its author must not see."""
    page = "<Result from Task 2> {{ tasks.2.result }}"
    results = {TaskId("1"): page, TaskId("2"): "secret"}
    text = form.replace("{}", "<Result from Task 1>")
    filled = refs.resolve({"a": text}, results, max_bytes=1_000)
    assert filled == {"a": form.replace("{}", page)}
    deep = refs.resolve("<Result from Task 1>", {TaskId("1"): {"x": [page]}}, max_bytes=1_000)
    assert deep == {"x": [page]}


@given(json_values, json_values)
def test_a_lone_reference_keeps_any_value_as_it_is(one: Any, other: Any) -> None:
    results = {TaskId("x y"): one, TaskId("z"): other}
    params = {"a": "{{ tasks['x y'].result }}", "b": ["<Results from Tasks z, x y>"]}
    assert refs.resolve(params, results, max_bytes=100_000) == {"a": one, "b": [[other, one]]}


BAD_PATHS = [
    "{{ tasks.1.result[ }}",
    "{{ tasks.1.result.a.. }}",
    "{{ tasks.1.result | }}",
    "{{ tasks.1.result == 'x' }}",
    "{{ tasks.1.result.a-b }}",
    "{{ tasks.1.result.it's }}",
    "{{ tasks.1.result.{a: b }}",
    "{{ tasks.1.result.$ }}",
    "{{ tasks.1.results.a }}",
    "{{ tasks.1.result_count }}",
    "{{ tasks.1.result-b }}",
    "{{ tasks.1.result[" + "1" * 5_000 + "] }}",
    "{{ tasks.1.result[" + "(" * 5_000 + "] }}",
]


@pytest.mark.parametrize("text", BAD_PATHS, ids=lambda text: str(text)[:30])
def test_a_path_that_is_no_jmespath_is_a_bad_reference(text: str) -> None:
    """`.results.a` was once read as the path `s.a`, which is null for every result."""
    with pytest.raises(BadReference) as caught:
        refs.find(f"see {text}")
    assert caught.value.code == "bad_reference"
    assert len(caught.value.message) < 1_000


@pytest.mark.parametrize(
    "path",
    [
        "| no_such_function(@)",
        "| length(`1`)",
        "| keys(`[]`)",
        '| sum(`["a"]`)',
        '[?n].x | sort(`[1, "a"]`)',
        "| ceil(to_number('inf'))",
        "| floor(to_number('nan'))",
        "| to_number('nan')",
        "| to_number('1e999')",
        "| `123456789012345678901234567890`",
        "| &foo",
        "| '\0'",
        '| `"\\ud800"`',
        "[::0]",
    ],
)
@pytest.mark.parametrize("form", ["{}", "so: {}"])
def test_a_path_that_fails_or_gives_no_json_is_a_bad_reference(path: str, form: str) -> None:
    with pytest.raises(BadReference):
        resolve(form.replace("{}", "{{ tasks.2.result" + path + " }}"))


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax:PendingDeprecationWarning")
@given(st.text(alphabet="ab01.[]*?'\"`|&@(){}:,<>=! \\-", max_size=24), json_values)
def test_any_path_gives_a_value_or_a_bad_reference(path: str, value: Any) -> None:
    """Whatever else came out would end the turn of the loop for every execution."""
    text = "{{ tasks.1.result" + path + " }}"
    try:
        found = refs.resolve([text], {TaskId("1"): value}, max_bytes=100_000)
    except (BadReference, TooLarge):
        return
    assert len(found) == 1


@given(
    st.lists(
        st.sampled_from(
            [
                "<",
                ">",
                "{{",
                "}}",
                " tasks",
                ".1.result",
                "Result from Task 1",
                " 1",
                "'",
                "[",
                "]",
                "`",
                "{",
                "}",
                "\\",
                " and ",
                "x",
            ]
        ),
        max_size=14,
    )
)
def test_any_text_around_references_stays(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        found = refs.find(text)
    except BadReference:
        return
    ends = [0, *(at for reference in found for at in (reference.start, reference.end)), len(text)]
    assert ends == sorted(ends), "references overlap, or come out of order"
    if not found:
        assert resolve(text) == text


LARGE = "x" * 1_000


@pytest.mark.parametrize(
    "params",
    [
        pytest.param("so: " + "<Result from Task 1>" * 11, id="in_one_string"),
        pytest.param(["so: <Result from Task 1>"] * 11, id="in_many_strings"),
        pytest.param(["<Result from Task 1>"] * 11, id="alone_many_times"),
        pytest.param(["<Result from Task 2>"] * 11, id="alone_many_times_no_string"),
        pytest.param("<Results from Tasks " + "1, " * 10 + "1>", id="named_many_times"),
        pytest.param("so: <Results from Tasks " + "1, " * 10 + "1>", id="named_many_times_in_text"),
        pytest.param("<Results from Tasks " + "1, " * 1_000_000 + "1>", id="named_a_million_times"),
        pytest.param("{{ tasks.1.result.[" + ", ".join(["@"] * 11) + "] }}", id="by_a_list_in_the_path"),
        pytest.param("{{ tasks.1.result" + " | [@, @]" * 50 + " }}", id="by_doubling_in_the_path"),
        pytest.param("so {{ tasks.1.result" + " | {a: @, b: @}" * 50 + " }}", id="by_doubling_in_the_path_in_text"),
    ],
)
def test_references_insert_no_more_than_the_limit(params: Any) -> None:
    """Without a bound 8 MiB of plan times 32 MiB of result is what one step asks the memory for."""
    results = {TaskId("1"): LARGE, TaskId("2"): [LARGE]}
    with pytest.raises(TooLarge) as caught:
        refs.resolve(params, results, max_bytes=10_500)
    assert caught.value.limit in (10_500, expressions.MAX_WEIGHT)


def test_up_to_the_limit_references_insert_freely() -> None:
    results = {TaskId("1"): LARGE}
    assert refs.resolve(["<Result from Task 1>"] * 10, results, max_bytes=10_000) == [LARGE] * 10
    assert refs.resolve("-" + "<Result from Task 1>" * 10, results, max_bytes=10_000) == "-" + LARGE * 10


HOSTILE: list[Any] = [
    pytest.param(lambda n: "<result from task " * n, id="angle"),
    pytest.param(lambda n: "<result from task 1 " * n, id="angle_with_id"),
    pytest.param(lambda n: "<result from task" + " " * n * 18, id="angle_and_blanks"),
    pytest.param(lambda n: "<result from task" + " \n" * n * 9 + "1>", id="angle_blanks_and_id"),
    pytest.param(lambda n: "<result from task 1" + " " * n * 18 + "2>", id="blanks_inside_an_id"),
    pytest.param(lambda n: "<" + " " * n * 18 + "result", id="angle_first_blanks"),
    pytest.param(lambda n: "<result" + " " * n * 18, id="angle_second_blanks"),
    pytest.param(lambda n: "<results from tasks " + "1," * n * 9 + ">", id="angle_many_ids"),
    pytest.param(lambda n: "<results from tasks 1" + ", " * n * 9 + "2>", id="angle_many_commas"),
    pytest.param(lambda n: "<results from tasks 1" + " and" * n * 4 + ">", id="angle_many_ands"),
    pytest.param(lambda n: "{{ tasks." * n * 2, id="braces"),
    pytest.param(lambda n: "{{" + " " * n * 18, id="braces_and_blanks"),
    pytest.param(lambda n: "{{ tasks.1.result" * n, id="unclosed"),
    pytest.param(lambda n: "{{ tasks.1.result.a " * n, id="unclosed_path"),
    pytest.param(lambda n: "{{ tasks.1.result }" * n, id="half_closed"),
    pytest.param(lambda n: "{{ tasks.1.result.{" * n, id="unclosed_braces"),
    pytest.param(lambda n: "{{ tasks.1.result'" * n, id="unclosed_quote"),
    pytest.param(lambda n: "{{ tasks.1.result \\'" * n, id="escaped_quote"),
    pytest.param(lambda n: "{{ tasks.1.result`\"'" * n, id="mixed_quotes"),
    pytest.param(lambda n: "{{ tasks.1.result'" + "\\" * n * 18, id="backslashes"),
    pytest.param(lambda n: "{{ tasks.1.result" + "'" * n * 18, id="quotes"),
    pytest.param(lambda n: "{{ tasks.1.result" + "{" * n * 18, id="open_braces"),
    pytest.param(lambda n: "{{ tasks.1.result" + "}a" * n * 9, id="single_braces"),
    pytest.param(lambda n: "{{ tasks.1.result" + " " * n * 18, id="path_blanks"),
    pytest.param(lambda n: "{{ tasks['a" * n * 2, id="quoted_id"),
    pytest.param(lambda n: "{{ tasks[" + "'" * n * 18, id="many_quotes"),
    pytest.param(lambda n: "{{ tasks['" * 20 + "'" * 200 + " " * n * 18, id="quotes_then_blanks"),
    pytest.param(lambda n: "{{ tasks." + "a" * n * 18, id="long_word"),
    pytest.param(lambda n: "<result from task 1>" * n, id="sound_angle"),
    pytest.param(lambda n: "{{ tasks.1.result.a }}" * (n // 2), id="sound_braces"),
]


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_megabyte_takes_no_more_than_its_length(make: Callable[[int], str]) -> None:
    """Quadratic at a megabyte is many minutes; the bound is loose enough for a busy machine."""
    text = make(58_000)
    assert len(text) > 600_000
    start = time.process_time()
    with contextlib.suppress(BadReference):
        refs.find(text)
    assert time.process_time() - start < 5
