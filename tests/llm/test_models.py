from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic_ai.providers import missing_api_key_error

from dagbok.errors import Misconfigured
from dagbok.llm.models import resolve


@pytest.mark.parametrize("name", ["offline", "offline:extractive", " offline:extractive "])
def test_the_offline_model_goes_by_its_name(name: str) -> None:
    assert resolve(name).model_id == "offline:extractive"


def test_a_name_gives_the_same_model_each_time() -> None:
    assert resolve("offline") is resolve("offline")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("offline:poetic", "the built-in offline model is offline:extractive"),
        ("nobody:has-this", "Unknown model: nobody:has-this. Without any model, set offline:extractive."),
        ("gpt-99", "A model is named PROVIDER:MODEL, such as openai:gpt-5."),
        ("", "A model is named PROVIDER:MODEL"),
    ],
)
def test_a_name_that_cannot_work_says_what_to_do(name: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        resolve(name)
    assert said in str(caught.value)
    assert caught.value.model == name


def test_a_missing_package_or_key_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two this environment lacks; the test model of pydantic-ai is not recommended."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(Misconfigured, match=r"pydantic-ai-slim\[openai\]|OPENAI_API_KEY") as caught:
        resolve("openai:gpt-5")
    assert "Agent('test')" not in str(caught.value)


def test_who_has_no_key_is_told_of_our_offline_model_and_not_of_a_test_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise missing_api_key_error("Set the `X_API_KEY` environment variable.")

    monkeypatch.setattr("pydantic_ai.models.infer_model", fail)
    with pytest.raises(Misconfigured) as caught:
        resolve("x:y")
    said = "Set the `X_API_KEY` environment variable. Without any model, set offline:extractive."
    assert str(caught.value) == f"The model 'x:y' cannot be used: {said}"


def test_the_tools_can_be_imported_without_pydantic_ai() -> None:
    """`dagbok list` must not wait half a second for models that it does not ask."""
    code = "import sys, dagbok.llm.inference; sys.exit('pydantic_ai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
