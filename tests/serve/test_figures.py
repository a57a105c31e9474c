"""Figures of several replicas as one."""

from prometheus_client.parser import text_string_to_metric_families

from serve.figures import Figures, Gathered


def values(gathered: Gathered) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(gathered.text().decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_replicas_are_summed_and_the_last_word_of_each_counts() -> None:
    gathered = Gathered()
    for source, count in (("a", 2), ("b", 3)):
        figures = Figures()
        for _ in range(count):
            figures.requests.labels("/x", "POST", "200").inc()
            figures.batch.labels("focus").observe(4)
            gathered.tell(source, figures.snapshot(), now=0)
        figures.queue.labels("focus").set(count)
        gathered.tell(source, figures.snapshot(), now=1)
    found = values(gathered)
    assert found["medsynth_requests_total", (("method", "POST"), ("route", "/x"), ("status", "200"))] == 5
    assert found["medsynth_batch_images_bucket", (("le", "4.0"), ("model", "focus"))] == 5
    assert found["medsynth_batch_images_sum", (("model", "focus"),)] == 20
    assert found["medsynth_queue_images", (("model", "focus"),)] == 5


def test_what_a_lost_replica_counted_stays_and_its_queue_goes() -> None:
    gathered, lost, kept = Gathered(), Figures(), Figures()
    lost.images.labels("focus").inc(7)
    lost.queue.labels("focus").set(9)
    kept.images.labels("focus").inc(1)
    kept.queue.labels("focus").set(2)
    gathered.tell("lost", lost.snapshot(), now=0)
    for now in (1, 20, 40):
        gathered.tell("kept", kept.snapshot(), now=now)
        found = values(gathered)
        assert found["medsynth_images_total", (("model", "focus"),)] == 8
    assert found["medsynth_queue_images", (("model", "focus"),)] == 2


def test_a_replica_that_speaks_again_counts_once() -> None:
    gathered, silent, other = Gathered(), Figures(), Figures()
    images = ("medsynth_images_total", (("model", "focus"),))
    silent.images.labels("focus").inc(100)
    silent.queue.labels("focus").set(3)
    gathered.tell("silent", silent.snapshot(), now=0)
    gathered.tell("other", other.snapshot(), now=11)
    assert values(gathered)[images] == 100
    silent.images.labels("focus").inc(5)
    for now in (12, 30, 31):  # silent again at 30
        gathered.tell("other" if now == 30 else "silent", (other if now == 30 else silent).snapshot(), now=now)
        assert values(gathered)[images] == 105
    assert values(gathered)["medsynth_queue_images", (("model", "focus"),)] == 3


def test_replicas_that_come_and_go_for_months_take_no_memory_and_lose_no_count() -> None:
    gathered, figures = Gathered(), Figures()
    figures.images.labels("focus").inc(2)
    snapshot = figures.snapshot()
    for number in range(1000):
        gathered.tell(str(number), snapshot, now=20 * number)
    assert values(gathered)["medsynth_images_total", (("model", "focus"),)] == 2000
    assert len(gathered.latest) + len(gathered.gone) < 200
    gathered.tell("900", snapshot, now=20_000)
    assert values(gathered)["medsynth_images_total", (("model", "focus"),)] == 2000, "gone for half an hour, and known"
