"""How inner loops are compiled."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config
from numba.core.caching import UserWideCacheLocator
from numba.misc.appdirs import user_cache_dir

F = TypeVar("F", bound=Callable[..., Any])
_config: Any = config


class BySource(UserWideCacheLocator):
    """Where numba keeps machine code: by what a package's source files hold, and not, as by default, by where they lie.

    Each ``ray job submit`` puts them into a folder of its own, where each of its workers would compile for some ten
    seconds what the last job's had compiled. The folder's other files count too, since what a function takes from them
    is compiled into it.
    """

    def __init__(self, py_func: object, py_file: str) -> None:
        super().__init__(py_func, py_file)  # type: ignore[no-untyped-call]
        root = _config.CACHE_DIR or user_cache_dir("numba", appauthor=False)  # type: ignore[no-untyped-call]
        self._cache_path = str(Path(root, f"medsynth-{_digest(Path(py_file).parent)}"))


@cache
def _digest(folder: Path) -> str:
    state = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(folder.glob("*.py")):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()[:32]


def compiled(function: F) -> F:
    """Compile a function on its first call, and keep the machine code for the next process (:class:`BySource`).

    No ``fastmath``: reassociated or contracted float arithmetic would make the bytes depend on the
    processor. Division follows IEEE 754 rather than Python, whose check for zero would keep the loop
    from being vectorised. The lock of the interpreter is released while the function runs. Write plain
    loops: with an expression or an assignment of whole arrays numba compiles the text of its errors of
    shape too, for some four seconds.

    Args:
        function: a function on arrays and numbers, in the part of Python that numba takes.
    """
    others = _config.CACHE_LOCATOR_CLASSES
    # Where the user's folder cannot be written, beside the source.
    _config.CACHE_LOCATOR_CLASSES = others or f"{__name__}.{BySource.__name__},InTreeCacheLocator,UserWideCacheLocator"
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        _config.CACHE_LOCATOR_CLASSES = others
