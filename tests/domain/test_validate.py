"""Every problem of a plan at once, each with pointer, code and a sentence; and no document makes `check` raise."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import outline, refs
from dagbok.domain.plan import Plan
from dagbok.domain.validate import MAX_FAULTS, Limits, Problem, check, read
from dagbok.errors import BadReference, InvalidPlan, TooLarge
from strategies import json_values, odd_values, plans

TOOLS: dict[str, dict[str, Any]] = {
    "fetch_url": {
        "type": "object",
        "properties": {
            "url": {"type": "string", "pattern": "^https?://"},
            "tries": {"type": "integer", "minimum": 1, "maximum": 9},
            "headers": {"type": "object", "required": ["agent"], "additionalProperties": {"type": "string"}},
            "parts": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        },
        "required": ["url"],
        "additionalProperties": False,
    },
    "note": {},
    "pure": {},
    "idempotent": {},
    "once": {},
    "inference": {"type": "object", "required": ["prompt"]},
}


def task(id: object, name: str = "note", params: object = None, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": name, "params": {} if params is None else params}, **more}


def plan_of(*tasks: Any, **more: Any) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}


def found(document: Any, limits: Limits | None = None) -> set[tuple[str, str]]:
    problems = check(document, TOOLS, limits)
    for problem in problems:
        assert problem.message
        assert problem.message[-1] in ".?", problem.message
        assert len(problem.message) < 2_000
    assert len({(p.code, p.pointer, p.message) for p in problems}) == len(problems), "the same twice"
    return {(problem.code, problem.pointer) for problem in problems}


FETCH = "/sub_tasks/0/tool_or_prompt/params"


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        pytest.param([], {("bad_value", "")}, id="a_list"),
        pytest.param(None, {("bad_value", "")}, id="null"),
        pytest.param("plan", {("bad_value", "")}, id="a_string"),
        pytest.param(
            {},
            {("missing_field", "/original_request"), ("missing_field", "/intent"), ("missing_field", "/sub_tasks")},
            id="empty_object",
        ),
        pytest.param(plan_of(task(1)) | {"intent": {}}, {("missing_field", "/intent/primary")}, id="no_intent"),
        pytest.param(plan_of(task(1)) | {"title": 5}, {("bad_value", "/title")}, id="title"),
        pytest.param(
            plan_of({"id": 1}, {"tool_or_prompt": {}}, 7, None),
            {
                ("missing_field", "/sub_tasks/0/tool_or_prompt"),
                ("missing_field", "/sub_tasks/1/id"),
                ("missing_field", "/sub_tasks/1/tool_or_prompt/name"),
                ("bad_value", "/sub_tasks/2"),
                ("bad_value", "/sub_tasks/3"),
            },
            id="sub_tasks_that_are_none",
        ),
        pytest.param(plan_of() | {"sub_tasks": {"a": 1}}, {("bad_value", "/sub_tasks")}, id="sub_tasks_an_object"),
        pytest.param(
            plan_of(task(1, action_type="agent", on_failure="x", dependencies=[[]], expected_output=[1])),
            {
                ("bad_value", "/sub_tasks/0/action_type"),
                ("bad_value", "/sub_tasks/0/on_failure"),
                ("bad_value", "/sub_tasks/0/dependencies/0"),
                ("bad_value", "/sub_tasks/0/expected_output"),
            },
            id="values",
        ),
        pytest.param(plan_of(task("a/b")), {("bad_value", "/sub_tasks/0/id")}, id="id"),
        pytest.param(
            plan_of(task(1, params={"a": [math.nan], "b/c": 2**70})),
            {("not_json", FETCH + "/a/0"), ("not_json", FETCH + "/b~1c")},
            id="not_json",
        ),
        pytest.param(plan_of(), {("empty_plan", "/sub_tasks")}, id="empty_plan"),
        pytest.param(plan_of(clarification_needed=True), set(), id="empty_but_asks"),
        pytest.param(
            plan_of(clarification_needed="true"), {("bad_value", "/clarification_needed")}, id="asks_in_a_string"
        ),
        pytest.param(plan_of(task(1), task(2), task("1")), {("duplicate_id", "/sub_tasks/2/id")}, id="duplicate_id"),
        pytest.param(
            plan_of(task(1), task("1"), task(1.0)),
            {("duplicate_id", "/sub_tasks/1/id"), ("duplicate_id", "/sub_tasks/2/id")},
            id="three_spellings_of_an_id",
        ),
        pytest.param(plan_of(task("__SYNTHESIS__")), {("reserved_id", "/sub_tasks/0/id")}, id="reserved_id"),
        pytest.param(
            plan_of(task(1, dependencies=[1]), task(2, params={"a": "<Result from Task 2>"})),
            {
                ("self_dependency", "/sub_tasks/0/dependencies/0"),
                ("self_dependency", "/sub_tasks/1/tool_or_prompt/params/a"),
            },
            id="self_dependency",
        ),
        pytest.param(
            plan_of(task(1, dependencies=["none", 2, 3]), task(2)),
            {("unknown_dependency", "/sub_tasks/0/dependencies/2")},
            id="unknown_dependency",
        ),
        pytest.param(
            plan_of(task(1, params={"a": ["x", {"b~": "see <Results from Tasks 1a, 9>"}]}), task("1a")),
            {("unknown_reference", FETCH + "/a/1/b~0")},
            id="unknown_reference",
        ),
        pytest.param(
            plan_of(task(1), task(2, params={"a": "{{ tasks.1.result[ }}"})),
            {("bad_reference", "/sub_tasks/1/tool_or_prompt/params/a")},
            id="bad_reference",
        ),
        pytest.param(
            plan_of(task("a", dependencies=["c"]), task("b", dependencies=["a"]), task("c", dependencies=["b"])),
            {("cycle", "/sub_tasks/0/dependencies")},
            id="cycle",
        ),
        pytest.param(
            plan_of(task(1, params={"a": "<Result from Task 2>"}), task(2, dependencies=[1])),
            {("cycle", "/sub_tasks/0/dependencies")},
            id="cycle_through_a_reference",
        ),
        pytest.param(
            plan_of(task(1, "human", {"prompt": "?"}, action_type="human", on_timeout="remind")),
            {("missing_field", "/sub_tasks/0/timeout_seconds")},
            id="reminder_without_a_time",
        ),
        pytest.param(
            plan_of(
                task(
                    1,
                    "human",
                    {"prompt": "?", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                    action_type="human",
                    timeout_seconds=1,
                    on_timeout="default",
                    default={"n": "no"},
                )
            ),
            {("bad_value", "/sub_tasks/0/default/n")},
            id="default_that_is_no_answer",
        ),
        pytest.param(plan_of(task(1, "fetch")), {("unknown_tool", "/sub_tasks/0/tool_or_prompt/name")}, id="tool"),
        pytest.param(
            plan_of(task(1, "human", {}, action_type="human")),
            {("invalid_params", FETCH)},
            id="question_without_prompt",
        ),
        pytest.param(
            plan_of(task(1, "anything", {"prompt": "", "schema": []}, action_type="human")),
            {("invalid_params", FETCH + "/prompt"), ("invalid_params", FETCH + "/schema")},
            id="question",
        ),
        pytest.param(
            plan_of(
                task(1, "x", {"prompt": "?", "schema": {"properties": {"a": {"type": "txt"}}}}, action_type="human")
            ),
            {("bad_schema", FETCH + "/schema/properties/a/type")},
            id="question_whose_answer_cannot_be_checked",
        ),
        pytest.param(
            plan_of(task(1, "x", {"prompt": "?", "schema": {"type": ["string", "null"]}}, action_type="human")),
            set(),
            id="question_with_a_schema",
        ),
        pytest.param(
            plan_of(task(1, "anything", {}, action_type="inference")), {("invalid_params", FETCH)}, id="model_call"
        ),
        pytest.param(
            plan_of(task(1, "fetch_url", {"url": "ftp://", "tries": 10, "more": 1, "parts": ["a"]})),
            {
                ("invalid_params", FETCH),
                ("invalid_params", FETCH + "/url"),
                ("invalid_params", FETCH + "/tries"),
                ("invalid_params", FETCH + "/parts/0"),
            },
            id="params",
        ),
    ],
)
def test_each_kind_of_problem_has_its_code_and_place(document: Any, problems: set[tuple[str, str]]) -> None:
    assert found(document) == problems
    if problems:
        with pytest.raises(InvalidPlan) as caught:
            read(document, TOOLS)
        assert {(p.code, p.pointer) for p in caught.value.problems} == problems
    else:
        assert isinstance(read(document, TOOLS), outline.Outline)


def messages(document: Any) -> list[str]:
    return [problem.message for problem in check(document, TOOLS)]


def test_sentences_say_what_to_mend() -> None:
    assert messages(plan_of(task(1, "fetch_ulr"))) == [
        "Sub-task '1' calls the tool 'fetch_ulr', which is not known. Did you mean 'fetch_url'?"
    ]
    assert messages(plan_of(task("zorp"), task(2, dependencies=["zorpp"]))) == [
        "Sub-task '2' depends on 'zorpp', which is not in the plan. Did you mean 'zorp'?"
    ]
    assert messages(plan_of(task("zorp"), task(2, params={"a": "<Result from Task zorpp>"}))) == [
        "Sub-task '2' refers to the result of 'zorpp', which is not in the plan. Did you mean 'zorp'?"
    ]
    assert messages(plan_of(task(1), task("1"))) == [
        "The id '1' is taken by sub-task 0 already (1 and \"1\" are the same id)."
    ]
    assert messages({"original_request": "r", "sub_tasks": [task(1)]}) == ["`intent` is required."]
    assert messages([]) == ["A plan is a JSON object, not a list."]
    assert messages(plan_of(task(1, "fetch_url"))) == ["Sub-task '1', tool 'fetch_url': 'url' is a required property."]


def test_a_cycle_is_told_with_its_members_in_order() -> None:
    (message,) = messages(
        plan_of(task("a", dependencies=["c"]), task("b", dependencies=["a"]), task("c", dependencies=["b"]), task("d"))
    )
    names = re.findall(r"'(\w)'", message)
    assert names[0] == names[-1]
    assert "".join(names) == "abca", "b waits for a, c for b, a for c"
    ring = [task(f"t{at}", dependencies=[f"t{(at - 1) % 9_000}"]) for at in range(9_000)]
    (message,) = messages(plan_of(*ring))
    assert "more" in message
    assert len(message) < 500


def test_two_cycles_are_two_problems_although_one_waits_for_the_other() -> None:
    document = plan_of(
        task(0, dependencies=[1]),
        task(1, dependencies=[0]),
        task(2, dependencies=[0, 3]),
        task(3, dependencies=[2]),
    )
    assert [problem.code for problem in check(document, TOOLS)] == ["cycle", "cycle"]


def test_all_problems_are_found_at_once() -> None:
    document = plan_of(
        task(1, "nope"),
        task(2, "fetch_url", {}),
        task(2, dependencies=[2, 99]),
        task(4, params={"a": "<Result from Task 98>", "b": "{{ tasks.1.result.. }}"}),
        task(5, dependencies=[6]),
        task(6, params={"a": ["<Result from Task 5>"]}),
        {"id": 7},
        title=7,
    )
    assert {code for code, _ in found(document)} == {
        "unknown_tool",
        "invalid_params",
        "duplicate_id",
        "self_dependency",
        "unknown_dependency",
        "unknown_reference",
        "bad_reference",
        "cycle",
        "missing_field",
        "bad_value",
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (plan_of(task(1, timeout_seconds=-1)), "Sub-task '1': `timeout_seconds` has to be greater than 0."),
        (plan_of(task(1, retry=[3])), "Sub-task '1': `retry` has to be a JSON object."),
        (plan_of(task(1, retry={"jitter": "x"})), "Sub-task '1': `retry/jitter` has to be a number."),
        (plan_of({"id": 1}), "Sub-task '1': `tool_or_prompt` is required."),
        (plan_of(task(1), {"tool_or_prompt": {"name": "fetch"}}), "Sub-task number 2: `id` is required."),
        (
            plan_of(task(1, expected_output=3)),
            "Sub-task '1': `expected_output` has to be a string, or has to be a JSON object.",
        ),
        (plan_of(task(1), 7), "Sub-task number 2 has to be a JSON object."),
        (plan_of(task(1)) | {"intent": 7}, "`intent` has to be a JSON object."),
        (plan_of(task(1)) | {"sub_tasks": 7}, "`sub_tasks` has to be a list."),
    ],
)
def test_a_problem_says_in_plain_words_what_has_to_be_there(document: Any, message: str) -> None:
    """And not its pointer, which stands beside it; nor what Python makes of JSON."""
    assert messages(document) == [message]


def test_the_retry_of_a_sub_task_that_cannot_be_read_is_judged_with_it() -> None:
    assert found(plan_of(task(1, on_failure="x", retry={"jitter": 2}), {"retry": {"factor": 0}})) == {
        ("bad_value", "/sub_tasks/0/on_failure"),
        ("bad_value", "/sub_tasks/0/retry/jitter"),
        ("missing_field", "/sub_tasks/1/id"),
        ("missing_field", "/sub_tasks/1/tool_or_prompt"),
        ("bad_value", "/sub_tasks/1/retry/factor"),
    }


@pytest.mark.parametrize("id", [1, "1", 1.0, " 1 "])
def test_a_fault_in_one_sub_task_makes_no_false_ones_elsewhere(id: object) -> None:
    """The second is right to depend on the first, which exists, whatever else is wrong with it."""
    document = plan_of(
        task(id, action_type="nonsense"),
        task(2, dependencies=[1], params={"a": "<Result from Task 1>"}),
        task(3, "nope"),
    )
    assert found(document) == {
        ("bad_value", "/sub_tasks/0/action_type"),
        ("unknown_tool", "/sub_tasks/2/tool_or_prompt/name"),
    }


def test_a_fault_hides_no_other_of_its_sub_tasks_id() -> None:
    assert found(plan_of(task(1), task("1", on_failure="x"), task("__SYNTHESIS__", on_failure="x"))) == {
        ("bad_value", "/sub_tasks/1/on_failure"),
        ("bad_value", "/sub_tasks/2/on_failure"),
        ("duplicate_id", "/sub_tasks/1/id"),
        ("reserved_id", "/sub_tasks/2/id"),
    }


def test_a_fault_of_the_plan_hides_none_of_its_sub_tasks() -> None:
    assert found({"sub_tasks": [task(1, "nope"), task(2, dependencies=[3])]}) == {
        ("missing_field", "/original_request"),
        ("missing_field", "/intent"),
        ("unknown_tool", "/sub_tasks/0/tool_or_prompt/name"),
        ("unknown_dependency", "/sub_tasks/1/dependencies/0"),
    }


REFERENCE = "<Result from Task 1>"


@pytest.mark.parametrize(
    ("params", "pointers"),
    [
        ({"url": REFERENCE}, set()),
        ({"url": "{{ tasks.1.result.url }}", "tries": REFERENCE, "headers": REFERENCE, "parts": REFERENCE}, set()),
        ({"url": "ftp://" + REFERENCE}, set()),
        ({"url": "https://x", "parts": [1, REFERENCE]}, set()),
        ({"url": "https://x", "headers": {"agent": REFERENCE}}, set()),
        ({"tries": REFERENCE}, {""}),
        ({"url": REFERENCE, "other": REFERENCE}, {""}),
        ({"url": REFERENCE, "headers": {"x": REFERENCE}}, {"/headers"}),
        ({"url": REFERENCE, "tries": 0}, {"/tries"}),
        ({"url": REFERENCE, "parts": ["x", REFERENCE]}, {"/parts/0"}),
        ({"url": REFERENCE, "parts": [REFERENCE] * 4}, {"/parts"}),
        ({"url": "see Task 1 > all"}, {"/url"}),
    ],
)
def test_what_a_reference_stands_for_is_not_judged_but_what_stands_is(params: Any, pointers: set[str]) -> None:
    document = plan_of(task(1), task(2, "fetch_url", params))
    assert found(document) == {("invalid_params", "/sub_tasks/1/tool_or_prompt/params" + at) for at in pointers}


def test_a_model_call_is_not_judged_where_no_model_is_known() -> None:
    assert check(plan_of(task(1, "x", {"y": 1}, action_type="inference")), {}) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"type": 5},
        {"$ref": "#/definitions/none"},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"pattern": "["}}},
        {"properties": []},
        {"required": 5},
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_used_is_a_problem_and_no_crash(schema: dict[str, Any]) -> None:
    """Tools of other makers bring theirs. One that raises would take every plan of the session with it."""
    (problem,) = check(plan_of(task(1, "bad", {"a": "x"})), {"bad": schema})
    assert (problem.code, problem.pointer) == ("invalid_params", FETCH)
    assert "schema" in problem.message


def test_deep_params_and_a_recursive_schema_are_a_problem_and_no_crash() -> None:
    schema: dict[str, Any] = {
        "$defs": {"t": {"type": ["object", "string"], "additionalProperties": {"$ref": "#/$defs/t"}}}
    }
    schema |= {"$ref": "#/$defs/t"}
    params: Any = "end"
    for _ in range(190):
        params = {"a": params}
    assert {p.code for p in check(plan_of(task(1, "deep", params)), {"deep": schema})} <= {"invalid_params"}


def test_too_much_is_too_large() -> None:
    small = Limits(sub_tasks=2, plan_bytes=500)
    assert found(plan_of(task(1), task(2)), small) == set()
    assert found(plan_of(task(1), task(2), task(3)), small) == {("too_many_tasks", "/sub_tasks")}
    assert found(plan_of(task(1), title="x" * 500), small) == {("too_large", "")}
    with pytest.raises(TooLarge):
        read(plan_of(task(1), task(2), task(3)), TOOLS, small)


def test_a_million_faults_are_cut_off() -> None:
    document = plan_of(task(1, params={"a": [math.nan] * 100_000}))
    assert len(check(document, TOOLS)) == MAX_FAULTS
    document = plan_of(task(1, "fetch_url", {"url": "https://x", "parts": ["x"] * 100_000}))
    assert len(check(document, TOOLS)) == MAX_FAULTS


def test_many_references_where_a_schema_wants_numbers_cost_their_number() -> None:
    """Each violation was once compared with each reference, which is quadratic."""
    start = time.process_time()
    params = {"url": "https://x", "parts": [REFERENCE] * 100_000}
    assert found(plan_of(task(1), task(2, "fetch_url", params))) == {
        ("invalid_params", "/sub_tasks/1/tool_or_prompt/params/parts")
    }
    assert time.process_time() - start < 60


def test_a_plan_is_checked_like_its_document() -> None:
    document = plan_of(task(1, "nope"), task(2, dependencies=[3]))
    assert check(Plan.model_validate(document), TOOLS) == check(document, TOOLS)


def test_10_000_sub_tasks_are_checked_in_a_moment(record_property: Any) -> None:
    """The figure is reported, not judged: `pytest -s` shows it. Quadratic would be minutes."""
    tasks = [
        task(
            at,
            "fetch_url",
            {"url": f"<Result from Task {at - 1}>" if at else "https://x"},
            dependencies=[at // 2] if at > 2 else [],
        )
        for at in range(10_000)
    ]
    for name, document in {
        "sound": plan_of(*tasks),
        "unknown tools": plan_of(*(task(at, f"tool{at}") for at in range(10_000))),
        "unknown dependencies": plan_of(*(task(at, dependencies=[f"x{at}"]) for at in range(10_000))),
        "one ring": plan_of(*(task(at, dependencies=[(at + 1) % 10_000]) for at in range(10_000))),
        "one parent each": plan_of(*({"id": at, "dependencies": [0]} for at in range(10_000))),
    }.items():
        start = time.process_time()
        count = len(check(document, TOOLS))
        seconds = time.process_time() - start
        record_property(name, seconds)
        print(f"{name}: {count:,} problems in {seconds:.2f} s")
        assert count == {"sound": 0, "one ring": 1}.get(name, 10_000)
        assert seconds < 30


@given(plans())
def test_a_plan_that_can_run_has_no_problem(document: dict[str, Any]) -> None:
    assert check(document, TOOLS) == []
    assert read(document, TOOLS) == outline.of(Plan.model_validate(document))


pieces = st.sampled_from(
    ["id", "sub_tasks", "tool_or_prompt", "params", "name", "dependencies", "intent", "primary", "original_request",
     "action_type", "human", "expected_output", "clarification_needed", "note", "<Result from Task 1>"]
)  # fmt: skip
shapes = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | pieces | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(pieces, inner, max_size=6),
    max_leaves=30,
)


@given(st.one_of(json_values, odd_values, shapes))
def test_no_document_makes_check_raise(document: Any) -> None:
    assert all(isinstance(problem, Problem) for problem in check(document, TOOLS))


@given(plans(max_tasks=4), st.data())
def test_a_plan_with_one_spot_of_dirt_is_refused_there_or_runs(document: dict[str, Any], data: st.DataObject) -> None:
    at: Any = document
    while True:
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
        if isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = data.draw(shapes)
        break
    problems = check(document, TOOLS)
    if problems:
        with pytest.raises((InvalidPlan, TooLarge)):
            read(document, TOOLS)
    else:
        read(document, TOOLS)


# -- plans that language models wrote ------------------------------------------------------------------------------

DATA = Path(__file__).parents[2] / "../shared/data/llm_plans"


def taskbench(row: dict[str, Any]) -> dict[str, Any]:
    """Return a TaskBench answer as a plan: nodes are sub-tasks 0, 1, ..., links by tool name are dependencies."""
    nodes = [node for node in row["task_nodes"] if isinstance(node, dict)]
    names = [str(node.get("task")) for node in nodes]

    def translate(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"<node-(\d+)>(?:\.\w+)?", r"<Result from Task \1>", value)
        if isinstance(value, list):
            return [translate(item) for item in value]
        return {key: translate(item) for key, item in value.items()} if isinstance(value, dict) else value

    def params(arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for position, argument in enumerate(arguments if isinstance(arguments, list) else [arguments]):
            if isinstance(argument, dict) and "name" in argument:
                found[str(argument["name"])] = translate(argument.get("value"))
            else:
                found[f"argument{position}"] = translate(argument)
        return found

    depends: dict[int, list[str]] = {at: [] for at in range(len(nodes))}
    for link in row["task_links"]:
        if not isinstance(link, dict) or link.get("target") not in names:
            continue
        target = len(names) - 1 - names[::-1].index(link["target"])
        source = link.get("source")
        depends[target].append(str(names.index(source)) if source in names else str(source))
    return plan_of(
        *(
            task(at, names[at], params(node.get("arguments")), dependencies=depends[at])
            for at, node in enumerate(nodes)
        ),
        original_request=row["user_request"],
    )


def rows() -> Iterator[tuple[str, dict[str, dict[str, Any]], dict[str, Any]]]:
    if not DATA.is_dir():
        pytest.skip("llm_plans: no data beside the project")
    for path in sorted(DATA.glob("*.jsonl")):
        nodes = json.loads((DATA / f"{path.stem.split('-')[0]}-tools.json").read_text(encoding="utf-8"))["nodes"]
        tools: dict[str, dict[str, Any]] = {node["id"]: {"type": "object"} for node in nodes}
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield f"{path.stem} {row['id']}", tools, taskbench(row)


def slow_cycle(document: dict[str, Any]) -> bool:
    """Whether the sub-tasks wait for each other, by taking away what can start until nothing more can."""
    left = {
        str(one["id"]): ({*one["dependencies"], *refs.named(one["tool_or_prompt"]["params"])}) - {str(one["id"])}
        for one in document["sub_tasks"]
    }
    while ready := [id for id, above in left.items() if not above & left.keys()]:
        for id in ready:
            del left[id]
    return bool(left)


def test_the_plans_of_real_models_are_judged_sensibly() -> None:
    """987 answers of Mistral 7B and CodeLlama 13B, many with tools, links and references that do not exist."""
    counts: Counter[str] = Counter()
    total = faulty = 0
    for name, tools, document in rows():
        total += 1
        problems = check(document, tools)
        codes = {problem.code for problem in problems}
        counts.update(codes)
        faulty += bool(problems)
        tasks = document["sub_tasks"]
        ids = {str(one["id"]) for one in tasks}
        wanted = {dependency for one in tasks for dependency in one["dependencies"]}
        named: set[str] = set()
        for one in tasks:
            try:
                named.update(refs.named(one["tool_or_prompt"]["params"]))
            except BadReference:
                assert "bad_reference" in codes, name
        assert ("empty_plan" in codes) == (not tasks), name
        assert ("unknown_tool" in codes) == any(one["tool_or_prompt"]["name"] not in tools for one in tasks), name
        assert ("unknown_dependency" in codes) == bool(wanted - ids - {"none"}), name
        assert ("unknown_reference" in codes) == bool(named - ids), name
        assert ("cycle" in codes) == slow_cycle(document), name
        assert codes <= {
            "empty_plan", "unknown_tool", "unknown_dependency", "unknown_reference", "self_dependency", "cycle",
            "bad_value", "bad_reference",
        }, name  # fmt: skip
        for problem in problems:
            at: Any = document
            for part in problem.pointer.split("/")[1:]:
                key = part.replace("~1", "/").replace("~0", "~")
                at = at[int(key)] if isinstance(at, list) else at[key]
            assert len(problem.message) < 600, name
    print(f"{total} plans, {faulty} with problems: {dict(counts)}")
    assert total == 987
    assert 0.17 < faulty / total < 0.9


def asked_for(schema: Any, *, place: str) -> list[Problem]:
    """Return the problems of a plan whose model call wants an answer in this shape."""
    task: dict[str, Any] = {"id": "1", "action_type": "inference", "tool_or_prompt": {"name": "inference"}}
    if place == "output_schema":
        task["tool_or_prompt"]["params"] = {"prompt": "Go", "output_schema": schema}
    else:
        task["expected_output"] = schema
    document = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [task]}
    return check(document, {"inference": {"type": "object"}})


@pytest.mark.parametrize(
    ("place", "schema", "pointer"),
    [
        ("output_schema", {"type": "strange"}, "/tool_or_prompt/params/output_schema/type"),
        ("output_schema", {"items": {"pattern": "a"}}, "/tool_or_prompt/params/output_schema/items/pattern"),
        ("expected_output", {"type": "array", "items": {"$ref": "#/x"}}, "/expected_output/items/$ref"),
        ("expected_output", '{"type": "array", "items": {"$ref": "#/x"}}', "/expected_output"),
    ],
)
def test_the_shape_of_an_answer_of_a_model_is_checked_with_the_plan(place: str, schema: Any, pointer: str) -> None:
    (problem,) = asked_for(schema, place=place)
    assert (problem.code, problem.pointer) == ("bad_schema", f"/sub_tasks/0{pointer}")


@pytest.mark.parametrize(
    ("place", "schema"),
    [
        ("output_schema", {"type": "array"}),
        ("output_schema", None),
        ("expected_output", {"type": "a report", "pattern": "news"}),
        ("expected_output", "{a list}"),
    ],
)
def test_what_is_no_schema_or_a_good_one_is_no_problem(place: str, schema: Any) -> None:
    assert asked_for(schema, place=place) == []


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"retry": {"max_attempts": 10**9}}, "retry/max_attempts"),
        ({"retry": {"max_attempts": 2.5}}, "retry/max_attempts"),
        ({"retry": {"backoff_seconds": -1}}, "retry/backoff_seconds"),
        ({"retry": {"retry_on": ["timeout", "invalid_input"]}}, "retry/retry_on/1"),
        ({"retry": {"retry_on": "timeout"}}, "retry/retry_on"),
        ({"retry": [1]}, "retry"),
        ({"timeout_seconds": -5}, "timeout_seconds"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": "soon"}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": True}, "idle_timeout_seconds"),
        ({"timeout_seconds": False}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"retry": {"max_attempts": True}}, "retry/max_attempts"),
        ({"retry": {"retry_on": ["time_out"]}}, "retry/retry_on/0"),
    ],
)
def test_what_no_attempt_can_go_by_is_named(fields: dict[str, Any], pointer: str) -> None:
    assert found(plan_of(task(1, **fields))) == {("bad_value", f"/sub_tasks/0/{pointer}")}


def test_a_policy_that_can_be_used_is_no_problem() -> None:
    whole: dict[str, Any] = {
        "max_attempts": 100,
        "backoff_seconds": 0,
        "factor": 1,
        "max_backoff_seconds": 0,
        "jitter": 1,
    }
    usable: list[Any] = [whole, {"retry_on": []}, {"max_attempts": "2"}, {}, None]
    for retry in usable:
        assert found(plan_of(task(1, retry=retry, timeout_seconds="5"))) == set()


def test_a_misspelt_field_of_a_policy_is_named_with_what_it_was_meant_to_be() -> None:
    assert messages(plan_of(task(1, retry={"max_attemps": 3}))) == [
        "Sub-task '1': `retry/max_attemps` is not known here. Did you mean 'max_attempts'?"
    ]
    many = plan_of(*(task(n, retry={f"max_attemps{n}": 3}) for n in range(10_000)))
    told = messages(many)
    compared = sum("Did you mean" in message for message in told)
    assert (len(told), compared) == (10_000, 100), "of many only the first are compared, which takes time"


def test_each_of_several_bare_calls_is_judged_by_what_else_its_sub_task_says() -> None:
    """Whether a tool may be called without params is asked once; a model is also told what to answer."""
    tools = {"inference": {}, "note": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    shapes = [{"type": "object", "properties": {"a": {"type": kind}}} for kind in ("string", "no")]
    tasks = [
        *(task(id, action_type="inference", expected_output=shape) for id, shape in enumerate(shapes)),
        *(task(2), task(3, dependencies=[9]), task(4, "no_tool"), task(5, "no_tool"), task(6, params={"n": "x"})),
    ]
    problems = check(plan_of(*tasks), tools)
    assert [(problem.code, problem.pointer.split("/")[2]) for problem in problems] == [
        ("bad_schema", "1"), ("unknown_dependency", "3"), ("unknown_tool", "4"), ("unknown_tool", "5"),
        ("invalid_params", "6"),
    ]  # fmt: skip
