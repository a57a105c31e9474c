"""The spec: what a user asks for, checked before anything is read or made.

Every settings model of the project derives from :class:`Settings` and is filled by :func:`parse`,
so that an unknown key, wherever it stands, is refused in one line with the nearest known one named.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from medsynth import storage
from medsynth.errors import NotFoundError, SpecError


class Settings(BaseModel):
    """Base of all settings models: frozen, no key is taken that is not named, and a truth value is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        wanted = str(cls.model_fields[info.field_name or ""].annotation)
        if (
            "bool" not in wanted
            and ("int" in wanted or "float" in wanted)
            and any(v is True or v is False for v in found)
        ):
            raise ValueError("write a number; YAML takes true, false, on, off, yes and no for truth values")
        return value


S = TypeVar("S", bound=Settings)

_MAX_SUBGROUPS = 1_000_000
_MAX_ROWS = 10**12


class Range(Settings):
    """A setting that is drawn anew for each sample: one number, or a uniform or log-uniform range.

    Written in YAML as ``3.5``, ``{uniform: [40, 90]}`` or ``{log_uniform: [100, 10000]}``.
    """

    low: float
    high: float
    logarithmic: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"low": value, "high": value}
        if isinstance(value, dict) and len(value) == 1:
            kind, ends = next(iter(value.items()))
            if kind in ("uniform", "log_uniform") and isinstance(ends, list) and len(ends) == 2:
                return {"low": ends[0], "high": ends[1], "logarithmic": kind == "log_uniform"}
        if isinstance(value, dict) and set(value) <= {"low", "high", "logarithmic"}:
            return value
        raise ValueError("write a number, {uniform: [low, high]} or {log_uniform: [low, high]}")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the range's low end {self.low:g} lies above its high end {self.high:g}")
        if self.logarithmic and self.low <= 0:
            raise ValueError("a log_uniform range must start above 0")
        return self

    def at(self, fraction: float) -> float:
        """The value at a fraction of the range.

        Args:
            fraction: in [0, 1), uniform for a draw.

        Returns:
            The value, rounded to 6 significant digits: the C library's exp and log may differ in
            their last bit from processor to processor, and this number decides bytes.
        """
        if self.low == self.high:
            return self.low
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + fraction * (high - low))
        else:
            value = self.low + fraction * (self.high - self.low)
        return float(f"{value:.6g}")


class Axis(Settings):
    """The values of one axis in the order written, each with its share."""

    weights: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, list):
            names = [_axis_value(item) for item in value]
            repeated = [name for name in names if names.count(name) > 1]
            if repeated:
                raise ValueError(f"the value {repeated[0]!r} stands twice")
            return {"weights": dict.fromkeys(names, 1.0)}
        if isinstance(value, dict) and set(value) == {"from", "to"}:
            first, last = value["from"], value["to"]
            if not (type(first) is int and type(last) is int and first <= last < first + _MAX_SUBGROUPS):
                raise ValueError("from and to must be whole numbers, from no greater than to")
            return {"weights": {str(number): 1.0 for number in range(first, last + 1)}}
        if isinstance(value, dict) and set(value) == {"weights"} and isinstance(value["weights"], dict):
            return value
        if isinstance(value, dict) and not {"from", "to"} & set(value):
            if len({_axis_value(key) for key in value}) < len(value):
                raise ValueError("a value stands twice, once as text and once as a number")
            return {"weights": {_axis_value(key): weight for key, weight in value.items()}}
        raise ValueError("write a list of values, {value: weight, ...} or {from: 0, to: 29}")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.weights:
            raise ValueError("the axis has no values")
        negative = [name for name, weight in self.weights.items() if weight < 0]
        if negative:
            raise ValueError(f"the weight of {negative[0]!r} is negative")
        if not any(self.weights.values()):
            raise ValueError("all weights are zero")
        return self

    @property
    def values(self) -> tuple[str, ...]:
        """The values in the order written."""
        return tuple(self.weights)

    @property
    def weighted(self) -> bool:
        """Whether the values have unequal shares."""
        return len(set(self.weights.values())) > 1


class TopUp(Settings):
    """Fill real and synthetic images together to the same number in every subgroup."""

    real: str
    """URI of a table (CSV or Parquet) of the real images, one row an image, with the axes as columns."""
    to: int = Field(ge=1, le=_MAX_ROWS)
    """Real plus synthetic images in each subgroup."""


class Balance(Settings):
    """What the corpus is balanced over, and how much of it is asked for."""

    axes: dict[Annotated[str, Field(min_length=1)], Axis] = Field(min_length=1)
    total: int | None = Field(default=None, ge=1, le=_MAX_ROWS)
    """Rows in all, shared out by the weights, rounded by largest remainder."""
    per_subgroup: int | None = Field(default=None, ge=1, le=_MAX_ROWS)
    """Rows in each subgroup."""
    top_up: TopUp | None = None
    max_reuse: int = Field(default=64, ge=1)
    """Outputs of one source tile at the most."""
    on_shortfall: Literal["error", "report"] = "error"
    """What to do where the catalog cannot fill a quota under ``max_reuse``."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        named = [name for name in ("total", "per_subgroup", "top_up") if getattr(self, name) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "none"
            raise ValueError(f"name exactly one of total, per_subgroup and top_up (found {found})")
        weighted = [name for name, axis in self.axes.items() if axis.weighted]
        if weighted and self.total is None:
            raise ValueError(f"the weights of axis {weighted[0]!r} need total; {named[0]} asks for equal numbers")
        subgroups = math.prod(len(axis.values) for axis in self.axes.values())
        if subgroups > _MAX_SUBGROUPS:
            raise ValueError(f"the axes make {subgroups:,} subgroups, more than {_MAX_SUBGROUPS:,}; take fewer values")
        return self


class Output(Settings):
    """How the corpus is laid out."""

    rows_per_shard: int = Field(default=1024, ge=1, le=100_000)
    image_format: Literal["jpeg", "png"] = "jpeg"


class Index(Settings):
    """How a source that is not yet a catalog is indexed on the fly; the same as jobs/index.py's flags."""

    metadata: str | None = None
    key: str | None = None
    subgroups: tuple[str, ...] = ()
    mpp: float | None = Field(default=None, gt=0)
    tile_size: int = Field(default=256, ge=16, le=4096)
    stride: int | None = Field(default=None, ge=1)
    margin: int = Field(default=0, ge=0, le=1024)
    min_sharpness: float | None = Field(default=None, ge=0)


class Spec(Settings):
    """One order for one corpus."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    recipe: Literal["out_of_focus", "skin"]
    seed: int = Field(ge=0, lt=2**63)
    source: str | None = None
    """A catalog, or images to index on the fly; a relative path counts from the working directory."""
    index: Index = Index()
    balance: Balance
    output: Output = Output()
    out_of_focus: dict[str, Any] = {}
    """The recipe's own settings; the recipe checks them."""
    skin: dict[str, Any] = {}
    """The recipe's own settings; the recipe checks them."""

    @field_validator("index", "output", "out_of_focus", "skin", mode="before")
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        return {} if value is None else value


def parse(model: type[S], data: Any, where: str) -> S:
    """Fill a settings model, or say in one line what is wrong.

    Args:
        model: the settings model.
        data: what YAML gave.
        where: the file or section, for the message.

    Raises:
        SpecError: one line that names the key and the remedy.
    """
    if not isinstance(data, dict):
        found = {type(None): "nothing", list: "a list", str: "text"}.get(type(data), repr(data))
        raise SpecError(f"{where}: expected keys and values, found {found}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{where}: {_one_line(model, error)}") from error


def layered(model: type[S], base: Mapping[str, Any], uri: str | None, flags: Mapping[str, Any], where: str) -> S:
    """The settings of a preset, with those of a file and then of flags in place of its own.

    Args:
        model: the settings model.
        base: the preset's.
        uri: of a YAML file, or None.
        flags: settings by name.
        where: the preset's name, for messages.

    Raises:
        SpecError: a setting is wrong; the message names it.
        StorageError: the file cannot be read.
    """
    own = load_yaml(uri) if uri else {}
    if not isinstance(own, dict):
        return parse(model, own, str(uri))  # which says what is wrong
    return parse(model, merged(merged(base, own), flags), uri or where)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A table of settings with others in place of its own, table by table.

    Example:
        >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 4}})
        {'a': 1, 'b': {'c': 2, 'd': 4}}
    """
    both = [name for name in over if isinstance(base.get(name), Mapping) and isinstance(over[name], Mapping)]
    return {**base, **over, **{name: merged(base[name], over[name]) for name in both}}


def load(uri: str) -> Spec:
    """Read and check a spec.

    Args:
        uri: a YAML file's path or URI.

    Raises:
        SpecError: it is no YAML, has a key twice, or asks for what cannot be.
        StorageError: it cannot be read.
    """
    return parse(Spec, load_yaml(uri), uri)


def load_yaml(uri: str) -> Any:
    """Read a YAML file, refusing repeated keys.

    Raises:
        SpecError: not YAML, or a key stands twice.
        StorageError: it cannot be read.
    """
    try:
        text = storage.read(uri).decode()
    except NotFoundError as error:
        raise SpecError(f"{uri}: no such file; name an existing YAML file") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{uri}: not a text file; name a YAML file") from error
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise SpecError(f"{uri}{place}: {getattr(error, 'problem', None) or 'not YAML'}; mend the YAML") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                continue  # SafeLoader itself refuses an unhashable key
            if key in seen:
                problem = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _axis_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"the value {value!r} is neither text nor a whole number; put it in quotes")
    if value == "":
        raise ValueError("a value is empty; give it a name")
    return str(value)


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        nearest = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key {path!r}; {hint}"
    if first["type"] == "missing":
        return f"the key {path!r} is missing; add it"
    got = first["input"]
    shown = "" if isinstance(got, dict | list) else f" (found {got!r})"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        message = "expected keys and values"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _known_keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is not None:
            model = _settings_in(field.annotation)
        # else: a dict's key or a list's place: the model below it stays the same
    return list(getattr(model, "model_fields", {}))


def _settings_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _settings_in(argument)
        if found is not None:
            return found
    return None
