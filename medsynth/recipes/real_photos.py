"""Real photos that a top-up counts: a table's rows by the values that the recipe ``skin`` gives its own pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from medsynth.catalog.metadata import read_table, require_columns
from medsynth.errors import CatalogError, SpecError
from medsynth.skin import pairs, tone
from medsynth.skin.pairs import PairsError, Row
from medsynth.spec import Axis, Range, Spec

CONDITION, TYPE, SIZE, DEVICE = "condition", "fitzpatrick", "size", "device"

_JUDGED = (
    "skin types of the real table are clinical judgements, those of the corpus bins of the asked colour's angle: "
    "counts by one are topped up by the other"
)


@dataclass(frozen=True)
class RealPhotos:
    """A table of real photos, and how it is counted."""

    uri: str
    axes: Mapping[str, Axis]
    """Those of the spec that a picture has."""
    sizes: Mapping[str, Range]
    """Values of the axis ``size``: shares of the picture."""
    notes: tuple[str, ...] = ()
    """What a reader of the corpus should know of it."""

    @classmethod
    def of(cls, spec: Spec, sizes: Mapping[str, Range]) -> "RealPhotos | None":
        """The table that a spec's top-up names, looked through; None where it names none.

        Args:
            spec: the order.
            sizes: values of the axis ``size``.

        Raises:
            SpecError: it cannot be counted; the message names table, row and column.
        """
        if spec.balance.top_up is None:
            return None
        axes = {axis: item for axis, item in spec.balance.axes.items() if axis in (CONDITION, TYPE, SIZE, DEVICE)}
        found = cls(spec.balance.top_up.real, axes, sizes)
        try:
            _, left_out = found._told(read_table(found.uri))
        except CatalogError as error:
            raise SpecError(f"balance.top_up.real: {error}") from error
        notes = [f"{count} real images {why}: counted in no subgroup" for why, count in sorted(left_out.items())]
        return replace(found, notes=(*notes, *([_JUDGED] if TYPE in found.axes else [])))

    def named(self, table: pa.Table) -> pa.Table:
        """The photos' values on the axes; those that lack one are left out, and :attr:`notes` tell how many.

        Args:
            table: what stands at :attr:`uri`.

        Raises:
            CatalogError: a column is missing or a cell wrong; the message names it.
        """
        photos, _ = self._told(table)
        columns = zip(*photos, strict=True) if photos else [() for _ in self.axes]
        return pa.table([pa.array(column, pa.string()) for column in columns], names=list(self.axes))

    def _told(self, table: pa.Table) -> tuple[list[tuple[str, ...]], Counter[str]]:
        self._require(table.column_names)
        known = {axis: {value.casefold(): value for value in self.axes[axis].values} for axis in self.axes}
        photos: list[tuple[str, ...]] = []
        left_out: Counter[str] = Counter()
        try:
            for row in pairs.rows(self.uri, table, self.axes):
                told = {axis: self._value(row, axis) for axis in self.axes}
                values = [value for value, _ in told.values() if value is not None]
                if len(values) < len(told):
                    left_out[next(why for value, why in told.values() if value is None)] += 1
                    continue
                for axis, value in zip(told, values, strict=True):
                    pairs.one_spelling(row, axis, value, known[axis])
                photos.append(tuple(values))
        except PairsError as error:
            raise CatalogError(str(error)) from error
        return photos, left_out

    def _require(self, names: Sequence[str]) -> None:
        require_columns(self.uri, names, (axis for axis in self.axes if axis not in (SIZE, DEVICE)))
        if DEVICE in self.axes and DEVICE not in names:
            raise CatalogError(
                f"{self.uri}: no column {DEVICE!r}, and no photo tells which of these cameras took it; remove the axis "
                "device, and name one camera as skin.device, or none"
            )
        if SIZE in self.axes and SIZE not in names:
            for name in (*((pairs.BOX,) if pairs.BOX in names else pairs.CORNERS), *pairs.SIDES):
                if name not in names:
                    raise CatalogError(
                        f"{self.uri}: no column {name!r}; the axis size is the share of the picture that the lesion's "
                        "box takes: add box (or x0, y0, x1, y1), width and height, or a column size"
                    )

    def _value(self, row: Row, axis: str) -> tuple[str | None, str]:
        """A photo's value on an axis, and what to say of it where there is none."""
        if axis == TYPE:
            kind = row.fitzpatrick()
            return tone.TYPES[kind - 1] if kind else None, "have no skin type"
        if axis == SIZE and SIZE not in row.cells:
            box, picture = row.box(), row.size()
            if box is None or picture is None:
                return None, "have no box, width or height"
            share = (box.x1 - box.x0) * (box.y1 - box.y0) / min(picture) ** 2
            names = (name for name, size in self.sizes.items() if size.low <= share <= size.high)
            return next(names, None), "show a lesion between two sizes, or beyond them all"
        return row.text(axis), f"have no {axis}"
