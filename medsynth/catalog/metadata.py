"""Tables about images, CSV or Parquet, and how their rows are joined with image files."""

import csv
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.errors import CatalogError, NotFoundError

MPP = "mpp"
"""Name of the column that holds micrometres per pixel, where a table has one."""


@dataclass(frozen=True)
class Facts:
    """What a table says of one image."""

    subgroups: tuple[str | None, ...]
    """A value for each subgroup column; None where the cell is empty."""
    mpp: float | None


def read_table(uri: str) -> pa.Table:
    """Read a table; a CSV's cells are all text, and empty ones null.

    Args:
        uri: of a ``.csv`` or ``.parquet`` file.

    Raises:
        CatalogError: it is not there, or is no such table.
    """
    try:
        data = storage.read(uri)
    except NotFoundError as error:
        raise CatalogError(f"{uri}: no table there; check the address") from error
    if data[:4] == b"PAR1":
        try:
            return pq.read_table(io.BytesIO(data))
        except pa.ArrowException as error:
            raise CatalogError(f"{uri}: the Parquet file is damaged; write it again") from error
    try:
        return _read_csv(data.decode("utf-8-sig"), uri)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{uri}: neither Parquet nor CSV in UTF-8; convert it") from error


def require_columns(uri: str, known: Sequence[str], wanted: Iterable[str]) -> None:
    """Make sure that a table has some columns.

    Raises:
        CatalogError: one is missing; the nearest known one is named.
    """
    for name in wanted:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known columns: {', '.join(known)}"
            apart = next((sign for sign in ";\t" if len(known) == 1 and sign in known[0]), None)
            if apart:  # as spreadsheets write them where the comma stands in numbers
                hint = f"its columns are parted by {apart!r}; save it with commas"
            raise CatalogError(f"{uri}: no column {name!r}; {hint}")


def load(uri: str, key: str, subgroups: Sequence[str]) -> dict[str, Facts]:
    """Read what a metadata table says, by key.

    Raises:
        CatalogError: a column is missing, a key stands twice, or mpp is not a positive number.
    """
    table = read_table(uri)
    require_columns(uri, table.column_names, [key, *subgroups])
    keys = [as_text(value) for value in table[key].to_pylist()]
    values = [[as_text(value) for value in table[name].to_pylist()] for name in subgroups]
    mpps = table[MPP].to_pylist() if MPP in table.column_names else [None] * table.num_rows
    found: dict[str, Facts] = {}
    for place, name in enumerate(keys):
        if name is None:
            continue
        if name in found:
            raise CatalogError(f"{uri}: the key {name!r} stands twice in column {key!r}; keep one row an image")
        found[name] = Facts(tuple(column[place] for column in values), as_mpp(mpps[place], f"{uri}: {name}"))
    return found


def match(
    uris: Iterable[str], source: str, facts: Mapping[str, Facts], where: str
) -> tuple[dict[str, Facts], list[str]]:
    """Join image files with a table's rows.

    Args:
        uris: the files.
        source: the folder they come from.
        facts: the table's rows by key: a path relative to the source or to the table's own folder, a
            base name, or a stem; the first of these that there is counts.
        where: the table's URI.

    Returns:
        The facts of each file that has a row, and the keys that no file has.

    Raises:
        CatalogError: one row would serve two files.
    """
    joined: dict[str, Facts] = {}
    users: dict[str, str] = {}
    for uri in uris:
        name = PurePosixPath(uri).name
        paths = [uri.removeprefix(folder + "/") for folder in (source, where.rpartition("/")[0])]
        key = next((key for key in (*paths, name, PurePosixPath(name).stem) if key in facts), None)
        if key is None:
            continue
        if key in users:
            raise CatalogError(f"{where}: the key {key!r} fits both {users[key]} and {uri}; use paths as keys")
        users[key] = uri
        joined[uri] = facts[key]
    return joined, [key for key in facts if key not in users]


def as_text(value: Any) -> str | None:
    """A cell as a subgroup's value or a key: whole numbers without a point, empty cells as None."""
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def as_mpp(value: Any, where: str) -> float | None:
    """A cell as micrometres per pixel.

    Raises:
        CatalogError: it is neither empty nor a positive number.
    """
    if as_text(value) is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise CatalogError(f"{where}: mpp {value!r} is not a positive number; mend or empty the cell")
    return number


def _read_csv(text: str, uri: str) -> pa.Table:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(lines, [])
    repeated = [name for name in header if header.count(name) > 1]
    if not header or repeated:
        raise CatalogError(f"{uri}: {f'the column {repeated[0]!r} stands twice' if repeated else 'the table is empty'}")
    rows = []
    for row in lines:
        if row and len(row) != len(header):
            raise CatalogError(f"{uri}: line {lines.line_num} has {len(row)} cells, the header {len(header)}; mend it")
        if row:
            rows.append([cell or None for cell in row])
    columns = zip(*rows, strict=True) if rows else [[] for _ in header]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=header)
