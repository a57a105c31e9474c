"""A look at every photo of a table before a training starts, on all machines at once.

What is retry-safe and why: a task reads photos and returns what they are, so Ray may run it again anywhere.
"""

import ray

from medsynth.errors import TrainingError, UserError
from medsynth.skin import samples
from medsynth.skin.pairs import Pairs, Photo
from medsynth.skin.samples import Facts, SampleSettings

_PHOTOS_PER_TASK = 32


def survey(pairs: Pairs, settings: SampleSettings) -> tuple[Facts, ...]:
    """Read all photos of a table. Call it inside a session.

    Args:
        pairs: the table.
        settings: of the samples that are to be made of them.

    Returns:
        What each is, in the table's order.

    Raises:
        TrainingError: one cannot be used; the message names it.
    """
    parts = [pairs.photos[first : first + _PHOTOS_PER_TASK] for first in range(0, len(pairs.photos), _PHOTOS_PER_TASK)]
    task = ray.remote(_seen)
    found = [one for part in ray.get([task.remote(part, settings) for part in parts]) for one in part]
    bad = [one for one in found if isinstance(one, str)]
    if bad:
        raise TrainingError(bad[0] + (f" ({len(bad) - 1} more cannot be used either)" if len(bad) > 1 else ""))
    return tuple(one for one in found if not isinstance(one, str))


def _seen(photos: tuple[Photo, ...], settings: SampleSettings) -> list[Facts | str]:
    # An error of the user's comes back as a value: Ray would wrap it.
    found: list[Facts | str] = []
    for photo in photos:
        try:
            found.append(samples.load(photo, settings.size, settings.region).facts)
        except UserError as error:
            found.append(str(error))
    return found
