"""The site: routes over the newest committed catalogue, and a refresh in the background."""

from __future__ import annotations

import hashlib
import math
import re
import time
from base64 import b64encode
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from neo_site.query import NeoQuery
from neo_site.refresh import Refresher
from neo_site.responses import bad_parameters, on_bug, on_http_error
from neo_site.traffic import Traffic
from neows_async.telemetry.prometheus import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from neo_site.catalogue import Catalogue
    from neo_site.config import Config

_MAX_QUERIES = 4  # at once; more would occupy threads while they wait for the processor
_RETRY_AFTER_S = 5
_STALE_AFTER = 2  # refresh intervals: an older catalogue is stale


class Site:
    """The routes and their shared state."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._registry = CollectorRegistry()
        self._refresher = Refresher(config, metrics(self._registry))
        self._threads = anyio.CapacityLimiter(_MAX_QUERIES)
        self._page = files("neo_site").joinpath("page.html").read_text("utf-8")
        self._policy = _policy(self._page)
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/neos", self._neos),
                Route("/neos/{id}", self._neo),
                Route("/aggregates", self._aggregates),
                Route("/health", self._health),
                Route("/health/live", self._live),
                Route("/health/ready", self._ready),
                Route("/metrics", self._metrics),
            ],
            middleware=[Middleware(Traffic, registry=self._registry)],
            exception_handlers={HTTPException: on_http_error, Exception: on_bug},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Refresh in the background while the application serves."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._refresher.run)
            yield
            tasks.cancel_scope.cancel()

    # -- the catalogue ------------------------------------------------------------------------

    def _catalogue(self) -> Catalogue:
        """The current catalogue. A request uses one catalogue from beginning to end."""
        catalogue = self._refresher.catalogue
        if catalogue is None:
            wait_s = math.ceil(self._refresher.progress.figures().eta_s or _RETRY_AFTER_S)
            raise HTTPException(503, "the first catalogue is being fetched", {"Retry-After": str(max(1, wait_s))})
        return catalogue

    async def _neos(self, request: Request) -> Response:
        try:
            query = NeoQuery.model_validate(dict(request.query_params))
        except ValidationError as exc:
            return bad_parameters(exc)
        catalogue = self._catalogue()
        total, rows = await to_thread.run_sync(catalogue.neos, query, limiter=self._threads)
        following = query.offset + query.limit
        url = request.url.include_query_params(offset=following)
        return JSONResponse(
            {
                "snapshot": catalogue.receipt.snapshot,
                "total": total,
                "limit": query.limit,
                "offset": query.offset,
                "next": f"{url.path}?{url.query}" if following < total else None,
                "neos": rows,
            }
        )

    async def _neo(self, request: Request) -> Response:
        catalogue, neo_id = self._catalogue(), request.path_params["id"]
        found = await to_thread.run_sync(catalogue.neo, neo_id, limiter=self._threads)
        if found is None:
            raise HTTPException(404, f"there is no object {neo_id[:40]!r}")
        return JSONResponse({"snapshot": catalogue.receipt.snapshot, **found})

    async def _aggregates(self, _: Request) -> Response:
        receipt = self._catalogue().receipt
        return JSONResponse({"snapshot": receipt.snapshot, **receipt.aggregates})

    # -- the site itself ----------------------------------------------------------------------

    async def _index(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy, "Cache-Control": "no-cache"})

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _health(self, _: Request) -> Response:
        """The whole report, for people and for the page."""
        return JSONResponse(self._report())

    async def _ready(self, _: Request) -> Response:
        """200 once there is a catalogue, also a stale one."""
        return JSONResponse(self._report(), 503 if self._refresher.catalogue is None else 200)

    def _report(self) -> dict[str, Any]:
        catalogue = self._refresher.catalogue
        if catalogue is None:
            return {"status": "starting", "catalogue": None, "refresh": self._refresh()}
        receipt = catalogue.receipt
        age_s = time.time() - receipt.committed_at.timestamp()
        described = {
            "snapshot": receipt.snapshot,
            "age_s": round(age_s, 1),
            "committed_at": receipt.committed_at.isoformat(timespec="seconds"),
            "neos": receipt.records.written,
            "close_approaches": receipt.close_approaches,
            "complete": receipt.complete,
            "synthetic": receipt.source.synthetic,
            "origin": receipt.source.origin,
        }
        stale = age_s > _STALE_AFTER * self._config.refresh_every_s
        return {"status": "stale" if stale else "ready", "catalogue": described, "refresh": self._refresh()}

    def _refresh(self) -> dict[str, Any]:
        refresher = self._refresher
        figures = refresher.progress.figures()
        quota, last = figures.rate_limit, refresher.last
        return {
            "running": refresher.running,
            "pages": figures.pages,
            "pages_fetched": figures.pages_fetched,
            "neos": figures.neos,
            "eta_s": None if figures.eta_s is None else round(figures.eta_s, 1),
            "waiting_until_s": figures.waiting_until_s,
            "source_down_since_s": figures.outage_since_s,
            "quota": quota and {"limit": quota.limit, "remaining": quota.remaining},
            "last": last and {"outcome": last.outcome, "reason": last.reason, "ended_s": round(last.ended_s, 1)},
            "next_s": refresher.next_s,
        }

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _policy(page: str) -> str:
    """Allow only the page's own script and style, and only requests to this site."""
    allowed = {
        tag: " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found)
        for tag in ("script", "style")
        if (found := re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
    }
    return (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {allowed['script']}; "
        f"style-src {allowed['style']}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def create_app(config: Config) -> Starlette:
    """The application; its refresh begins when it starts."""
    return Site(config).app
