"""Real photos that a top-up counts: a table's rows by the values that the recipe ``skin`` gives its own pictures."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from medsynth.catalog.metadata import require_columns
from medsynth.errors import CatalogError
from medsynth.recipes.camera import DEVICE
from medsynth.skin import pairs, tone
from medsynth.skin.pairs import PairsError, Row
from medsynth.spec import Axis, Range

CONDITION, TYPE, SIZE = "condition", "fitzpatrick", "size"

_JUDGED = (
    "skin types of the real table are clinical judgements, those of the corpus bins of the asked colour's angle: "
    "counts by one are topped up by the other"
)


def named(
    uri: str, table: pa.Table, axes: Mapping[str, Axis], sizes: Mapping[str, Range]
) -> tuple[pa.Table, list[str]]:
    """The values that real photos have on a spec's axes.

    Args:
        uri: of the table, for messages.
        table: what stands there.
        axes: the spec's; those of a picture.
        sizes: values of the axis ``size``: shares of the picture.

    Returns:
        A column an axis, without the photos that lack a value on one; and what a reader of the corpus should know:
        how many are left out and why, and what their skin types are.

    Raises:
        CatalogError: a column is missing or a cell wrong; the message names table, row and column.
    """
    _require(uri, table.column_names, axes)
    known = {axis: {value.casefold(): value for value in axes[axis].values} for axis in axes}
    photos: list[tuple[str, ...]] = []
    left_out: Counter[str] = Counter()
    try:
        for row in pairs.rows(uri, table, axes):
            told = {axis: _value(row, axis, sizes) for axis in axes}
            values = [value for value, _ in told.values() if value is not None]
            if len(values) < len(told):
                left_out[next(why for value, why in told.values() if value is None)] += 1
                continue
            for axis, value in zip(told, values, strict=True):
                pairs.one_spelling(row, axis, value, known[axis])
            photos.append(tuple(values))
    except PairsError as error:
        raise CatalogError(str(error)) from error
    columns = zip(*photos, strict=True) if photos else [() for _ in axes]
    notes = [f"{count} real images {why}: counted in no subgroup" for why, count in sorted(left_out.items())]
    if TYPE in axes:
        notes.append(_JUDGED)
    return pa.table([pa.array(column, pa.string()) for column in columns], names=list(axes)), notes


def _require(uri: str, names: Sequence[str], axes: Collection[str]) -> None:
    require_columns(uri, names, (axis for axis in axes if axis not in (SIZE, DEVICE)))
    if DEVICE in axes and DEVICE not in names:
        raise CatalogError(
            f"{uri}: no column {DEVICE!r}, and no photo tells which of these cameras took it; remove the axis "
            "device, and name one camera as skin.device, or none"
        )
    if SIZE in axes and SIZE not in names:
        for name in (*((pairs.BOX,) if pairs.BOX in names else pairs.CORNERS), *pairs.SIDES):
            if name not in names:
                raise CatalogError(
                    f"{uri}: no column {name!r}; the axis size is the share of the picture that the lesion's "
                    "box takes: add box (or x0, y0, x1, y1), width and height, or a column size"
                )


def _value(row: Row, axis: str, sizes: Mapping[str, Range]) -> tuple[str | None, str]:
    """A photo's value on an axis, and what to say of it where there is none."""
    if axis == TYPE:
        kind = row.fitzpatrick()
        return tone.TYPES[kind - 1] if kind else None, "have no skin type"
    if axis == SIZE and SIZE not in row.cells:
        box, picture = row.box(), row.size()
        if box is None or picture is None:
            return None, "have no box, width or height"
        share = (box.x1 - box.x0) * (box.y1 - box.y0) / min(picture) ** 2
        names = (name for name, size in sizes.items() if size.low <= share <= size.high)
        return next(names, None), "show a lesion between two sizes, or beyond them all"
    return row.text(axis), f"have no {axis}"
