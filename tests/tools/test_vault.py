"""Where secrets come from, what is refused, and that no value is ever shown on the way."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from dagbok import settings
from dagbok.errors import Misconfigured
from dagbok.tools import secrets
from dagbok.tools.secrets import LOGGERS, Vault, read_file

PACKAGE = Path(secrets.__file__).parents[1]
KEY = "-----BEGIN KEY-----\nabcdefgh12345678\n-----END KEY-----\n"


def write(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "secrets"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def load(path: Path | None, over: dict[str, str] | None = None, **environ: str) -> Vault:
    return Vault.load(settings.load(secrets_file=path), environ, over=over)


def test_the_program_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '{"A": "a of file", "B": "b of file", "C": "c of file"}')
    vault = load(path, {"A": "a of program"}, DAGBOK_SECRET_A="a of env", DAGBOK_SECRET_B="b of env", OTHER="x")
    assert vault.names == {"A", "B", "C"}
    assert [vault.get(name) for name in "ABCD"] == ["a of program", "b of env", "c of file", None]
    assert vault.redact("a of program, b of env") == "[secret A], [secret B]"


def test_a_file_of_lines_reads_like_a_dotenv_file(tmp_path: Path) -> None:
    text = "\ufeff# ours\n\nexport A=plain value # why\r\nB='it''s'\n".replace("''", "\\'")
    path = write(tmp_path, text + 'C="two\\nlines $A"\nD="three\nreal\nlines"\n')
    assert read_file(path) == {"A": "plain value", "B": "it's", "C": "two\nlines $A", "D": "three\nreal\nlines"}


def test_the_line_end_after_one_line_is_not_part_of_it_and_that_of_a_key_file_is() -> None:
    vault = load(None, DAGBOK_SECRET_A="value\r\n", DAGBOK_SECRET_KEY=KEY, DAGBOK_SECRET_B=" spaces ")
    assert (vault.get("A"), vault.get("KEY"), vault.get("B")) == ("value", KEY, " spaces ")


def test_the_file_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_SECRETS_FILE", str(write(tmp_path, "A=value")))
    assert Vault.load(settings.load(), {}).names == {"A"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_may_open_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, "A=hidden", mode)
    with pytest.raises(Misconfigured, match=f"mode {mode:o}.*chmod 600 {re.escape(str(path))}"):
        load(path)


HIDDEN = "hidden-hidden"
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "not utf-8": (b"A=fine\nB=" + HIDDEN.encode() + b"\xff", "not UTF-8 in line 2"),
    "too large": ("A=" + HIDDEN + "x" * 2**20, "more than 1,048,576 bytes"),
    "no assignment": (f"A=fine\n\n\n{HIDDEN}\n", "line 4 is not NAME=value"),
    "open quote": (f'A=fine\nB="{HIDDEN}\n', "line 2 is not NAME=value"),
    "lower case": (f"A=fine\nb={HIDDEN}", "line 2 has no name"),
    "a value for a name": (f"{HIDDEN}=fine", "line 1 has no name"),
    "twice": (f"A=fine\nB=other\nA={HIDDEN}", "has A a second time in line 3"),
    "short": ("A=fine\nB=abc", "line 2 is shorter than 4 characters"),
    "empty": ("A=fine\nB=", "line 2 is shorter"),
    "long": (f"A={HIDDEN * 6000}", "line 1 has more than 65,536 bytes"),
    "nul": (f"A={HIDDEN}\0", "line 1 is not UTF-8 text without NUL"),
    "broken json": (f'{{"A": "{HIDDEN}",\n}}', "is no JSON object of strings.*line 2"),
    "deep json": ('{"A": ' + "[" * 100_000, "is no JSON object of strings"),
    "json number": ('{"A": "fine", "B": 12345}', "entry 2 is no text"),
    "json object": (f'{{"A": {{"secret": "{HIDDEN}"}}}}', "entry 1 is no text"),
    "json twice": (f'{{"A": "fine", "A": "{HIDDEN}"}}', "has A a second time in entry 2"),
    "json name": (f'{{"{HIDDEN}": "fine"}}', "entry 1 has no name"),
    "json surrogate": ('{"A": "hidden-\\ud800"}', "entry 1 is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_told_by_its_line_and_never_by_a_value(tmp_path: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    with pytest.raises(Misconfigured, match=message) as told:
        load(write(tmp_path, content))
    assert "hidden" not in str(told.value)
    assert "hidden" not in repr(told.value.__cause__)
    assert str(tmp_path) in str(told.value)


def test_a_file_that_is_not_there_or_is_a_folder_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("a\0b")):
        with pytest.raises(Misconfigured, match=r"DAGBOK_SECRETS_FILE.*cannot be read"):
            load(path)


@pytest.mark.parametrize("name", ["DAGBOK_SECRET_", "DAGBOK_SECRET_lower", "DAGBOK_SECRET_A-B"])
def test_a_variable_without_a_proper_name_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} has no name") as told:
        Vault.load(settings.load(), {name: HIDDEN})
    assert HIDDEN not in str(told.value)


def test_a_value_that_its_own_mark_would_hold_is_refused() -> None:
    for value in ("secret", "OTHER_", " THE_"):
        with pytest.raises(Misconfigured, match="'ONE' is part of the words"):
            Vault({"ONE": value.strip(), "THE_OTHER_ONE": "long enough"})


def test_a_vault_shows_its_names_alone() -> None:
    vault = Vault({"B": HIDDEN, "A": "other-value"})
    assert repr(vault) == str(vault) == "Vault(A, B)"
    assert HIDDEN not in repr(vault.redactor)


def test_taking_leaves_no_secret_in_the_environment_and_loading_leaves_them() -> None:
    environ = {"DAGBOK_SECRET_A": "value", "DAGBOK_SECRETS": "stays", "PATH": "x"}
    assert Vault.load(settings.load(), environ).get("A") == "value"
    assert "DAGBOK_SECRET_A" in environ
    assert Vault.take(settings.load(), environ).get("A") == "value"
    assert environ == {"DAGBOK_SECRETS": "stays", "PATH": "x"}
    assert "DAGBOK_SECRET_A" not in os.environ


# -- what is logged ---------------------------------------------------------------------------------------------------


def test_every_logger_of_the_package_is_guarded() -> None:
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for argument in re.findall(r"getLogger\(([^)]+)\)", path.read_text()):
            if argument == "__name__":
                found.add(".".join(["dagbok", *path.relative_to(PACKAGE).with_suffix("").parts]))
            elif argument.startswith('"dagbok'):
                found.add(argument.strip('"'))
    assert found == {*LOGGERS, "dagbok.diary"}


def test_records_are_redacted_at_the_logger_and_the_others_are_left_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd:
        def __repr__(self) -> str:
            return f"Odd({HIDDEN})"

    end = Vault({"KEY": HIDDEN, "PIN": "7777777"}).guard(["mine"])
    caplog.set_level(logging.INFO)
    try:
        for logger in (logging.getLogger("dagbok.engine"), logging.getLogger("dagbok.tool.mine")):
            logger.info("plain %s %d", "text", 7)
            logger.warning("holds %s and %r", HIDDEN, Odd())
            logger.warning("does not fit %d", HIDDEN)
            logger.warning("more", extra={"given": {"k": [HIDDEN, 5]}, "number": 7777777, "price": 17777777})
            try:
                raise RuntimeError(HIDDEN)
            except RuntimeError:
                logger.exception("failed with it")
    finally:
        end()
    plain, holds, odd, more, failed = caplog.records[:5]
    assert (plain.msg, plain.args) == ("plain %s %d", ("text", 7)), "handlers that want the parts have them"
    assert holds.getMessage() == "holds [secret KEY] and Odd([secret KEY])"
    assert odd.getMessage() == "does not fit %d ('[secret KEY]',)"
    assert more.__dict__["given"] == {"k": ["[secret KEY]", 5]}
    assert more.__dict__["price"] == 17777777
    assert caplog.records[3].__dict__["number"] == 7777777, "a count of the package's own is nobody's value"
    assert caplog.records[8].__dict__["number"] == "[secret PIN]"
    assert failed.exc_info is None
    assert failed.exc_text is not None
    assert "RuntimeError: [secret KEY]" in failed.exc_text
    assert HIDDEN not in caplog.text
    assert len(caplog.records) == 10
    logging.getLogger("dagbok.engine").warning(HIDDEN)
    assert HIDDEN in caplog.text, "after the end nothing is left behind"


@pytest.mark.parametrize("args", [(HIDDEN,), ({"it": HIDDEN},), (HIDDEN.encode(),)])
def test_arguments_that_hold_more_than_the_message_shows_are_not_handed_on(
    caplog: pytest.LogCaptureFixture, args: tuple[Any, ...]
) -> None:
    end = Vault({"KEY": HIDDEN}).guard(["mine"])
    try:
        words = "begins %(it).1s" if isinstance(args[0], dict) else "begins %.1s"
        logging.getLogger("dagbok.tool.mine").warning(words, *args)
    finally:
        end()
    (record,) = caplog.records
    assert record.args is None
    assert record.getMessage().startswith("begins ")
    assert HIDDEN not in repr(record.__dict__)


def test_what_is_no_json_is_redacted_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    class Rude:
        def __str__(self) -> str:
            raise ZeroDivisionError

    rude, plain = Rude(), ValueError("no")
    end = Vault({"KEY": HIDDEN}).guard(["mine"])
    try:
        extra = {"error": ValueError(f"no {HIDDEN}"), "raw": HIDDEN.encode(), "rude": rude, "plain": plain}
        logging.getLogger("dagbok.tool.mine").warning("failed", extra=extra)
    finally:
        end()
    found = caplog.records[0].__dict__
    assert (found["error"], found["raw"]) == ("no [secret KEY]", "b'[secret KEY]'")
    assert found["rude"] is rude
    assert found["plain"] is plain


def test_settings_show_no_value() -> None:
    environ = {**os.environ, "DAGBOK_SECRET_A": HIDDEN}
    assert HIDDEN not in repr(settings.load()) + json.dumps(settings.load().model_dump(mode="json"))
    assert Vault.load(settings.load(), environ).names == {"A"}
