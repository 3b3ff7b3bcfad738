from __future__ import annotations

import asyncio
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic_ai.models import Model
from pydantic_ai.providers import missing_api_key_error

from dagbok.errors import Misconfigured, ToolError
from dagbok.llm.extractive import HINT
from dagbok.llm.models import EXTRAS, Models, resolve
from llm.calls import inference, inference_call, models


def get(models: Models, *names: str | None) -> list[Model]:
    async def run() -> list[Model]:
        try:
            return [await models.get(name) for name in names]
        finally:
            await models.aclose()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-tests")


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["offline", "offline:extractive", " offline:extractive "])
def test_the_offline_model_goes_by_its_name(name: str) -> None:
    assert resolve(name).model_id == "offline:extractive"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai:gpt-5", "OpenAIResponsesModel"),
        ("openai-chat:gpt-5", "OpenAIChatModel"),
        ("anthropic:claude-opus-5", "AnthropicModel"),
    ],
)
def test_a_name_is_that_of_pydantic_ai(name: str, kind: str) -> None:
    assert type(resolve(name)).__name__ == kind


def test_a_name_gives_the_same_model_each_time_and_a_provider_has_one_set_of_connections() -> None:
    default, again, other = get(models("openai:gpt-5"), None, " openai:gpt-5", "openai:gpt-4o")
    assert default is again
    assert other is not default
    assert other.provider is default.provider


def test_models_of_endless_plans_are_forgotten() -> None:
    ours = models("openai:gpt-5")

    async def run() -> None:
        for number in range(200):
            await ours.get(f"openai:gpt-{number}")
        assert len(ours._models) <= 64
        assert len(ours._providers) == 1
        await ours.aclose()

    asyncio.run(run())


def test_two_that_ask_at_once_get_one_model() -> None:
    ours = models("openai:gpt-5")

    async def run() -> None:
        first, second = await asyncio.gather(ours.get(), ours.get())
        assert first is second
        await ours.aclose()

    asyncio.run(run())


def test_closing_closes_the_connections() -> None:
    ours = models("openai:gpt-5")

    async def run() -> None:
        clients = [(await ours.get(name)).provider._own_http_client for name in (None, "anthropic:claude-opus-5")]  # type: ignore[union-attr]  # both have one
        assert [client.is_closed for client in clients if client] == [False, False]
        await ours.aclose()
        assert [client.is_closed for client in clients if client] == [True, True]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("offline:poetic", "the built-in offline model is offline:extractive"),
        ("nobody:has-this", "Unknown provider: nobody. Without any model, set offline:extractive."),
        ("gpt-99", "A model is named PROVIDER:MODEL, such as openai:gpt-5."),
        ("openai:", "A model is named PROVIDER:MODEL, such as openai:gpt-5."),
        (":gpt-5", "A model is named PROVIDER:MODEL, such as openai:gpt-5."),
        ("", "A model is named PROVIDER:MODEL"),
        ("ollama:llama3", "OLLAMA_BASE_URL"),
    ],
)
def test_a_name_that_cannot_work_says_what_to_do(name: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        resolve(name)
    assert said in str(caught.value)
    assert caught.value.model == name


# -- keys and packages ------------------------------------------------------------------------------------------------


def test_a_missing_key_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test model of pydantic-ai is not recommended, nor Python code that an operator does not write."""
    for name, key in (("openai:gpt-5", "OPENAI_API_KEY"), ("anthropic:claude-opus-5", "ANTHROPIC_API_KEY")):
        monkeypatch.delenv(key)
        with pytest.raises(Misconfigured, match=f"Set the `{key}` environment variable") as caught:
            resolve(name)
        assert "Agent('test')" not in str(caught.value)
        assert "api_key=" not in str(caught.value)


def test_a_key_that_is_set_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = models("openai:gpt-5")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Misconfigured):
        get(ours, None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    assert get(ours, None)[0].model_id == "openai:gpt-5"


def test_who_has_no_key_is_told_of_our_offline_model_and_not_of_a_test_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str, provider_factory: object) -> None:
        raise missing_api_key_error("Set the `X_API_KEY` environment variable.")

    monkeypatch.setattr("pydantic_ai.models.infer_model", fail)
    with pytest.raises(Misconfigured) as caught:
        resolve("x:y")
    said = "Set the `X_API_KEY` environment variable. Without any model, set offline:extractive."
    assert str(caught.value) == f"The model 'x:y' cannot be used: {said}"


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("openai", "openai:gpt-5", "openai"),
        ("openai", "ollama:llama3", "ollama"),
        ("openai", "openrouter:meta/llama", "openrouter"),
        ("openai", "deepseek:deepseek-chat", "openai"),
        ("anthropic", "anthropic:claude-opus-5", "anthropic"),
        ("google.genai", "google:gemini-3-pro", "google"),
        ("google.genai", "google-gla:gemini-3-pro", "google"),
        ("groq", "groq:llama", "groq"),
    ],
)
def test_a_package_that_is_not_installed_is_named_as_our_extra(package: str, name: str, extra: str) -> None:
    """In a process of its own, which cannot import the package, whatever this environment has."""
    code = f"""
import sys
sys.modules[{package!r}] = None
from dagbok.errors import Misconfigured
from dagbok.llm.models import resolve
try:
    resolve({name!r})
except Misconfigured as exc:
    print(exc)
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert f"Install it: pip install 'dagbok[{extra}]'" in ran.stdout
    assert "pydantic-ai-slim" not in ran.stdout


def test_every_extra_that_a_message_names_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {*EXTRAS, "models", "testing", "dev"}
    assert "'dagbok[openai]'" in HINT


def test_nothing_of_a_model_is_imported_before_one_is_asked(tmp_path: Path) -> None:
    """`dagbok list` must not wait half a second for models that it does not ask, nor the offline model for an SDK."""
    code = """
import asyncio, sys
import dagbok, dagbok.cli.main, dagbok.llm.inference
assert "pydantic_ai" not in sys.modules, "pydantic_ai"
async def run():
    plan = {"original_request": "r", "intent": {"primary": "p"}, "synthesis_plan": "s",
            "sub_tasks": [{"id": "1", "action_type": "inference", "tool_or_prompt": {"name": "inference"}}]}
    async with dagbok.Dagbok(sys.argv[1]) as engine:
        assert (await engine.run(plan)).status == "completed"
asyncio.run(run())
assert "pydantic_ai" in sys.modules
sys.exit(" ".join({"openai", "anthropic", "google.genai", "groq"} & sys.modules.keys()) or 0)
"""
    url = f"sqlite:///{tmp_path / 'dagbok.db'}"
    ran = subprocess.run([sys.executable, "-c", code, url], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# -- what an operator allows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai:gpt-5", "openai:gpt-5-mini", "anthropic:claude-opus-5", "offline", None])
def test_a_plan_may_name_what_the_setting_allows_and_the_default(name: str | None) -> None:
    patterns = ("openai:gpt-5*", "anthropic:*", "offline")
    (model,) = get(models("openai:gpt-4o", models=patterns), name)
    assert model.model_id == {None: "openai:gpt-4o", "offline": "offline:extractive"}.get(name, name)
    assert get(models("openai:gpt-4o", models=patterns), "openai:gpt-4o")[0].model_id == "openai:gpt-4o"


@pytest.mark.parametrize("name", ["openai:o9-dearest", "openai-chat:gpt-5", "OPENAI:gpt-5", "offline", "xopenai:gpt-5"])
def test_a_plan_may_name_nothing_else(name: str) -> None:
    tool = inference("openai:gpt-4o", models=("openai:gpt-5*",))
    with pytest.raises(ToolError, match=r"openai:gpt-5\* \(DAGBOK_MODELS\)") as caught:
        asyncio.run(tool(inference_call({"prompt": "Go", "model": name})))
    assert caught.value.code == "refused"


# -- a server of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "is no address"),
        ("ftp://localhost/v1", "is no address"),
        ("file:///etc/passwd", "is no address"),
        ("http://", "is no address"),
        ("http://[::1/v1", "is no address"),
        ("http://localhost:port/v1", "is no address"),
        ("http://user:hunter22@localhost:8000/v1", "holds more than an address"),
        ("http://localhost:8000/v1?key=hunter22", "holds more than an address"),
        ("http://localhost:8000/v1#a", "holds more than an address"),
    ],
)
def test_a_base_url_that_is_no_bare_address_is_refused_at_start(url: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        asyncio.run(models("openai:llama", model_base_url=url).check())
    assert "hunter22" not in str(caught.value)


def test_a_base_url_beside_a_model_that_would_be_asked_elsewhere_is_refused_at_start() -> None:
    """Whoever sets one does not want the prompts to leave the house."""
    with pytest.raises(Misconfigured, match="would be asked elsewhere"):
        asyncio.run(models("anthropic:claude-opus-5", model_base_url="http://localhost:8000/v1").check())
    asyncio.run(models("offline", model_base_url="http://localhost:8000/v1").check())


def test_a_default_model_that_cannot_work_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Misconfigured, match="OPENAI_API_KEY"):
        asyncio.run(models("openai:gpt-5").check())


@pytest.mark.parametrize("key", ["sk-of-the-tests\n", " sk-of-the-tests", "sk-of\x7fthe-tests", "sk-öf-the-tests"])
@pytest.mark.parametrize("name", ["openai:gpt-5", "openai-chat:gpt-5", "openai-responses:gpt-5"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(
    name: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(Misconfigured, match="The value of OPENAI_API_KEY has") as caught:
        resolve(name)
    assert key.strip() not in str(caught.value)


def test_a_key_of_another_provider_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-tests\n")
    assert resolve("openai:gpt-5").model_id == "openai:gpt-5"
