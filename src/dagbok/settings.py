"""Every setting, read once from the environment (`DAGBOK_*`) and frozen. Flags of the command line win over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dagbok.errors import Misconfigured


class Settings(BaseSettings):
    """What an operator may decide. `load` is how programs make one."""

    model_config = SettingsConfigDict(env_prefix="DAGBOK_", frozen=True, extra="ignore")

    database_url: str = "sqlite:///dagbok.db"  #: `sqlite:///FILE` or `postgresql://...`
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"  #: NORMAL may lose the last commits at a power cut
    workspace: Path = Path()  #: the folder that file tools may touch
    egress_allow: Annotated[tuple[str, ...], NoDecode] = ()  #: hosts, addresses and networks that tools may reach too
    http_timeout_s: Annotated[float, Field(gt=0)] = 30.0  #: of one request of a tool, with its redirects
    max_response_bytes: Annotated[int, Field(ge=1)] = 16 * 2**20  #: of one answer to a tool, unpacked
    smtp_url: SecretStr | None = None  #: the mail server, `smtp://USER:PASSWORD@HOST:587` or `smtps://...`
    smtp_from: str | None = None  #: whom mails come from, `ADDRESS` or `NAME <ADDRESS>`; set with `smtp_url`
    tools: Annotated[tuple[str, ...], NoDecode] = ()  #: modules with tools, comma-separated in the environment
    secrets_file: Path | None = None  #: more secrets beside DAGBOK_SECRET_*, readable by its owner alone
    model: str = "offline:extractive"  #: the model of `inference` and the synthesis
    model_base_url: str | None = None  #: an OpenAI-compatible server; models named `openai...:NAME` are asked there
    models: Annotated[tuple[str, ...], NoDecode] = ()  #: patterns of what `params.model` may name; none: any model
    model_stream: bool = True  #: whether answers are streamed; not every server can

    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] = 64  #: attempts under way at once, in all
    tool_timeout_s: Annotated[float, Field(gt=0)] = 300.0  #: of an attempt, unless the tool or sub-task says otherwise
    inference_timeout_s: Annotated[float, Field(gt=0)] = 600.0  #: of a model call, likewise
    retry_max_attempts: Annotated[int, Field(ge=1, le=100)] = 3  #: of errors that pass, unless tool or plan say more
    retry_backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 1.0  #: before the second attempt; doubled each time
    retry_max_backoff_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 60.0
    close_grace_s: Annotated[float, Field(ge=0, le=3600)] = 5.0  #: what runs has so long to end when the engine closes

    #: Executions are deleted so many days after their end, with their idempotency keys; None: never
    retention_days: Annotated[float, Field(ge=0.01, le=36_500)] | None = None

    max_sub_tasks: Annotated[int, Field(ge=1)] = 10_000  #: of one plan
    max_plan_bytes: Annotated[int, Field(ge=1)] = 8 * 2**20  #: of one plan as JSON
    max_result_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20  #: of one result, and of one step's resolved params
    prompt_chars: Annotated[int, Field(ge=1000)] = 120_000  #: of one prompt to a model; what is cut is noted in it

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 3000  #: 0: any free port
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()  #: more names the API answers to, beside loopback
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()  #: foreign web origins that may call the API
    log_level: Literal["debug", "info", "warning", "error"] = "info"  #: of the lines that the server logs
    log_format: Literal["auto", "json", "text"] = "auto"  #: text is for people; auto: text on a terminal, else json

    @field_validator("egress_allow", "tools", "models", "allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://", "postgres://", "postgresql+psycopg://")):
            raise ValueError("use sqlite:///FILE or postgresql://USER@HOST/NAME")
        return value


def load(**flags: Any) -> Settings:
    """Return the settings of the environment, with every flag that is not None put above it.

    Raises:
        Misconfigured: A value cannot be used; the message names each setting.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in exc.errors()
        )
        raise Misconfigured(f"The settings cannot be used: {faults}.") from exc
