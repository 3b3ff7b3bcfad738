"""`/health`: the process answers. `/health/ready`: submissions can be taken; 503 while the database is away."""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi import APIRouter, Response

from dagbok import views, wire
from dagbok.api import examples
from dagbok.api.openapi import problems, success
from dagbok.service import Service


def router(service: Service) -> APIRouter:
    """Return the operations on `service`."""
    routes = APIRouter(prefix="/health", tags=["health"])
    provider, _, model = service.settings.model.partition(":")

    @routes.get(
        "",
        summary="Is the process alive?",
        description="Asks nothing of the database.",
        response_model=wire.Health,
        responses=success(200, "It is", examples.HEALTH) | problems(),
    )
    async def health() -> Response:
        return _answer(200, status="ok")

    @routes.get(
        "/ready",
        summary="Can submissions be taken?",
        description="Also tells the model that `inference` and the synthesis use.",
        response_model=wire.Ready,
        responses=success(200, "They can", examples.READY)
        | problems()
        | success(503, "Not now: the database is away", examples.NOT_READY, model=wire.Ready),
    )
    async def ready() -> Response:
        is_ready = await service.is_ready()
        return _answer(
            200 if is_ready else 503,
            status="ready" if is_ready else "not_ready",
            provider=provider,
            model=model,
            scheduler={"activeSchedules": 0},
        )

    return routes


def _answer(http_status: int, **fields: Any) -> Response:
    fields["timestamp"] = views.iso(time.time_ns() // 1_000_000)
    return Response(orjson.dumps(fields), http_status, media_type="application/json")
