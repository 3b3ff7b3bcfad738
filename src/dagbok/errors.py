"""Every exception of Dagbok, in one tree. Each has a stable `code`; the docstring is the default message.

DagbokError
+-- BadInput                 the caller sent something that cannot be used; nothing was changed
|   +-- MalformedJson        not JSON at all: line and column
|   +-- NotJson              JSON-like, but outside `domain/values.py`: pointer
|   +-- TooLarge             over a limit of the settings
|   +-- InvalidPlan          a plan with problems, all of them at once
|   +-- InvalidAnswer        an answer that does not fit its question
|   +-- BadReference         a reference that cannot be read or resolved
|   +-- IdempotencyKeyReused a key that came with another request before
+-- NotFound                 no such execution, sub-step or tool
+-- Conflict                 the state of the thing does not allow this now
|   +-- IdempotencyInFlight  a request with this key is not answered yet
+-- Misconfigured            a setting, a tool module or an environment that cannot work
|   +-- DatabaseInUse        another engine owns this database: pid, command, URL
|   +-- SchemaTooNew         a newer release wrote this database
+-- StoreError               writing or reading the diary; says which of three it is: happened, did not, unknown
|   +-- StoreUnavailable     nothing was written; the caller may try again
|   +-- StoreRejected        the database refused this execution's data; nothing of it was written
|   +-- Fenced               another owner has taken the execution; nothing was written
|   +-- OutcomeUnknown       the process stopped before it could learn whether the commit happened
+-- ToolError                what a tool raises to fail its attempt with a code of its choice
+-- Stalled                  nothing runs and nothing is decided: a fault of the engine itself
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class DagbokError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str = "", **fields: Any) -> None:
        self.message = str(message) or (type(self).__doc__ or "").splitlines()[0]
        self.fields = fields
        super().__init__(self.message)

    def __getattr__(self, name: str) -> Any:
        # The ids and figures of an error are its attributes, so that callers act on them without parsing a sentence.
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default pickles `args` alone and would lose the fields.
        return _rebuild, (type(self), self.message, self.fields)


def _rebuild(kind: type[DagbokError], message: str, fields: dict[str, Any]) -> DagbokError:
    return kind(message, **fields)


class BadInput(DagbokError):
    """The input cannot be used."""

    code = "invalid_input"


class MalformedJson(BadInput):
    """The text is not JSON."""

    code = "malformed_json"


class NotJson(BadInput):
    """The value is not JSON as Dagbok defines it. Fields: `pointer` (RFC 6901)."""

    code = "not_json"


class TooLarge(BadInput):
    """The input is larger than the limit. Fields: `limit`, `size`."""

    code = "too_large"


class InvalidPlan(BadInput):
    """The plan has problems. Fields: `problems`, a sequence of `dagbok.domain.validate.Problem`."""

    code = "invalid_plan"

    def __init__(self, message: str = "", *, problems: Sequence[Any] = (), **fields: Any) -> None:
        super().__init__(message, problems=tuple(problems), **fields)


class InvalidAnswer(BadInput):
    """The answer does not fit its question. Fields: `problems`, as for `InvalidPlan`."""

    code = "invalid_answer"

    def __init__(self, message: str = "", *, problems: Sequence[Any] = (), **fields: Any) -> None:
        super().__init__(message, problems=tuple(problems), **fields)


class BadReference(BadInput):
    """A reference to a result cannot be resolved."""

    code = "bad_reference"


class IdempotencyKeyReused(BadInput):
    """The idempotency key came with another request before. Fields: `execution_id`, what that request made."""

    code = "idempotency_key_reused"


class NotFound(DagbokError):
    """There is no such thing."""

    code = "not_found"


class Conflict(DagbokError):
    """The current state does not allow this."""

    code = "conflict"


class IdempotencyInFlight(Conflict):
    """A request with this idempotency key is under way; its answer is not known yet. Try again in a moment."""

    code = "idempotency_in_flight"


class Misconfigured(DagbokError):
    """The configuration cannot work."""

    code = "misconfigured"


class DatabaseInUse(Misconfigured):
    """Another engine owns this database. Fields: `owner` ({"pid", "command", "url"}, as far as known)."""

    code = "database_in_use"


class SchemaTooNew(Misconfigured):
    """The database was written by a newer release of Dagbok; upgrade this program."""

    code = "schema_too_new"


class StoreError(DagbokError):
    """The diary could not be written or read."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The database cannot be reached; nothing was written."""

    code = "store_unavailable"


class StoreRejected(StoreError):
    """The database refused the data of this execution; nothing of it was written."""

    code = "store_rejected"


class Fenced(StoreError):
    """Another owner has taken this execution; nothing was written."""

    code = "fenced"


class OutcomeUnknown(StoreError):
    """The journal stopped before it learned whether its last commit happened."""

    code = "outcome_unknown"


class ToolError(DagbokError):
    """The tool failed. Raise it inside a tool with `code=` to class the error.

    The code decides whether the attempt is repeated; `docs/errors.md` has them all. Where repeating might do harm
    (effect `once`), it counts whether anything has happened: `unavailable` and `rate_limited` say that nothing has, the
    other side has turned the attempt away; after a `timeout` nobody knows; `outcome_unknown` says so by itself.

    Fields that the engine reads:
        sent: False: nothing has left, whatever the code says. True: it may have had effect, and nobody can say.
        retry_after_s: The seconds that the other side asked for before the next attempt, at most a day.
        charge: A `dagbok.domain.call.Charge`, what the failed attempt cost.
    """

    code = "tool_error"

    def __init__(self, message: str = "", *, code: str = "tool_error", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tool_error, (self.message, self.code, self.fields)


def _rebuild_tool_error(message: str, code: str, fields: dict[str, Any]) -> ToolError:
    return ToolError(message, code=code, **fields)


class Stalled(DagbokError):
    """Nothing runs and nothing is decided; this is a fault of Dagbok."""

    code = "stalled"
