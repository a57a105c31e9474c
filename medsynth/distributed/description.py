"""A finished corpus's card and report, written by a worker.

By a worker, since the head of a cluster has no work on it, and the driver's memory stays as it is; in a
module of its own, since the worker then loads nothing but what it needs for them.
"""

import ray

from medsynth import storage
from medsynth.errors import UserError


def describe(corpus: str) -> None:
    """Write the card and the report of a corpus whose manifest stands, over earlier ones if need be.

    Args:
        corpus: its URI.

    Raises:
        UserError: they cannot be written.
    """
    error = ray.get(ray.remote(num_cpus=1)(_write).remote(corpus))
    if error is not None:
        raise UserError(error)
    storage.remove_staging(corpus)


def _write(corpus: str) -> str | None:
    from medsynth.corpus import card, report  # here, so that the driver does not load what draws

    try:
        card.write_card(corpus)
        report.write_report(corpus)
    except UserError as error:  # a value: Ray would wrap it
        return str(error)
    return None
