import base64
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medsynth import storage
from medsynth.corpus import card, manifest, reader, report, sheet, totals
from medsynth.errors import CorpusError
from tests.corpus.conftest import Small, make_corpus
from tests.servers import S3Server

_VOID = {"meta", "link", "img", "br", "use"}


class Page(HTMLParser):
    """The page as a browser would take it: nesting checked, tables and pictures collected."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.tables: dict[str, list[list[str]]] = {}
        self.labels: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if "aria-label" in values:
            self.labels.append(values["aria-label"])
        if tag == "img":
            self.images.append(values)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag in _VOID:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self._caption += data
        elif "table" in self.open and self.open[-1] in ("td", "th", "code"):
            self._rows[-1][-1] += data


def page_of(uri: str) -> Page:
    return Page(storage.read(storage.join(uri, "report.html")).decode())


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = make_corpus(str(tmp_path_factory.mktemp("reported") / "corpus"))
    report.write_report(made.uri)
    return made


@pytest.fixture(scope="module")
def page(reported: Small) -> Page:
    return page_of(reported.uri)


def test_it_says_what_it_is(page: Page) -> None:
    text = " ".join(page.text.split())
    for words in (
        "small-v1",
        "5f" * 32,
        "Synthetic: for training only, never for validation or test",
        "2 of 50 rows are missing, in 1 of 12 subgroups",
        "3 tiles were left out as soft",
        "All 48 rows.",
        "100 to 4,800 photons, median 2,450 (48 rows)",
        "0 to 2.5 px, median 1.25 (48 rows)",
    ):
        assert words in text


def test_it_opens_offline(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not page.tags & {"script", "iframe", "object", "embed"}


def test_no_style_reaches_outside(reported: Small) -> None:
    text = Path(reported.uri, "report.html").read_text()
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_its_tables_are_the_manifest_s(page: Page) -> None:
    subgroups = page.tables["Rows by subgroup, those that miss most first"]
    assert subgroups[0] == ["tissue", "focus_class", "asked", "planned", "delivered", "rejected", "missing"]
    assert subgroups[1] == ["breast", "5", "6", "4", "4", "0", "2"]
    assert ["brain", "0", "4", "4", "4", "1", "–"] in subgroups
    assert len(subgroups) == 13
    assert page.tables["Rows by tissue"][1:] == [
        ["brain", "24", "24", "24", "1", "–"],
        ["breast", "26", "24", "24", "0", "2"],
    ]
    assert page.tables["Rows by focus_class"][6] == ["5", "10", "8", "8", "0", "2"]
    assert page.tables["Rejected rows by reason"][1] == ["truncated", "1"]
    assert page.tables["Time by stage, all workers together"][1:] == [
        ["read", "0.75", "13.3 %", "64"],
        ["render", "4.50", "80.0 %", "11"],
        ["commit", "0.38", "6.7 %", "128"],
        ["all", "5.62", "100.0 %", "9"],
    ]


def test_rejects_are_shown_and_escaped(page: Page) -> None:
    rows = page.tables["From the first data files that have any; all are in the folder rejects"]
    assert rows[1] == ["s3://bucket/<gone> & bad.png", "truncated", "ends <early> | no end marker"]


def test_every_picture_and_plot_has_words(page: Page) -> None:
    assert len(page.images) == 36
    assert all(image["alt"] for image in page.images)
    assert len([label for label in page.labels if label.startswith(("Bar chart", "Histogram"))]) == 6
    assert any("missing rows by value: 5: 2" in label for label in page.labels)


def test_pictures_are_the_corpus_s_own_bytes(reported: Small, page: Page) -> None:
    own = {row["image"]["bytes"]: row for row in reported.rows}
    for image in page.images:
        row = own[base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))]
        assert image["alt"] == f"tissue {row['tissue']}, focus_class {row['focus_class']}"


def test_chromium_shows_it(reported: Small, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600", f"--screenshot={shot}"]
    subprocess.run([chromium, *flags, Path(reported.uri, "report.html").as_uri()], check=True, timeout=120)
    with Image.open(shot) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 1000


def test_object_storage(moto_env: S3Server) -> None:
    made = make_corpus(storage.join(moto_env.bucket(), "corpus"))
    report.write_report(made.uri)
    assert "2 of 50 rows are missing" in page_of(made.uri).text


def test_incomplete_corpus_is_refused(tmp_path: Path) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    Path(made.uri, "manifest.parquet").unlink()
    with pytest.raises(CorpusError, match="incomplete"):
        report.write_report(made.uri)


def test_a_manifest_with_a_subgroup_of_its_own_is_refused(
    tmp_path: Path, edit_header: Callable[[str, Callable[[dict], None]], None]
) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    edit_header(made.uri, lambda header: header["quotas"].pop())
    with pytest.raises(CorpusError, match="breast / 5"):
        report.write_report(made.uri)


def test_a_recipe_without_sources_and_focus_classes(
    tmp_path: Path, edit_header: Callable[[str, Callable[[dict], None]], None]
) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    for path in Path(made.uri, "data").glob("*.parquet"):
        table = pq.read_table(path)
        for name in ("source_uri", "source_x", "source_y"):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.field(place), pa.nulls(len(table), table.field(place).type))
        pq.write_table(table.rename_columns([{"focus_class": "condition"}.get(n, n) for n in table.column_names]), path)

    def rename(header: dict) -> None:
        header["recipe"], header["notes"] = "skin", []
        header["axes"] = {"tissue": header["axes"]["tissue"], "condition": header["axes"]["focus_class"]}
        for quota in header["quotas"]:
            quota["subgroup"]["condition"] = quota["subgroup"].pop("focus_class")

    edit_header(made.uri, rename)
    report.write_report(made.uri)
    found = page_of(made.uri)
    assert len(found.images) == 36
    assert "Rows: tissue. Columns: condition." in found.text
    labels = [row[0] for row in found.tables[""][1:]]
    assert labels == ["brain"] * 3 + ["breast"] * 3
    # Each row's pictures are those of its label.
    assert [image["alt"].partition(",")[0] for image in found.images[::6]] == [f"tissue {label}" for label in labels]
    assert {image["alt"] for image in found.images} == {
        f"tissue {t}, condition {c}" for t in ("brain", "breast") for c in range(6)
    }


@pytest.mark.parametrize("shards", [0, 3])
def test_a_corpus_without_rows_has_a_report_and_a_card(tmp_path: Path, shards: int) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    place = Path(made.uri, "manifest.parquet")
    records = pq.read_table(place).slice(0, shards).to_pylist()
    for record in records:
        path = Path(made.uri, record["path"])
        pq.write_table(pq.read_table(path).slice(0, 0), path)
        record.update(rows=0, counts=[], rejects=[], seconds=dict.fromkeys(manifest.STAGES, 0.0))
    pq.write_table(pa.Table.from_pylist(records, manifest.SCHEMA), place)
    report.write_report(made.uri)
    card.write_card(made.uri)
    assert "50 of 50 rows are missing" in " ".join(page_of(made.uri).text.split())
    assert "50 of 50 rows are missing" in Path(made.uri, "README.md").read_text()


def test_the_work_is_bounded(reported: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = str(tmp_path / "many")
    shutil.copytree(reported.uri, many)
    records = pq.read_table(Path(many, "manifest.parquet"))
    pq.write_table(pa.concat_tables([records] * 1000), Path(many, "manifest.parquet"))
    opened = []
    honest = storage.open_input
    monkeypatch.setattr(storage, "open_input", lambda uri: opened.append(uri) or honest(uri))
    start = time.perf_counter()
    report.write_report(many)
    assert time.perf_counter() - start < 20
    assert len([uri for uri in opened if "/data/" in uri]) <= 1 + 32 + 8 + 6
    text = " ".join(page_of(many).text.split())
    assert "A sample: 512 of 48,000 rows, from 32 evenly spread data files of 3,000." in text
    assert len(Path(many, "report.html").read_bytes()) < 2 * len(Path(reported.uri, "report.html").read_bytes())


class TestTotals:
    def test_times_of_shards_found_on_resume_do_not_count(self, reported: Small, tmp_path: Path) -> None:
        copy = str(tmp_path / "copy")
        shutil.copytree(reported.uri, copy)
        rows = pq.read_table(Path(copy, "manifest.parquet")).to_pylist()
        rows[0]["seconds"] = dict.fromkeys(manifest.STAGES, 0.0)
        pq.write_table(pa.Table.from_pylist(rows, manifest.SCHEMA), Path(copy, "manifest.parquet"))
        found = totals.add_up(reader.open_corpus(copy))
        assert found.rows_timed == 32
        assert found.seconds == {"read": 0.5, "render": 3.0, "commit": 0.25}

    def test_marginals_add_up_to_the_whole(self, reported: Small) -> None:
        found = totals.add_up(reader.open_corpus(reported.uri))
        for place in range(2):
            assert sum(tally.delivered for tally in found.by_axis(place)) == found.whole.delivered == 48
            assert sum(tally.asked for tally in found.by_axis(place)) == found.whole.asked == 50


class TestContactSheet:
    def test_a_corpus_s_rows_are_one_source_and_its_columns_are_in_order(self, reported: Small) -> None:
        found = sheet.choose(reader.open_corpus(reported.uri))
        assert found.same_source
        assert found.columns == ["0", "1", "2", "3", "4", "5"]
        assert {label.split("\n")[0] for label in found.labels} == {"brain", "breast"}
        sources = {row["sample_id"]: (row["source_x"], row["source_y"]) for row in reported.rows}
        for row in found.cells:
            assert [cell.values["focus_class"] for cell in row] == found.columns
            assert len({sources[cell.sample_id] for cell in row}) == 1

    def test_columns_are_thinned_evenly(self) -> None:
        assert reader.spread(30, 12) == [0, 3, 5, 8, 11, 13, 16, 18, 21, 24, 26, 29]
        assert reader.spread(3, 12) == [0, 1, 2]
        assert reader.spread(0, 8) == []
