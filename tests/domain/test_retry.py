"""Which errors are tried again, how often and when: `dagbok.domain.retry`, and what the aggregate makes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import doubt, retry, values
from dagbok.domain.retry import NEVER, NO_RETRY, PASSING, Policy
from dagbok.domain.states import Effect
from dagbok.domain.values import JsonText
from dagbok.errors import Conflict, Misconfigured
from domain.executions import Played, plan_of

STEADY = Policy(jitter=0.0)


# -- the policy -----------------------------------------------------------------------------------------------------


def test_the_default_tries_again_what_passes_by_itself_and_nothing_else() -> None:
    for code in PASSING:
        assert Policy().allows(code, 1, Effect.PURE)
        assert Policy().allows(code, 2, Effect.PURE)
        assert not Policy().allows(code, 3, Effect.PURE)
    for code in ("tool_error", "server_error", "not_found", *NEVER):
        assert not Policy().allows(code, 1, Effect.PURE)


def test_whoever_asks_for_attempts_means_every_error_that_trying_again_may_mend() -> None:
    asked = Policy().over({"max_attempts": 5})
    assert asked.allows("tool_error", 4, Effect.PURE)
    assert not asked.allows("tool_error", 5, Effect.PURE)
    for code in NEVER:
        assert not asked.allows(code, 1, Effect.PURE)


def test_codes_that_are_named_are_the_only_ones() -> None:
    asked = Policy().over({"max_attempts": 5, "retry_on": ["tool_error"]})
    assert asked.allows("tool_error", 1, Effect.PURE)
    assert not asked.allows("timeout", 1, Effect.PURE)


def test_a_once_tool_is_repeated_after_what_may_have_come_half_way_only_if_the_code_is_named() -> None:
    many = Policy().over({"max_attempts": 5})
    assert many.allows("rate_limited", 1, Effect.ONCE)
    assert many.allows("unavailable", 1, Effect.ONCE)
    assert not many.allows("tool_error", 1, Effect.ONCE)
    assert not many.allows("server_error", 1, Effect.ONCE)
    named = Policy().over({"max_attempts": 5, "retry_on": ["tool_error"]})
    assert named.allows("tool_error", 1, Effect.ONCE)


def test_what_a_layer_does_not_say_is_what_the_layer_below_says() -> None:
    tool = Policy().over({"max_attempts": 7, "backoff_seconds": 3})
    both = tool.over({"factor": 4, "unknown": "kept"})
    assert (both.max_attempts, both.backoff_seconds, both.factor, both.retry_on) == (7, 3, 4, None)
    assert both.over({}) is both
    assert both.over(None) is both


def test_pauses_grow_by_the_factor_up_to_their_limit() -> None:
    policy = Policy(backoff_seconds=1.5, factor=3, max_backoff_seconds=20, jitter=0)
    assert [policy.delay_ms(failures, "k") for failures in range(1, 6)] == [1500, 4500, 13_500, 20_000, 20_000]


def test_the_longest_policy_there_is_still_has_a_pause() -> None:
    longest = Policy(100, retry.MAX_BACKOFF_S, 100, retry.MAX_BACKOFF_S, 1.0)
    assert 0 <= longest.delay_ms(100, "k") <= retry.MAX_BACKOFF_S * 1000


@given(st.text(), st.floats(0, 1), st.integers(1, 20))
def test_jitter_leaves_out_at_most_its_part_and_is_the_same_for_the_same_attempt(
    key: str, jitter: float, failures: int
) -> None:
    policy = Policy(jitter=jitter)
    whole = Policy(jitter=0).delay_ms(failures, key)
    delay_ms = policy.delay_ms(failures, key)
    assert math.floor(whole * (1 - jitter)) <= delay_ms <= whole
    assert delay_ms == policy.delay_ms(failures, key)


def test_attempts_that_failed_together_do_not_come_back_together() -> None:
    assert len({Policy().delay_ms(1, f"dag-exec_{number}:1:1") for number in range(100)}) > 50


def test_nobody_comes_back_before_they_were_told_to() -> None:
    assert STEADY.delay_ms(1, "k", 30.0) == 30_000
    assert STEADY.delay_ms(1, "k", 0.2) == 1_000


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"max_attempts": 10**9}, ("max_attempts",)),
        ({"max_attempts": 0}, ("max_attempts",)),
        ({"backoff_seconds": -1}, ("backoff_seconds",)),
        ({"backoff_seconds": math.nan}, ("backoff_seconds",)),
        ({"max_backoff_seconds": 10**9}, ("max_backoff_seconds",)),
        ({"factor": 0.5}, ("factor",)),
        ({"jitter": 1.5}, ("jitter",)),
        ({"retry_on": "timeout"}, ("retry_on",)),
        ({"retry_on": ["timeout", 3]}, ("retry_on", 1)),
        ({"retry_on": ["timeout", "invalid_input"]}, ("retry_on", 1)),
        ({"retry_on": ["outcome_unknown"]}, ("retry_on", 0)),
    ],
)
def test_what_cannot_be_used_is_named_by_its_place(given: dict[str, Any], place: tuple[str | int, ...]) -> None:
    assert [fault.path for fault in retry.faults(given)] == [place]
    assert retry.readable(given) == {}
    if given.get("retry_on") is None:
        with pytest.raises(Misconfigured):
            Policy().over(given)


@pytest.mark.parametrize(
    ("given", "place", "meant"),
    [
        ({"max_attemps": 3}, "max_attemps", "Did you mean 'max_attempts'?"),
        ({"maxAttempts": 500}, "maxAttempts", "Did you mean 'max_attempts'?"),
        ({"Max-Backoff-Seconds": 5}, "Max-Backoff-Seconds", "Did you mean 'max_backoff_seconds'?"),
        ({"note": "x"}, "note", "There may be: max_attempts, backoff_seconds, "),
        ({"x" * 200: 1}, "x" * 200, "There may be: "),
    ],
)
def test_a_field_that_nobody_would_heed_is_named(given: dict[str, Any], place: str, meant: str) -> None:
    """Whoever misspells `max_attempts` would hear of it when something has failed for good."""
    [(path, code, message)] = retry.faults(given)
    assert (path, code) == ((place,), "unknown_field")
    assert message.startswith(f"is not known here. {meant}")
    assert retry.readable(given) == given, "what was stored before anybody looked goes on to mean what it did"


@pytest.mark.parametrize(
    ("code", "meant"),
    [("time_out", "timeout"), ("rateLimited", "rate_limited"), ("rate_limit", "rate_limited"), ("Timeout", "timeout")],
)
def test_a_misspelt_code_is_named(code: str, meant: str) -> None:
    [(path, _, message)] = retry.faults({"retry_on": ["unavailable", code]})
    assert path == ("retry_on", 1)
    assert f"Did you mean {meant!r}?" in message


def test_codes_of_users_tools_are_no_misspellings() -> None:
    own = ["card_declined", "bad_request", "no_answer", "busy", "time_limit", "refused_card", "too_many_requests"]
    assert retry.faults({"retry_on": own}) == []


@pytest.mark.parametrize("name", ["max_attempts", "backoff_seconds", "factor", "max_backoff_seconds", "jitter"])
def test_true_is_no_number_though_a_number_may_come_as_text(name: str) -> None:
    """Models write numbers in quotes; nobody means one attempt by `true`."""
    [(path, _, message)] = retry.faults({name: True})
    assert (path, message) == ((name,), "has to be a number, not true or false.")
    assert retry.faults({name: "1"}) == []
    assert getattr(Policy().over({name: "1"}), name) == 1


# -- the aggregate --------------------------------------------------------------------------------------------------


def _flaky(tool: str = "pure", **fields: Any) -> Played:
    made = plan_of({"a": [], "b": ["a"]}, a={"tool_or_prompt": {"name": tool, "params": {}}, **fields})
    return Played(made)


def test_a_failed_attempt_is_pending_until_its_pause_is_over() -> None:
    played = _flaky()
    played.begin("a")
    played.fail("a", "timeout", "too slow", detail="at line 3", outcome="timeout", retry=STEADY)
    row = played.row("a")
    assert (row.status, row.attempt, row.next_attempt_at) == ("pending", 1, played.now_ms + 1000)
    assert (row.error_code, row.error, row.error_detail) == ("timeout", "too slow", "at line 3")
    assert played.execution.next_due_at == played.now_ms + 1000
    assert played.status == "running"
    assert played.ring(0.999) == []
    assert played.ring(0.001) == ["a"]
    played.run_again("a")
    row = played.row("a")
    assert (row.status, row.attempt, row.error, row.error_code, row.error_detail) == ("completed", 2, None, None, None)
    [attempt] = played.store.attempts.values()
    assert (attempt.number, attempt.outcome, attempt.error_code) == (1, "timeout", "timeout")
    assert played.words("a") == ["substep.started", "substep.retrying", "substep.started", "substep.completed"]


def test_without_a_pause_it_is_ready_with_the_commit() -> None:
    played = _flaky()
    played.begin("a")
    played.ready.clear()
    played.fail("a", "timeout", "slow", retry=Policy(backoff_seconds=0))
    assert played.ready == ["a"]
    assert played.row("a").next_attempt_at is None


def test_the_last_attempt_fails_the_step_and_on_failure_decides() -> None:
    played = _flaky(on_failure="default", default=7)
    for _ in range(3):
        played.begin("a")
        played.fail("a", "timeout", "slow", retry=Policy(backoff_seconds=0))
    assert (played.row("a").status, played.row("a").result) == ("completed", "7")
    assert [attempt.number for attempt in played.store.attempts.values()] == [1, 2, 3]


def test_an_error_that_is_not_to_be_retried_ends_at_once() -> None:
    played = _flaky()
    played.begin("a")
    played.fail("a", "invalid_input", "no such city", retry=Policy().over({"max_attempts": 100}))
    assert played.states() == {"a": "failed", "b": "skipped:dependency_failed"}


def test_failures_are_counted_across_owners_and_crashes_are_not_failures() -> None:
    played = _flaky()
    played.begin("a")
    played.fail("a", "timeout", "slow", retry=STEADY)
    played.crash()
    assert played.ring(2) == ["a"]
    played.begin("a")
    played.crash()  # the second attempt is interrupted
    played.begin("a")
    played.fail("a", "timeout", "slow", retry=STEADY)
    assert played.row("a").status == "pending"
    assert played.ring(60) == ["a"]
    played.begin("a")
    played.fail("a", "timeout", "slow", retry=STEADY)
    assert played.row("a").status == "failed"
    outcomes = [attempt.outcome for attempt in played.store.attempts.values()]
    assert outcomes == ["failed", "interrupted", "failed", "failed"]


def test_a_back_off_outlives_a_crash_and_is_not_longer_for_a_clock_that_was_set_back() -> None:
    played = _flaky()
    played.now_ms = 3_600_000
    played.begin("a")
    played.now_ms += 600_000  # the attempt took ten minutes, which are no part of the pause after it
    played.fail("a", "timeout", "slow", retry=STEADY)
    played.now_ms = 0
    played.crash()
    assert played.ready == []
    due_at = played.execution.next_due_at
    assert due_at == played.now_ms + 1_000
    played.crash()
    assert (played.ready, played.execution.next_due_at) == ([], due_at)
    assert played.ring(1) == ["a"]


def test_who_asks_us_to_come_back_in_days_is_not_waited_for() -> None:
    played = _flaky()
    played.begin("a")
    played.fail("a", "rate_limited", "come back next week", retry=STEADY, retry_after_s=7 * 86_400)
    assert played.row("a").status == "failed"
    why = "Not tried again: 604,800 s are to pass first, and nobody waits for more than a day."
    assert played.row("a").error == f"come back next week. {why}"


def test_a_pause_beyond_the_deadline_is_no_pause() -> None:
    """Waiting in vain would keep the synthesis from what there is."""
    played = _flaky()
    played.execution.header.deadline_at = played.now_ms + 500
    played.begin("a")
    played.fail("a", "timeout", "It was slow.", retry=STEADY)
    assert played.row("a").status == "failed"
    [attempt] = played.store.attempts.values()
    why = "It was slow. Not tried again: the next attempt (in 1.0 s) would come after the deadline."
    assert played.row("a").error == attempt.error == why


@pytest.mark.parametrize(
    ("code", "tool", "policy", "told"),
    [
        ("tool_error", "once", {"max_attempts": 3}, True),
        ("tool_error", "once", {"max_attempts": 1}, False),
        ("tool_error", "once", {"backoff_seconds": 1}, False),
        ("refused", "once", {"max_attempts": 3}, False),
        ("tool_error", "pure", {"max_attempts": 1}, False),
        ("tool_error", "pure", {"max_attempts": 3, "retry_on": ["timeout"]}, False),
    ],
)
def test_it_is_said_why_a_once_tool_is_not_tried_again_where_somebody_asked_for_it(
    code: str, tool: str, policy: dict[str, Any], told: bool
) -> None:
    played = _flaky(tool)
    played.begin("a")
    played.fail("a", code, "It broke", retry=Policy().over(policy))
    assert played.row("a").status == "failed"
    why = ". Not tried again: a `once` tool may have acted; name `tool_error` in `retry_on` if that is safe."
    assert played.row("a").error == f"It broke{why if told else ''}"


def test_why_it_is_not_tried_again_is_not_cut_off_and_makes_no_message_too_long() -> None:
    played = _flaky("once")
    played.begin("a")
    played.fail("a", "tool_error", "x" * 4_000, retry=Policy().over({"max_attempts": 3}))
    error = str(played.row("a").error)
    assert len(error) <= 4_000
    assert error.endswith(
        "x… Not tried again: a `once` tool may have acted; name `tool_error` in `retry_on` if that is safe."
    )


# -- what nobody knows ----------------------------------------------------------------------------------------------


def test_a_once_attempt_of_unknown_outcome_is_asked_about_and_never_retried() -> None:
    played = _flaky("once")
    played.begin("a", input=values.encode({"to": "ann"}))
    played.fail("a", "timeout", "It took longer than 5 s.", outcome="timeout", unknown=True, retry=STEADY)
    assert played.states() == {"a": "waiting:outcome_unknown", "b": "pending"}
    [asked] = played.store.questions.values()
    assert asked.kind == "did_it_happen"
    assert "It took longer than 5 s." in asked.prompt
    assert values.decode(str(asked.shown)) == {"params": {"to": "ann"}, "description": "", "attempt": 1}
    played.answer("a", {"decision": "fail"}, by="ann")
    [answered] = [event.data for event in played.store.events if event.type == "substep.answered"]
    assert values.decode(str(answered)) == {"kind": "did_it_happen", "by": "ann", "decision": "fail"}
    assert played.states() == {"a": "failed", "b": "skipped:dependency_failed"}
    assert played.row("a").error_code == "outcome_unknown"


@pytest.mark.parametrize("resolved", [True, False])
def test_of_large_params_the_question_shows_the_beginning_and_says_so(resolved: bool) -> None:
    """They may have 32 MiB; what is shown is a column, and no blob."""
    params = {"to": "ann", "text": "ö" * doubt.MAX_PARAMS_BYTES}
    fields = {"tool_or_prompt": {"name": "once", "params": {} if resolved else params}, "description": "d" * 10_000}
    played = Played(plan_of({"a": []}, a=fields))
    played.begin("a", input=values.encode(params) if resolved else None)
    played.fail("a", "timeout", "slow", unknown=True, retry=STEADY)
    [asked] = played.store.questions.values()
    assert len(str(asked.shown).encode()) < doubt.MAX_PARAMS_BYTES * 1.5
    shown = values.decode(str(asked.shown))
    assert shown["params"].startswith('{"to":"ann","text":"öö')
    assert shown["params"].endswith("öö… (cut: the first 16,384 of 32,790 bytes)")
    assert values.decode(played.row("a").input or "{}") == (params if resolved else {}), "the sub-step has them whole"


def test_a_late_result_is_measured_in_bytes() -> None:
    assert doubt.brought(values.encode("ö" * (doubt.MAX_LATE_BYTES // 2 - 1))).keys() == {"result"}
    assert doubt.brought(values.encode("ö" * (doubt.MAX_LATE_BYTES // 2)))["errorCode"] == "result_too_large"


def test_a_once_attempt_that_is_known_to_have_failed_may_be_retried() -> None:
    played = _flaky("once")
    played.begin("a")
    played.fail("a", "rate_limited", "not now", retry=STEADY)
    assert played.row("a").status == "pending"


def test_what_an_idempotent_attempt_did_need_not_be_known() -> None:
    played = _flaky("idempotent")
    played.begin("a")
    played.fail("a", "timeout", "slow", unknown=True, retry=STEADY)
    assert played.row("a").status == "pending"


def test_a_step_that_could_not_start_asks_nobody() -> None:
    played = _flaky("once")
    played.fail("a", "outcome_unknown", "hm", unknown=True, retry=STEADY)
    assert played.row("a").status == "failed"


def _asked() -> Played:
    played = _flaky("once")
    played.begin("a")
    played.fail("a", "timeout", "slow", unknown=True, retry=NO_RETRY)
    return played


def test_a_late_result_lies_beside_the_question_and_is_the_result_if_somebody_says_so() -> None:
    played = _asked()
    played.late("a", 1, {"result": {"id": 7}})
    [asked] = played.store.questions.values()
    assert values.decode(str(asked.shown))["late"] == {"result": {"id": 7}}
    played.crash()
    played.answer("a", {"decision": "succeeded"})
    assert played.row("a").result == '{"id":7}'
    assert played.ready[-1:] == ["b"]


@pytest.mark.parametrize("result", [5, None])
def test_what_a_person_says_counts_more_than_what_came_late(result: Any) -> None:
    played = _asked()
    played.late("a", 1, {"result": {"id": 7}})
    played.answer("a", {"decision": "succeeded", "result": result})
    assert played.row("a").result == values.encode(result)


def test_a_late_error_is_no_result() -> None:
    played = _asked()
    played.late("a", 1, {"error": "broke", "errorCode": "tool_error"})
    played.answer("a", {"decision": "succeeded"})
    assert played.row("a").result == "null"


def test_what_comes_late_of_another_attempt_or_after_the_answer_changes_nothing() -> None:
    played = _asked()
    with pytest.raises(Conflict):
        played.late("a", 2, {"result": 1})
    played.answer("a", {"decision": "retry"})
    with pytest.raises(Conflict):
        played.late("a", 1, {"result": 1})
    assert not played.execution.changed


def test_a_cancelled_step_whose_outcome_nobody_knows_says_so() -> None:
    running, asked = _flaky("once"), _asked()
    running.begin("a")
    for played in (running, asked):
        played.cancel()
        assert played.row("a").status == "cancelled"
        assert played.row("a").error_code == "outcome_unknown"
    assert "nobody knows" in str(running.row("a").error)
    assert asked.row("a").error == "slow", "why nobody knows, and not that it was cancelled since"
    pure = _flaky()
    pure.begin("a")
    pure.cancel()
    assert pure.row("a").error_code is None


def test_json_text_is_what_the_late_result_is() -> None:
    """The result of a step is text, as it came: no second encoding."""
    played = _asked()
    played.late("a", 1, {"result": "é"})
    played.answer("a", {"decision": "succeeded"})
    assert played.row("a").result == JsonText('"é"')
