"""One shard of work: found where it is, or made and committed. Ray-free, and safe to repeat."""

from dataclasses import dataclass, replace

from medsynth.corpus import shard, sources
from medsynth.corpus.manifest import STAGES
from medsynth.corpus.shard import Record
from medsynth.plan import Plan
from medsynth.recipes.base import Recipe, Stopwatch, make_shard
from medsynth.replacement import Replacement


@dataclass(frozen=True)
class Job:
    """What a worker must know to make any shard of one round; small, and the same for all shards."""

    corpus: str
    """URI of the corpus."""
    fingerprint: str
    recipe: Recipe
    round: Plan | Replacement
    """The plan, or the round that replaces what it lost."""
    axes: tuple[str, ...]
    run_seed: int
    conditional: bool
    """Whether the server honours conditional writes."""


def make_and_commit(job: Job, number: int) -> Record:
    """Make sure that a shard exists.

    Args:
        job: the round of work.
        number: the shard, in [0, job.round.shards).

    Returns:
        Its record; without seconds where the shard was there already.

    Raises:
        UserError: see :func:`medsynth.corpus.shard.commit`.
    """
    name = shard.shard_name(job.round.stem, number, job.round.shards)
    there = shard.existing(job.corpus, name, fingerprint=job.fingerprint)
    if there is not None:
        return there
    clock = Stopwatch()
    assignment = job.round.assignment(number)
    with clock("read"):
        tiles = sources.at(job.corpus, assignment.tiles.tolist()) if job.recipe.needs_sources else {}
    made = make_shard(job.recipe, assignment, tiles, axes=job.axes, run_seed=job.run_seed, fingerprint=job.fingerprint)
    with clock("commit"):
        record = shard.commit(
            job.corpus,
            name,
            made.table,
            job.axes,
            made.rejects,
            fingerprint=job.fingerprint,
            conditional=job.conditional,
        )
    seconds = {stage: round(clock.seconds.get(stage, 0) + made.seconds.get(stage, 0), 6) for stage in STAGES}
    return replace(record, seconds=seconds)
