"""The FastAPI application around an open `Dagbok`: routes, problems, guards, documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import Match

from dagbok.api import answers, docs, health, openapi, problems, routes
from dagbok.api.guards import Guard
from dagbok.api.requests import Requests
from dagbok.api.waiting import Waiting
from dagbok.app import Dagbok
from dagbok.errors import DagbokError

#: What may stand around a plan of the largest size: names, options, blanks.
ENVELOPE_BYTES = 64 * 1024


def create_app(dagbok: Dagbok, *, hosts: Iterable[str] = (), any_address: bool = False) -> FastAPI:
    """Return the application of an open engine; whoever opened it closes it, after the server stopped.

    Args:
        hosts: Names and addresses it answers to, beside loopback and `Settings.allowed_hosts`: the bound one.
        any_address: Whether it answers to every IP address, as a server bound to all of them has to.
    """
    settings = dagbok.settings
    waiting = Waiting(dagbok.service)
    app = _App(
        [routes.router(dagbok.service, waiting), health.router(dagbok.service)],
        title="Dagbok",
        version=openapi.version(),
        summary="Plans of AI agents, run as DAGs, with a durable diary",
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        openapi_url=None,  # the routes below serve it, made once
        docs_url=None,  # FastAPI's pages load scripts from another server
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.waiting = waiting
    _add_documentation(app)
    for kind in (DagbokError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _tell)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.rstrip("/").lower() for origin in settings.allowed_origins],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["content-type", "idempotency-key", "if-none-match", "prefer", "x-request-id"],
            expose_headers=[
                "etag",
                "idempotent-replayed",
                "location",
                "preference-applied",
                "retry-after",
                "x-request-id",
            ],
        )
    app.add_middleware(
        Guard,
        hosts=(*hosts, *settings.allowed_hosts),
        origins=settings.allowed_origins,
        max_body_bytes=settings.max_plan_bytes + ENVELOPE_BYTES,
        any_address=any_address,
    )
    app.add_middleware(Requests)  # the last added is the outermost
    return app


class _App(FastAPI):
    def __init__(self, routers: Sequence[APIRouter], **options: Any) -> None:
        super().__init__(**options)
        self._routers = routers
        for router in routers:
            self.include_router(router)

    def openapi(self) -> dict[str, Any]:
        return openapi.document(self, self._routers)


def _add_documentation(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def documentation(request: Request) -> Response:
        headers = {"Content-Security-Policy": docs.CSP}
        return await answers.packed(
            request, Response(docs.page(app.openapi()), headers=headers, media_type="text/html")
        )

    @app.get("/openapi.json", include_in_schema=False)
    @app.get(f"{routes.PREFIX}/openapi.json", include_in_schema=False)
    async def schema(request: Request) -> Response:
        return await answers.packed(request, answers.json(orjson.dumps(app.openapi())))


async def _tell(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 404 and request.scope.get("endpoint") is None:
        error = HTTPException(404, "There is no such path; /docs lists those there are.")
    elif isinstance(error, HTTPException) and error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        error = HTTPException(405, f"{request.method} is not for this path; it knows {allowed}.", {"Allow": allowed})
    return await answers.packed(request, problems.of(error, request.scope))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes at this path; the router itself tells those of the first one only."""
    found: set[str] = set()
    for route in request.app.routes:
        for method in ("GET", "POST", "DELETE"):
            if route.matches({**request.scope, "method": method})[0] is Match.FULL:
                found.add(method)
    return found | {"HEAD"} if "GET" in found else found
