"""How the chain's inner loops are compiled."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function on its first call, and keep the machine code beside the source for the next process.

    No ``fastmath``: reassociated or contracted float arithmetic would make the bytes depend on the
    processor. Division follows IEEE 754 rather than Python, whose check for zero would keep the loop
    from being vectorised. The lock of the interpreter is released while the function runs.

    Args:
        function: a function on arrays and numbers, in the part of Python that numba takes.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
