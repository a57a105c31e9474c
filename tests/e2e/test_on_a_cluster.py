"""A cluster that a platform team started: jobs are submitted to it, and the service is deployed, loaded and killed."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray import serve

from medsynth.focus.model import FocusModel
from medsynth.skin.model import SkinModel
from serve import config
from serve.app import app
from serve.client import Client, ServiceError
from serve.environment import FAST
from serve.generator import Artist
from serve.wire import Asked
from tests import head, skin_model
from tests.cluster import joined_at
from tests.head import Head
from tests.jobs import digests
from tests.serve.local import encoded
from tests.servers import free_port
from tests.slides import network, on_glass, stained, write_tiff

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TOKEN = "a-token-of-16-letters"
# How busy the replicas are is told more often than each ten seconds, or the test of scaling would take minutes.
_TOLD = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5" for who in ("HANDLE", "REPLICA")}
SET = {"MEDSYNTH_API_TOKENS": TOKEN, **_TOLD, **FAST}


@dataclass(frozen=True)
class Service:
    address: str
    folder: Path
    model: FocusModel

    def client(self, **options: Any) -> Client:
        return Client(self.address, TOKEN, **options)

    def args(self, weights: str = "a.safetensors") -> dict[str, Any]:
        slides = {"sources": [str(self.folder / "slides")], "jobs": str(self.folder / "jobs")}
        skin = str(self.folder / "skin.safetensors")
        return {"focus_weights": str(self.folder / weights), "skin_weights": skin, "slides": slides}


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> None:
    """None on the cluster that the tests share: what is tested here has its own."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with head.started(tmp_path_factory.mktemp("home"), 4, SET) as found:
        yield found


@pytest.fixture(scope="module")
def service(cluster: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serve")
    model = network()
    model.save(str(folder / "a.safetensors"))
    network(12).save(str(folder / "b.safetensors"))
    skin_model.save(folder)
    (folder / "slides").mkdir()
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SET, "HOME": cluster.env["HOME"]}.items():
            patch.setenv(name, value)
        with joined_at(cluster.address):
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            found = Service(f"http://127.0.0.1:{port}", folder, model)
            serve.run(app(found.args()), name="medsynth", route_prefix="/")
            yield found


@dataclass
class Load:
    """Clients that ask again and again, and what became of it."""

    service: Service
    image: bytes
    threads: int
    pause: float = 0.0
    """Seconds between an answer and the next request."""
    versions: list[str] = field(default_factory=list)
    radii: set[float] = field(default_factory=set)
    errors: list[ServiceError] = field(default_factory=list)
    in_flight: set[int] = field(default_factory=set)
    """Threads that wait for an answer."""

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(self.threads)
        self._futures = [self._pool.submit(self._ask) for _ in range(self.threads)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()

    def _ask(self) -> None:
        client = self.service.client(attempts=1)
        while not self._stop.is_set():
            self.in_flight.add(threading.get_ident())
            try:
                score = client.score(self.image, 0.25)
                self.versions.append(score.weights_sha256)
                self.radii.add(score.radius_px)
            except ServiceError as error:
                self.errors.append(error)
            finally:
                self.in_flight.discard(threading.get_ident())
            self._stop.wait(self.pause)


def test_a_submitted_job_makes_the_same_corpus_but_none_in_its_temporary_folder(
    cluster: Head, corpus: Path, tmp_path: Path
) -> None:
    job = f"python jobs/generate.py --workers 1 --spec {corpus.parent / 'spec.yaml'} --out"
    done = submit(cluster, f"{job} corpora/lost; {job} {tmp_path / 'submitted'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--out corpora/lost: lies in the temporary folder of the submitted job" in done.stdout + done.stderr
    assert "120 rows, 8 shards" in done.stdout
    assert digests(tmp_path / "submitted") == digests(corpus)


def submit(cluster: Head, command: str) -> subprocess.CompletedProcess[str]:
    """Submit a job as the README says, and wait for its end.

    A head that has only just started may have no agent yet, or take a job and never start it; the job
    is one that can be submitted again.
    """
    for _ in range(30):
        try:
            done = cluster.run("ray", "job", "submit", "--working-dir", ".", "--", "sh", "-c", command)
        except subprocess.TimeoutExpired:
            continue
        if "No available agent" not in done.stderr:
            return done
        time.sleep(1)
    pytest.fail("the cluster took no job")


def ask(service: Service, path: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    known = {"Authorization": f"Bearer {TOKEN}", **{key.replace("_", "-"): value for key, value in headers.items()}}
    request = urllib.request.Request(service.address + path, data, known)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_served_is_what_the_model_says(service: Service) -> None:
    picture = stained(300, 280)
    score = service.client().score(encoded(picture), 0.25)
    direct = service.model.score(picture, 0.25)
    assert score.radius_px == pytest.approx(direct.radius_px, rel=1e-5)
    assert score.classes == pytest.approx([float(one) for one in direct.probabilities], rel=1e-4)
    assert score.weights_sha256 == service.model.sha256
    assert service.client().heat_map(encoded(picture), 0.25)[:4] == b"\x89PNG"


def test_bodies_of_many_megabytes_come_through(service: Service) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)  # which no format makes smaller
    files = [encoded(rough), encoded(rough[::-1].copy())]
    assert all(len(file) > 6 << 20 for file in files), "more than gRPC takes unless told"
    assert [score.width for score in service.client().scores(files, 0.25)] == [1500, 1500]
    assert service.client().heat_map(files[0], 0.25)[:4] == b"\x89PNG"


def test_pictures_are_those_of_the_model(service: Service) -> None:
    artist = Artist(SkinModel.load(str(service.folder / "skin.safetensors")))

    def own(kind: int, seed: int) -> bytes:
        asked = Asked("NEV", fitzpatrick=kind, device="phone-budget")
        (request,) = artist.requests(asked, [seed])
        return artist.finish(asked, (request, seed), artist.draw([(request, seed)])[0]).data

    def served(kind: int) -> bytes:
        client = service.client()
        return client.skin_image("NEV", fitzpatrick=kind, device="phone-budget", seed=4).data

    with ThreadPoolExecutor(6) as pool:
        at_once = list(pool.map(served, range(1, 7)))
    assert at_once == [own(kind, 4) for kind in range(1, 7)]
    many = service.client().skin_images("NEV", 11, fitzpatrick=2, device="phone-budget", seed=4)
    assert [one.data for one in many] == [own(2, one.seed) for one in many]
    sign = 'medsynth_made_total{condition="NEV",fitzpatrick="II"}'
    assert figure(service, sign, 12) == 12
    assert figure(service, 'medsynth_batch_images_count{model="skin"}', 17) == 17, "one by one, as on every CPU"
    with pytest.raises(ServiceError, match=r"422 .*condition"):
        service.client().skin_image("x")
    large = service.client().skin_images("BCC", 32, side=1024, device="phone-lowlight", seed=4)
    assert sum(len(one.data) for one in large) > 6 << 20, "more than gRPC takes unless told"


def test_the_gate_stands_before_serves_ingress(service: Service, tile_bytes: bytes) -> None:
    status, headers, body = ask(service, "/v1/focus/scores", tile_bytes, Content_Type="image/png", X_Request_ID="mine")
    assert (status, headers["x-request-id"]) == (200, "mine")
    status, headers, body = ask(service, "/v1/models", Authorization="Bearer wrong")
    assert (status, json.loads(body)["status"]) == (401, 401)
    with socket.create_connection(("127.0.0.1", int(service.address.rpartition(":")[2])), timeout=10) as raw:
        request = f"POST /v1/focus/scores HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        raw.sendall(f"{request}Content-Type: image/png\r\nContent-Length: {40 << 20}\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413"), "answered though no byte of the body was sent"
    assert ask(service, "/readyz")[0] == ask(service, "/healthz")[0] == 200


def test_below_a_prefix_the_same_is_open_and_the_same_is_closed(service: Service, tile_bytes: bytes) -> None:
    serve.run(app(service.args()), name="mounted", route_prefix="/below/it")
    try:
        for path in ("/", "/page/page.js", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/ready"):
            assert ask(service, "/below/it" + path, Authorization="")[0] == 200, path
        for path in ("/v1/models", "/metrics", "/v2", "/below/it/healthz"):
            assert ask(service, "/below/it" + path, Authorization="")[0] == 401, path
        mounted = Client(f"{service.address}/below/it", TOKEN)
        assert mounted.score(tile_bytes, 0.25) == service.client().score(tile_bytes, 0.25)
        assert "error" in json.loads(ask(service, "/below/it/v2/models/other")[2])
    finally:
        serve.delete("mounted")


def test_answers_in_batches_do_not_depend_on_their_company(service: Service) -> None:
    pictures = [encoded(stained(150 + 16 * (n % 3), 170, n)) for n in range(8)]
    alone = [service.client().score(one, 0.25) for one in pictures]
    assert service.client().scores(pictures * 5, 0.25) == alone * 5
    asked, batches = (f'medsynth_batch_images_{kind}{{model="focus"}}' for kind in ("sum", "count"))
    before, at_most = figure(service, asked, 48), figure(service, batches, 1)
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda one: service.client(attempts=20).score(one, 0.25), pictures * 20))
    assert at_once == alone * 20
    assert figure(service, asked, before + 160) >= before + 160
    assert figure(service, batches, 1) < at_most + 160, "some were judged together"


def figure(service: Service, name: str, least: float) -> float:
    """One of /metrics; figures come each second."""
    end, found = time.monotonic() + 5, 0.0
    while found < least and time.monotonic() < end:
        lines = [line.rpartition(" ") for line in ask(service, "/metrics")[2].decode().splitlines() if line[0] != "#"]
        found = {key: float(value) for key, _, value in lines}.get(name, 0.0)
        time.sleep(0.2)
    return found


def test_overload_is_told_and_passes(service: Service, tile_bytes: bytes) -> None:
    with Load(service, tile_bytes, 60) as load:
        time.sleep(1.5)
    assert load.versions, "the service goes on"
    assert {error.status for error in load.errors} <= {429, 503}
    assert all("retry_after" in error.problem for error in load.errors)
    assert len(load.radii) == 1
    assert service.client(attempts=1).score(tile_bytes, 0.25).radius_px in load.radii


def pid_of(cluster: Head, deployment: str) -> int:
    """Of the only replica."""
    title = f"ServeReplica:medsynth:{deployment}"
    (found,) = {one.pid for one in cluster.processes() if title in " ".join(one.cmdline())}
    return int(found)


def test_a_killed_replica_costs_no_wrong_answer(cluster: Head, service: Service, tile_bytes: bytes) -> None:
    pid = pid_of(cluster, "FocusScorer")
    with Load(service, tile_bytes, 4, 0.2) as load:  # what is refused meanwhile takes the starting one's time
        time.sleep(1)
        os.kill(pid, signal.SIGSTOP)  # until each client waits for it
        assert soon(lambda: len(load.in_flight) == load.threads)
        before = len(load.versions)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 120
        while len(load.versions) < before + 30 and time.monotonic() < end:
            time.sleep(0.1)
    assert len(load.versions) >= before + 30, "it came back"
    assert len(load.radii) == 1
    assert len(load.errors) <= load.threads, "no more than were in flight"
    assert {error.status for error in load.errors} <= {503, 504}


def test_a_slide_outlives_the_replica_that_took_it(cluster: Head, service: Service) -> None:
    path = write_tiff(service.folder / "slides" / "tall.tif", on_glass(2000, 600, (100, 50, 1800, 500)))
    client = service.client()
    job = client.start_slide(str(path))
    assert client.start_slide(str(path)) == job
    assert client.slide(job)["status"] == "running"
    os.kill(pid_of(cluster, "Ingress"), signal.SIGKILL)
    found: dict[str, Any] = {}
    lost: list[int] = []
    end = time.monotonic() + 60
    while found.get("status", "running") == "running":
        assert time.monotonic() < end, found
        time.sleep(0.3)
        try:
            found = client.slide(job)
        except ServiceError as error:  # before another ingress is there
            lost.append(error.status)
    assert set(lost) <= {503}
    assert found["status"] == "scored", found
    assert found["focus"]["tissue_mm2"] > 0
    assert set(found["files"]) == {"overlay.png", "regions.geojson", "map.ome.tif"}
    assert client.slide_file(job, "overlay.png")[:4] == b"\x89PNG"
    assert json.loads(client.slide_file(job, "regions.geojson"))["type"] == "FeatureCollection"
    outcome = service.folder / "jobs" / job / "outcome.json"
    outcome.write_text(json.dumps({"status": "failed", "detail": "the store did not answer"}))
    assert client.slide(job)["status"] == "failed"
    assert client.start_slide(str(path)) == job
    end = time.monotonic() + 60
    while client.slide(job)["status"] == "running":
        assert time.monotonic() < end
        time.sleep(0.3)
    assert client.slide(job)["status"] == "scored", "sent again, it is tried again"


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "s3://elsewhere/a.svs", "package://medsynth/a.png", "../a.tif", "", "a\0b.tif", "none.tif"],
)
def test_slides_elsewhere_are_refused(service: Service, uri: str) -> None:
    (service.folder / "a.tif").write_bytes(b"x")
    inside = uri if uri.startswith(("/", "s3", "package")) or not uri else f"{service.folder}/slides/{uri}"
    with pytest.raises(ServiceError, match="422"):
        service.client().start_slide(inside)


def test_serve_deploy_rolls_the_configuration_out_without_a_lost_request_and_it_scales_up_and_down(
    cluster: Head, service: Service, tile_bytes: bytes
) -> None:
    found = yaml.safe_load(config.DEFAULT.read_text())
    found["http_options"]["port"] = int(service.address.rpartition(":")[2])
    (application,) = found["applications"]
    application["args"] = service.args("b.safetensors")
    # A look back over more than one report of a handle, each 10 s: on a busy machine they come late.
    quick = {"max_replicas": 2, "look_back_period_s": 12, "upscale_delay_s": 0.5, "downscale_delay_s": 1}
    for deployment in application["deployments"]:
        deployment.get("autoscaling_config", {}).update(quick)
        if deployment["name"] == "FocusScorer":
            deployment["autoscaling_config"]["target_ongoing_requests"] = 0.3
    (service.folder / "config.yaml").write_text(yaml.safe_dump(found))
    with Load(service, tile_bytes, 1, 1.2) as load:  # too little for a second replica
        time.sleep(1)
        done = cluster.run("serve", "deploy", service.folder / "config.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert soon(lambda: len(set(load.versions)) == 2), "the new version"
        assert soon(lambda: serve.status().applications["medsynth"].status == "RUNNING")
        time.sleep(1)
        before = len(load.versions) + 1  # one of them may have been asked for earlier
        assert soon(lambda: len(load.versions) > before), "one that was asked for now"
    assert not load.errors, str(load.errors[0])
    assert len(set(load.versions)) == 2
    assert load.versions[0] == service.model.sha256
    assert load.versions[-1] != service.model.sha256
    assert scorers(1), "one where nobody asks"
    with Load(service, tile_bytes, 2, 0.05) as load:  # some requests are always there, and the processors are not full
        assert scorers(2), "a second one under load"
    assert scorers(1), "one again after it"
    assert not load.errors, str(load.errors[0])
    assert len(load.radii) == 1


def scorers(wanted: int) -> bool:
    """Whether so many replicas of the scorer run, soon."""

    def states() -> object:
        return serve.status().applications["medsynth"].deployments["FocusScorer"].replica_states

    return soon(lambda: states() == {"RUNNING": wanted})


def soon(there: Callable[[], bool]) -> bool:
    """Whether it comes to be; on a busy machine a replica takes half a minute to start."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        if there():
            return True
        time.sleep(0.5)
    return False


@pytest.fixture(scope="module")
def tile_bytes() -> bytes:
    return encoded(stained(256, 256))
