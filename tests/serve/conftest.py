from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.http import Limits
from tests.conftest import REPO
from tests.serve.local import LocalFocus, LocalSkin, client, encoded
from tests.slides import stained


@pytest.fixture(scope="session")
def focus(tmp_path_factory: pytest.TempPathFactory) -> LocalFocus:
    return LocalFocus(Limits(), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def skin(tmp_path_factory: pytest.TempPathFactory) -> LocalSkin:
    return LocalSkin(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def http(focus: LocalFocus, skin: LocalSkin) -> TestClient:
    """One event loop for the module, as Serve's batches need."""
    with client(focus, skin=skin) as found:
        yield found


@pytest.fixture(scope="session")
def tile() -> bytes:
    return encoded(stained(256, 256))


@pytest.fixture(scope="session")
def test_output() -> Path:
    """Where pictures are kept that a person may want to see."""
    folder = REPO / "test-out" / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
