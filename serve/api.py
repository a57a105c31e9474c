"""The HTTP application, put together: what every model shares, and each model's routes.

Models are handed in, so that all of it runs without Ray: in tests by the models themselves, in service by handles
of their deployments (:mod:`serve.app`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from starlette.types import ASGIApp

import medsynth
from medsynth.skin import tone
from serve import docs, focus_routes, generator_routes, openapi, protocol, slide_routes
from serve.figures import CONTENT_TYPE, Figures
from serve.http import Gate, Limits, Problem, handle_problems, read
from serve.slides import SlideJobs
from serve.wire import SKIN, About, Focus, Skin, SkinAbout, model_name

NOT_FOR_DIAGNOSIS = (
    "Everything made or said here is synthetic, or comes from models trained on synthetic images; not for diagnosis."
)
_PAGE = {
    "index.html": "text/html",
    "page.js": "text/javascript",
    "focus.js": "text/javascript",
    "skin.js": "text/javascript",
    "page.css": "text/css",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ABSENT = {SKIN: generator_routes.ABSENT}
_POLICY_HEADER = {"Content-Security-Policy": _POLICY}


def build(
    focus: Focus,
    skin: Skin | None,
    limits: Limits,
    *,
    tokens: Sequence[str] = (),
    figures: Figures | None = None,
    metrics: Callable[[], Awaitable[bytes]],
    jobs: SlideJobs | None = None,
) -> ASGIApp:
    """The application.

    Args:
        focus: the focus model.
        skin: the generator; None where there are no weights.
        limits: of a request, and of all together.
        tokens: any of which lets a request in; none for loopback.
        figures: where requests are counted.
        metrics: the figures of all replicas, for Prometheus.
        jobs: slides by URI; None where no place for them is configured.
    """
    app = FastAPI(
        title="medsynth",
        version=medsynth.__version__,
        description=NOT_FOR_DIAGNOSIS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address made of the Host header, which anyone may send
        responses={"default": openapi.PROBLEM},
    )
    handle_problems(app)
    app.include_router(_shared(focus, skin, metrics))
    app.include_router(focus_routes.routes(focus, limits))
    app.include_router(generator_routes.routes(skin, limits))
    app.include_router(slide_routes.routes(jobs))
    app.include_router(protocol.routes(focus, skin, limits))

    @read(app, "/docs", include_in_schema=False)
    async def page_of_docs(request: Request) -> Response:
        page = docs.html(app.openapi(), docs.base_of(request), await _for_commands(focus, skin))
        return Response(page, media_type="text/html", headers=_POLICY_HEADER)

    # After the last route: one more, and the framework would make the document anew.
    app.openapi_schema = openapi.completed(app.openapi(), guarded=bool(tokens))
    return Gate(app, limits, tokens, figures or Figures())


def _shared(focus: Focus, skin: Skin | None, metrics: Callable[[], Awaitable[bytes]]) -> APIRouter:
    router = APIRouter(tags=["service"])

    @read(router, "/v1/models", summary="The models that answer")
    async def models() -> dict[str, Any]:
        found = [_focus(await focus.about())]
        if skin is None:
            return {"note": NOT_FOR_DIAGNOSIS, "models": found, "absent": _ABSENT}
        return {"note": NOT_FOR_DIAGNOSIS, "models": [*found, _skin(await skin.about())]}

    @read(router, "/healthz", summary="Whether the process lives")
    @read(router, "/v2/health/live", summary="Whether the process lives")
    async def alive() -> dict[str, bool]:
        return {"live": True}

    @read(router, "/readyz", summary="Whether the weights are loaded")
    @read(router, "/v2/health/ready", summary="Whether the weights are loaded")
    async def ready() -> dict[str, Any]:
        # 503 until there is of each model a replica with loaded weights; one that is busy is ready
        if skin is None:
            await protocol.loaded(focus)
            return {"ready": True, "absent": _ABSENT}
        await asyncio.gather(protocol.loaded(focus), protocol.loaded(skin))
        return {"ready": True}

    @read(
        router,
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def figures() -> Response:
        return Response(await metrics(), headers={"Content-Type": CONTENT_TYPE})

    @read(router, "/", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html")

    @read(router, "/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return _file(name)

    return router


async def _for_commands(focus: Focus, skin: Skin | None) -> dict[str, str]:
    known = {"version": "VERSION", "condition": "CONDITION"}
    with contextlib.suppress(Problem):  # the documentation is there even if no model is
        known["version"] = (await focus.about()).version
    if skin is not None:
        with contextlib.suppress(Problem):
            known["condition"] = next(iter((await skin.about()).colours))
    return known


def _file(name: str) -> Response:
    if name not in _PAGE:
        raise Problem(404, f"no part {name[:50]!r} of the page")
    data = resources.files("serve").joinpath("page", name).read_bytes()
    return Response(data, media_type=_PAGE[name], headers={**_POLICY_HEADER, "Cache-Control": "no-cache"})


def _focus(about: About) -> dict[str, Any]:
    return {
        **model_name(about),
        "field_px": about.field,
        "stride_px": about.stride,
        "radii_px": list(about.radii_px),
        "grades_um": list(about.grades_um),
    }


def _skin(about: SkinAbout) -> dict[str, Any]:
    return {
        **model_name(about),
        "size_px": about.size,
        "conditions": {name: list(colour) for name, colour in about.colours.items()},
        "fitzpatrick": list(tone.TYPES),
        "type_colours": {name: list(tone.colour_of_type(kind)) for kind, name in enumerate(tone.TYPES, 1)},
        "sizes": {name: list(share) for name, share in about.sizes.items()},
        "devices": list(about.devices),
        "region": about.region,
        "processor": about.processor,
        "attribution": about.attribution,
        "cautions": about.cautions,
    }
