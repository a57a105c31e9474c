"""The contact sheet: source tiles or conditions down, the values of one axis across."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.corpus.reader import Corpus, sample_files, spread

_ACROSS = ("focus_class", "fitzpatrick")
_DOWN = "condition"

_FILES, _ROWS_OF_A_FILE = 8, 1024
_SHEET_ROWS, _SHEET_COLUMNS = 6, 12
_SOURCE = ("source_uri", "source_row", "source_x", "source_y")
_ENOUGH = 0.85

_Row = dict[str, Any]
_Members = dict[str, _Row]


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    data: bytes
    """JPEG or PNG bytes."""
    values: dict[str, str]
    """Its value on every axis."""
    sample_id: str


@dataclass(frozen=True)
class Sheet:
    """Pictures chosen from a corpus."""

    axis: str
    """The axis across."""
    columns: list[str]
    """Values of that axis, evenly chosen."""
    labels: list[str]
    """What each row is."""
    cells: list[list[Cell | None]]
    """None where the corpus has no such picture in the files looked at."""
    same_source: bool
    """Whether a row shows one source tile throughout."""
    down: str | None
    """The axis whose values the rows are; None where they are source tiles or subgroups."""
    mixed: list[str]
    """The other axes whose values differ within a row."""
    files: int
    """Data files looked at."""


def sides(axes: Sequence[str]) -> tuple[str, str | None]:
    """The axis whose values stand across a sheet, and the one whose values stand down where there are no sources.

    Args:
        axes: of the corpus, in order.
    """
    across = next((name for name in _ACROSS if name in axes), axes[-1])
    others = [name for name in axes if name != across]
    return across, _DOWN if _DOWN in others else next(iter(others), None)


def choose(corpus: Corpus) -> Sheet:
    """Choose the pictures that show a corpus best, from the first rows of a few evenly spread data files.

    A row is a source tile, of one value on every other axis; where no tile has enough values of the axis
    across, a source tile whatever the other axes; and where that is not enough either, a subgroup. Where there
    are no sources, a row is a value of one other axis, a condition if there is one.

    Args:
        corpus: an opened corpus.

    Raises:
        StorageError: a data file cannot be read.
    """
    axis, down = sides(list(corpus.axes))
    values = corpus.axes[axis]
    columns = [values[place] for place in spread(len(values), _SHEET_COLUMNS)]
    others = [name for name in corpus.axes if name != axis]
    files = sample_files(corpus, _FILES)
    found = [candidate for uri, _ in files for candidate in _candidates(uri, [*corpus.axes], axis, columns)]
    best, same = _rows(found, axis, others, down, len(columns))
    drawn = bool(found) and all(row["source_uri"] is None for row in found)
    shown = others
    if drawn and down is not None:
        shown, order = [down], corpus.axes[down]
        best.sort(key=lambda members: order.index(str(next(iter(members.values()))[down])))
    pictures = _pictures([row for members in best for row in members.values()])
    cells = [
        [
            Cell(
                pictures[members[value]["at"]],
                {name: str(members[value][name]) for name in corpus.axes},
                members[value]["sample_id"],
            )
            if value in members
            else None
            for value in columns
        ]
        for members in best
    ]
    mixed = [name for name in others if any(len({row[name] for row in members.values()}) > 1 for members in best)]
    labels = [_label(members, shown, same) for members in best]
    return Sheet(axis, columns, labels, cells, same, down if drawn else None, mixed, len(files))


def _rows(
    found: list[_Row], axis: str, others: list[str], down: str | None, columns: int
) -> tuple[list[_Members], bool]:
    if any(row["source_uri"] is not None for row in found):
        for key in ([*_SOURCE, *others], list(_SOURCE)):
            best = _best(found, axis, key, others)
            if sum(map(len, best)) >= _ENOUGH * columns * len(best):
                return best, True
    elif down is not None:
        others = [down]
    _number(found, axis, others)
    return _best(found, axis, [*others, "nth"], others), False


def _candidates(uri: str, axes: list[str], axis: str, columns: list[str]) -> list[_Row]:
    with storage.open_input(uri) as file:
        opened = pq.ParquetFile(file)
        wanted = [*axes, *(name for name in (*_SOURCE, "sample_id") if name in opened.schema_arrow.names)]
        batch = next(opened.iter_batches(_ROWS_OF_A_FILE, columns=wanted))
    empty = dict.fromkeys(_SOURCE)
    rows = [{**empty, **row, "at": (uri, place)} for place, row in enumerate(batch.to_pylist())]
    return [row for row in rows if str(row[axis]) in columns]


def _number(rows: list[_Row], axis: str, others: list[str]) -> None:
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in rows:
        subgroup = (row[axis], *(row[name] for name in others))
        row["nth"] = seen[subgroup]
        seen[subgroup] += 1


def _best(rows: list[_Row], axis: str, key: list[str], others: list[str]) -> list[_Members]:
    # The fullest rows, of as many subgroups as there are, and far apart rather than neighbours.
    sets: dict[tuple[Any, ...], _Members] = defaultdict(dict)
    for row in rows:
        sets[tuple(row[name] for name in key)].setdefault(str(row[axis]), row)
    groups: dict[tuple[Any, ...], list[_Members]] = defaultdict(list)
    for members in sets.values():
        first = next(iter(members.values()))
        groups[tuple(first[name] for name in others)].append(members)
    ranked = []
    for group in groups.values():
        full = max(map(len, group)) - 1
        chosen = [members for members in group if len(members) >= full]
        ranked += [
            (turn, -len(chosen[place]), chosen[place]) for turn, place in enumerate(spread(len(chosen), _SHEET_ROWS))
        ]
    ranked.sort(key=lambda item: item[:2])
    return [members for _, _, members in ranked[:_SHEET_ROWS]]


def _pictures(rows: list[_Row]) -> dict[tuple[str, int], bytes]:
    wanted: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        wanted[row["at"][0]].append(row["at"][1])
    found: dict[tuple[str, int], bytes] = {}
    for uri, places in wanted.items():
        with storage.open_input(uri) as file:
            opened = pq.ParquetFile(file)
            start = 0
            for group in range(opened.num_row_groups):
                count = opened.metadata.row_group(group).num_rows
                inside = [place for place in places if start <= place < start + count]
                if inside:
                    column = opened.read_row_group(group, columns=["image.bytes"])["image"]
                    taken = column.take(pa.array([place - start for place in inside])).to_pylist()
                    found.update(((uri, place), item["bytes"]) for place, item in zip(inside, taken, strict=True))
                start += count
    return found


def _label(members: _Members, others: list[str], same: bool) -> str:
    rows = list(members.values())
    parts = [str(rows[0][name]) for name in others if len({row[name] for row in rows}) == 1]
    if same:
        first = rows[0]
        place = "" if first["source_x"] is None else f" ({first['source_x']}, {first['source_y']})"
        number = "" if first["source_row"] is None else f" row {first['source_row']}"
        parts.append(f"{str(first['source_uri']).rpartition('/')[2]}{number}{place}")
    return "\n".join(parts)
