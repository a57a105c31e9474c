"""The kind of processor that a network's bytes depend on, and the settings under which they depend on nothing else."""

import functools
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from medsynth.errors import UserError


def kind(gpu: str | None, bf16: bool = False) -> dict[str, str]:
    """The kind of processor to draw on, for the fingerprint.

    Args:
        gpu: the name of a GPU, as PyTorch tells it; None for this machine's CPU.
        bf16: whether a network's products are reckoned in bf16.

    Returns:
        ``torch``, its version, and ``gpu``, or ``cpu``, the widest instructions that it uses, and ``maker``, the
        CPU's, by whom MKL picks its ways to reckon, with ``bf16``, the instructions that it has for that, where it
        matters.
    """
    if gpu is not None:
        return {"gpu": gpu, "torch": torch.__version__}
    found = {"cpu": torch.backends.cpu.get_cpu_capability(), "maker": _maker(), "torch": torch.__version__}
    if bf16:
        can = torch.cpu.get_capabilities()
        found["bf16"] = next((name for name in ("amx_bf16", "avx512_bf16") if can.get(name)), "none")
    return found


def check(wanted: Mapping[str, str], gpu: str | None) -> None:
    """Refuse to draw on a processor of another kind.

    Args:
        wanted: what :func:`kind` said where the corpus was begun.
        gpu: the name of the GPU to draw on; None for the CPU.

    Raises:
        UserError: this machine's is another.
    """
    if gpu is not None and not torch.cuda.is_available():
        raise UserError(f"skin.gpu: asks for {gpu!r}, and this machine has no GPU; run it where there is one")
    here = kind(torch.cuda.get_device_name() if gpu is not None else None, "bf16" in wanted)
    for key, value in wanted.items():
        if here.get(key) != value:
            raise UserError(
                f"the pictures depend on the processor: {key} is {here.get(key)!r} here, and {value!r} was asked for; "
                "use machines of one kind (for a GPU, skin.gpu names it)"
            )


@contextmanager
def settled() -> Iterator[None]:
    """One thread, no TF32, and of several ways to reckon always the same one."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.set_num_threads(1)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@functools.cache
def _maker() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    told = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "vendor_id")
    return next(told, platform.machine())
