"""Slides by URI: sent with 202, asked for with GET."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from serve import openapi
from serve.http import Problem, read
from serve.slides import FILES, RUNNING, SlideJobs

Status = Literal["running", "scored", "nothing to score", "rejected", "failed"]
Job = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="a job's id")]


class SlideRequest(BaseModel):
    """A slide to score."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=2000, description="where the service reads it")
    mpp: float | None = Field(
        default=None, ge=0.01, le=20, allow_inf_nan=False, description="µm per pixel instead of what the file says"
    )
    again: bool = Field(default=False, description="whether a slide that was rejected is looked at once more")


class SlideJob(BaseModel):
    """Where to ask for a job."""

    id: str
    status: Status
    location: str = Field(description="path of its progress and result")


class SlideProgress(BaseModel):
    """How far a job is."""

    stage: str
    done: int
    total: int
    attempt: int = Field(description="which it is: a job whose machine was lost is taken up again")


class SlideState(BaseModel):
    """What is known of a job: its progress while it runs, else what it came to."""

    id: str
    uri: str
    etag: str = Field(description="of the slide's file when the job was sent")
    mpp: float | None = Field(description="as it was sent")
    weights_sha256: str
    status: Status
    progress: SlideProgress | None = Field(None, description="null before there is any")
    name: str | None = Field(None, description="of the slide")
    reason: str | None = Field(None, description="for which it was not scored")
    detail: str | None = None
    focus: dict[str, Any] | None = Field(None, description="the map in figures")
    files: dict[str, str] = Field(description="path of each file by its name")


def routes(jobs: SlideJobs | None) -> APIRouter:
    """The routes.

    Args:
        jobs: None where no place for them is configured.
    """
    router = APIRouter(prefix="/v1/focus/slides", tags=["slides"])

    def known() -> SlideJobs:
        if jobs is None:
            raise Problem(404, "this service scores no slides by URI; its operator can set slides in serve/config.yaml")
        return jobs

    @router.post(
        "",
        status_code=202,
        response_model=SlideJob,
        responses={202: {"headers": {"Location": openapi.header("path of the job's progress and result")}}},
        summary="Score a slide",
        openapi_extra={
            "x-curl": "curl -H 'Content-Type: application/json' -d '{\"uri\": \"s3://bucket/slide.svs\"}' "
            "'{base}/v1/focus/slides'"
        },
    )
    async def start(request: Request, asked: SlideRequest) -> Response:
        """Answers 202 and where to ask for progress and result.

        The same slide again is the same job, whose status is told; one that failed, or whose storage did, is tried
        anew. A slide rejected for what it is stays so until its file changes, or the request says `again`.
        """
        job, status = await known().start(asked.uri, asked.mpp, asked.again)
        place = _place(request, job)
        return JSONResponse({"id": job, "status": status, "location": place}, 202, {"Location": place})

    @read(
        router,
        "/{job}",
        response_model=SlideState,
        responses={
            200: {"headers": {"Retry-After": openapi.header("while it runs: seconds", "integer", always=False)}},
        },
        summary="How far a slide is, or what it came to",
    )
    async def state(request: Request, job: Job) -> Response:
        found: dict[str, Any] = await known().state(job)
        headers = {"Retry-After": "1"} if found["status"] == RUNNING else {}
        files = {name: f"{_place(request, job)}/{name}" for name in found.get("files", ())}
        return JSONResponse({**found, "files": files}, headers=headers)

    @read(
        router,
        "/{job}/{name}",
        response_class=Response,
        responses={200: {"content": {kind: {"schema": _schema(kind)} for kind in FILES.values()}}},
        summary="A file of a scored slide",
    )
    async def file(job: Job, name: str) -> Response:
        """overlay.png, regions.geojson or map.ome.tif."""
        if name not in FILES:
            raise Problem(404, f"no file {name[:50]!r}; there are {', '.join(FILES)}")
        return Response(await known().file(job, name), media_type=FILES[name])

    return router


def _place(request: Request, job: str) -> str:
    return f"{request.scope.get('root_path', '').rstrip('/')}/v1/focus/slides/{job}"


def _schema(kind: str) -> dict[str, str]:
    return {"type": "object"} if kind.endswith("json") else {"type": "string", "format": "binary"}
