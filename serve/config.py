"""A strict check of config.yaml, since Serve takes unknown keys in silence: ``python -m serve.config [FILE]``."""

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from medsynth import spec
from medsynth.errors import SpecError
from serve.settings import AppSettings

DEFAULT = Path(__file__).with_name("config.yaml")
IMPORT_PATH = "serve.app:app"
DEPLOYMENTS = ("Ingress", "FocusScorer", "SkinGenerator", "Gatherer")
_KNOWN_BELOW: dict[str, type[BaseModel]] = {"autoscaling_config": AutoscalingConfig}


def check(uri: str) -> ServeDeploySchema:
    """Read a configuration, refusing whatever Serve or the application does not know.

    Args:
        uri: of the YAML file.

    Raises:
        SpecError: a key is unknown, a value is wrong, or a deployment does not exist.
    """
    found = spec.load_yaml(uri)
    for problem in _unknown(ServeDeploySchema, found, ""):
        raise SpecError(f"{uri}: {problem}")
    try:
        config = ServeDeploySchema.model_validate(found)
        for application in config.applications:
            for deployment in application.deployments:  # Serve itself looks at these only when it deploys
                if isinstance(deployment.autoscaling_config, dict):
                    AutoscalingConfig.model_validate(deployment.autoscaling_config)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{uri}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for application in config.applications:
        if application.import_path != IMPORT_PATH:
            raise SpecError(f"{uri}: import_path: {application.import_path!r}; the application is {IMPORT_PATH}")
        spec.parse(AppSettings, application.args, f"{uri}: args")
        for deployment in application.deployments:
            if deployment.name not in DEPLOYMENTS:
                nearest = difflib.get_close_matches(deployment.name, DEPLOYMENTS, n=1, cutoff=0)
                raise SpecError(f"{uri}: no deployment {deployment.name!r}; did you mean {nearest[0]!r}?")
    return config


def _unknown(model: type[BaseModel], found: Any, path: str) -> Iterator[str]:
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        here = f"{path}{key}"
        field = model.model_fields.get(str(key))
        if field is None:
            nearest = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
            yield f"unknown key {here!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
            continue
        inner = _KNOWN_BELOW.get(str(key)) or _model_in(field.annotation)
        if inner is not None:
            for place, one in enumerate(value if isinstance(value, list) else [value]):
                yield from _unknown(inner, one, f"{here}.{place}." if isinstance(value, list) else f"{here}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)


if __name__ == "__main__":
    try:
        check(sys.argv[1] if len(sys.argv) > 1 else str(DEFAULT))
    except SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("every key is known")
