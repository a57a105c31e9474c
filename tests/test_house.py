"""The house rules that import-linter does not see: scripts that are no package, and what each of them may do."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parent.parent
MAY_USE_RAY = ("medsynth/distributed/", "jobs/", "serve/")
SOURCES = sorted(
    path.relative_to(REPO).as_posix()
    for folder in ("medsynth", "jobs", "serve")
    for path in (REPO / folder).rglob("*.py")
    if path.is_file()
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            yield node.module or ""
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield str(first.value)


def top(module: str) -> str:
    return module.split(".", 1)[0]


def test_the_sources_are_found() -> None:
    assert {"medsynth/errors.py", "medsynth/distributed/session.py", "jobs/generate.py"} <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_imports_keep_to_the_house(source: str) -> None:
    modules = set(imported(REPO / source))
    if not source.startswith(MAY_USE_RAY):
        assert "ray" not in map(top, modules)
    if source.startswith("medsynth/"):
        assert not {"jobs", "serve", "tests"} & set(map(top, modules))
    assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(map(top, modules)), "nothing is kept pickled"


def test_only_the_session_starts_ray() -> None:
    starts = [
        source
        for source in SOURCES
        for node in ast.walk(ast.parse((REPO / source).read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "init" and ast.unparse(node.value) == "ray"
    ]
    assert set(starts) == {"medsynth/distributed/session.py"}


def test_a_process_loads_neither_ray_nor_torch_where_it_needs_none() -> None:
    # torch takes seconds, and a quarter of a gigabyte: those that read and render would wait for it.
    names = ["recipes.out_of_focus", "corpus.reader", "corpus.report", "catalog.table", "defocus.chain", "verify"]
    names += ["plan", "focus.feed", "skin.samples", "distributed.board", "distributed.feed"]
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module("medsynth." + name)
assert not {{"ray", "torch"}} & set(sys.modules)
import medsynth.distributed.loop
assert "ray" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    declared = {name.split("[")[0].split("=")[0].split(">")[0].lower() for name in project["dependencies"]}
    named_otherwise = {"PIL": "pillow", "yaml": "pyyaml", "skimage": "scikit-image", "botocore": "boto3"}
    named_otherwise |= {"cv2": "opencv-python-headless", "openslide": "openslide-python"}
    named_otherwise |= {"prometheus_client": "prometheus-client", "grpc": "grpcio"}
    named_otherwise["python_multipart"] = "python-multipart"
    ours = {"medsynth", "jobs", "serve"} | {Path(source).stem for source in SOURCES if source.startswith("jobs/")}
    for source in SOURCES:
        for module in set(map(top, imported(REPO / source))) - sys.stdlib_module_names - ours:
            assert named_otherwise.get(module, module).lower() in declared, f"{source} imports {module}"


def test_every_dependency_is_pinned_once() -> None:
    pins = [line.split("==") for line in (REPO / "constraints.txt").read_text().splitlines() if line[:1].isalnum()]
    names = [pin[0].lower().replace("_", "-") for pin in pins]
    assert all(len(pin) == 2 and "+" not in pin[1] for pin in pins), "PyPI has no local versions"
    assert len(set(names)) == len(names)
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    for wanted in project["dependencies"] + project["optional-dependencies"]["dev"]:
        assert wanted.split("[")[0].split("=")[0].split(">")[0].lower().replace("_", "-") in names


def test_all_that_the_dependencies_draw_in_is_pinned_as_installed() -> None:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines) if pin}
    waiting = [("medsynth", "dev")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            try:
                version = metadata.version(wanted.name)
            except metadata.PackageNotFoundError:
                assert wanted.name.startswith(("nvidia-", "cuda-", "triton")), f"{wanted} of {name} is not installed"
                continue
            pin = pins.get(canonicalize_name(wanted.name))
            assert pin == version.partition("+")[0], f"{wanted.name} {version}, which {name} wants, is pinned to {pin}"
            new = {(wanted.name, key) for key in (*wanted.extras, "")} - seen
            seen |= new
            waiting += new
    assert len({name for name, _ in seen}) > 100
