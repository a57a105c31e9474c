"""One Ray session for the jobs of a file."""

from collections.abc import Iterator

import pytest

from tests import cluster


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """What :func:`tests.jobs.run_job` runs here joins no cluster anew: a job's workers serve the next one."""
    with cluster.joined():
        yield
