"""One Ray session for the jobs of these files."""

import pytest

from tests import cluster


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> None:
    """What :func:`tests.jobs.run_job` runs here joins no cluster anew: a job's workers serve the next one."""
    cluster.join()
