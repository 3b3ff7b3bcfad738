"""Charset labels: those of the Encoding Standard, and none of Python's own that would do harm."""

from __future__ import annotations

import encodings
import encodings.aliases
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.tools.charsets import _CODECS, decode, known
from dagbok.tools.egress import Fetched

#: Every name by which Python finds a codec, and names that it makes up codecs for.
PYTHONS = sorted(
    {module.name for module in pkgutil.iter_modules(encodings.__path__)}
    | set(encodings.aliases.aliases)
    | {name.replace("_", "-") for name in encodings.aliases.aliases.values()}
)

#: Each of these codecs makes a lone surrogate or another trouble of one of them.
NASTY = [b"+2AA-", rb"\ud800", rb"\N{", b"\\", b"\xed\xa0\x80", b"\x00\xd8", b"\xd8\x00", b"\x1b$B", b"~{", b"xn--\xff",
         bytes(range(256)), b"\x81\xff" * 100, b"begin 666 x"]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("utf-8", "utf-8"), ("UTF8", "utf-8"), (" Utf-8\n", "utf-8"), ("latin1", "cp1252"), ("ISO-8859-1", "cp1252"),
        ("us-ascii", "cp1252"), ("iso-8859-9", "cp1254"), ("gb2312", "gb18030"), ("Shift_JIS", "cp932"),
        ("euc-kr", "cp949"), ("utf-16", "utf-16-le"), ("utf-16be", "utf-16-be"), ("iso-8859-8-i", "iso8859-8"),
        ("windows-1251", "cp1251"), ("tis-620", "cp874"), ("big5", "big5hkscs"),
    ],
)  # fmt: skip
def test_a_label_means_what_it_means_to_browsers(label: str, codec: str) -> None:
    assert known(label) == codec


@pytest.mark.parametrize(
    "label",
    ["", "utf-7", "UTF_7", "unicode-escape", "unicode_escape", "raw-unicode-escape", "idna", "punycode", "zip", "hex",
     "rot13", "undefined", "hz-gb-2312", "iso-2022-kr", "replacement", "x-user-defined", "utf 8", "utf-8\x00",
     "\u212aoi8-r", "\xa0utf-8", '"utf-8"', "utf-8" + " " * 50 + "x", "x" * 100_000],
)  # fmt: skip
def test_any_other_name_is_none(label: str) -> None:
    assert known(label) is None


def test_the_table_has_every_label_of_the_standard_once_and_its_codecs_decode_alike() -> None:
    """228 labels, less the six of `replacement` and the one of `x-user-defined`; each codec keeps what ASCII says."""
    assert (len(_CODECS), len(set(_CODECS.values()))) == (221, 36)
    for codec in set(_CODECS.values()) - {"utf-16-le", "utf-16-be"}:
        assert decode(b"Hello, <meta>", codec) == "Hello, <meta>"


def _holds(text: str) -> str:
    text.encode()  # a lone surrogate raises
    return text


@pytest.mark.parametrize("name", PYTHONS)
def test_no_name_that_python_knows_makes_trouble_in_an_answer(name: str) -> None:
    for content in NASTY:
        for label in (name, name.replace("_", "-"), f'"{name.upper()}"'):
            _holds(Fetched(200, "", {"content-type": f"text/plain; charset={label}"}, content).text())


@given(st.binary(max_size=200), st.sampled_from(sorted({*_CODECS.values(), "utf-7"})))
def test_what_is_decoded_never_holds_a_lone_surrogate(data: bytes, codec: str) -> None:
    _holds(decode(data, codec))


def test_an_escape_that_stands_for_a_lone_surrogate_is_replaced() -> None:
    assert decode(b"a+2AA-b", "utf-7") == "a\ufffdb"
    assert decode(rb"a\ud800b", "unicode_escape") == "a\ufffdb"


def test_unknown_labels_are_not_kept() -> None:
    """Python's own look-up remembers every name it does not know, for as long as the process lives."""
    for number in range(50):
        Fetched(200, "", {"content-type": f"text/plain; charset=never-heard-of-{number}"}, b"x").text()
    assert not [name for name in encodings._cache if "never" in name]
