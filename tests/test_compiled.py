"""Compiled loops: IEEE 754's arithmetic, and machine code that is found again."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from medsynth.compiled import compiled


def test_division_by_zero_is_ieee_754_s() -> None:
    @compiled
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == float("inf")


LOOPS = """
from medsynth.compiled import compiled

@compiled
def doubled(value: int) -> int:
    return 2 * value
"""


def test_machine_code_is_found_by_what_the_sources_say_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "kept"))

    def found(folder: str, beside: str) -> bool:
        """Whether a function that lies there is called without being compiled."""
        path = tmp_path / folder / "loops.py"
        path.parent.mkdir()
        path.write_text(LOOPS)
        (path.parent / "beside.py").write_text(beside)
        spec = importlib.util.spec_from_file_location("loops", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.doubled(21) == 42
        return sum(module.doubled.stats.cache_hits.values()) == 1

    assert not found("here", "A = 1")
    assert found("there", "A = 1")
    assert not found("changed", "A = 2")
