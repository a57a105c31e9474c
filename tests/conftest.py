"""What every test stands on: a home of its own, no AWS settings but its own, and real S3 servers."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from tests.servers import S3Server, moto_server, rclone_server

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"
_QUICK_START = REPO / "tests" / "quick_start"

# A busy machine is no fault of an example's; what hangs is stopped by pytest-timeout. In CI the examples are the
# same each time, as in Hypothesis's own profile for it: new ones are looked for by people, who can act on them.
hypothesis.settings.register_profile("medsynth", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("medsynth")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: Ray writes a token into HOME, and matplotlib, boto3 and
    # Hugging Face's datasets look there while they are imported.
    config.stash[_HOME] = home = tempfile.mkdtemp(prefix="medsynth-home-")
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "RAY_", "HF_")):
            del os.environ[name]
    os.environ |= {
        "HOME": home,
        "HF_HUB_OFFLINE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # More processes than cores run at once; threads that wait for each other would spin away each other's time.
        "OMP_NUM_THREADS": "1",
        # Compiled code outlives the temporary home, or each run would compile it anew.
        "NUMBA_CACHE_DIR": str(REPO / ".numba_cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_QUICK_START), os.environ.get("PYTHONPATH")])),
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


_HOME = pytest.StashKey[str]()


# Of two pytest processes one runs all that join the cluster of tests/cluster.py, which is therefore started once, and
# the other the longest of the rest; then each takes the file that comes next.
_JOINED = (
    "e2e/test_generate.py", "faults/test_faults.py", "e2e/test_score_slides.py", "e2e/test_train_gan.py",
    "distributed/test_training.py", "e2e/test_train_focus.py", "e2e/test_generate_interrupted.py",
    "e2e/test_generate_skin.py", "e2e/test_generate_refusals.py", "e2e/test_index.py", "distributed/test_pipeline.py",
    "distributed/test_exchange.py", "corpus/test_reader.py",
)  # fmt: skip
_LONGEST = ("e2e/test_on_a_cluster.py", "test_storage.py", "serve/test_page.py", "defocus/test_chain_bytes.py")
_OWN_SESSION = ("corpus/test_reader.py",)  # on that cluster, with settings of its own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {REPO / "tests" / name: place for place, name in enumerate(_JOINED + _LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    # The session on that cluster goes from file to file, and ends before the first test that shall find none.
    try:
        return (yield)
    finally:
        shared = {REPO / "tests" / name for name in _JOINED if name not in _OWN_SESSION}
        if (cluster := sys.modules.get("tests.cluster")) and (nextitem is None or nextitem.path not in shared):
            cluster.leave()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    # All that is loaded here stays, 600,000 objects, which the collector would look through again and again.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


class _Files(LoadFileScheduling):
    """Whole files, and those that join the cluster as if they were one; pytest-xdist has groups for that, but its 3.8
    does nothing with them under pytest 9."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "joined" if file.removeprefix("tests/") in _JOINED else file


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nothing is shared out
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Files:
    return _Files(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real images beside the repository; tests that want them are skipped without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's S3 server: honours conditional writes."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3``: ignores the condition of a put."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def moto_env(moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """moto's server, with the AWS variables set for it."""
    return _with_env(moto_s3, monkeypatch)


@pytest.fixture
def rclone_env(rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """rclone's server, with the AWS variables set for it."""
    return _with_env(rclone_s3, monkeypatch)


@pytest.fixture(params=["moto", "rclone"])
def s3_env(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each of the two servers in turn, with the AWS variables set for it."""
    return _with_env(request.getfixturevalue(f"{request.param}_s3"), monkeypatch)


def _with_env(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What jobs/generate.py makes of the small spec, made without Ray by the first of all pytest processes that wants
    it; nobody changes it."""
    from tests import corpora, jobs  # here, since Ray must not be loaded before HOME is set

    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "corpus"
    with FileLock(f"{folder}.lock"):
        if not (folder / "out" / "report.html").exists():
            folder.mkdir(exist_ok=True)
            corpora.make_ordered(jobs.write_spec(folder / "spec.yaml"), folder / "out", described=True)
    return folder / "out"
