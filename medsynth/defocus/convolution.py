"""The sums behind every blur, in vectors of 16-bit integers.

Eight 13-bit values are added in 16 bits before the sum is widened to 32, so that a vector
instruction adds twice as many pixels as it could in 32 bits. LLVM does not find this by itself: it
takes its vectors as long as the widest number in a loop allows, which gives half of the speed. So
the inner loop is written in LLVM's own language, for vectors of 128 pixels, which LLVM cuts to
what the processor has. All of it is whole numbers but the final scaling, one multiplication and
one addition in single floats; the result is the same on every processor.
"""

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from medsynth.compiled import compiled

LANES = 128
"""Values worked on at once; the narrowest output that :func:`convolve` takes."""

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_V16, _V32 = ir.VectorType(_I16, LANES), ir.VectorType(_I32, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_variable = cast(Any, cgutils.alloca_once_value)


@compiled
def convolve(
    light: NDArray[np.uint16],
    reach: int,
    channels: int,
    full: int,
    runs: NDArray[np.int64],
    orbit_weights: NDArray[np.int32],
    orbits: NDArray[np.int64],
    scale: np.float32,
    out: NDArray[np.uint16],
) -> None:
    """Convolve with a kernel of runs and orbits; see :class:`medsynth.defocus.bokeh.Kernel` for these.

    Args:
        light: (H + 2 reach, W + 2 reach * channels) uint16, contiguous, at most 13 bits.
        reach: of the kernel.
        channels: interleaved channels.
        full: weight of the pixels in runs.
        runs: half length of the run in each column.
        orbit_weights: weight of each orbit.
        orbits: (orbits, 8, 2), (dy, dx) of each place.
        scale: what the weighted sums are multiplied by.
        out: (H, W) uint16, contiguous, W >= LANES; filled.
    """
    height, width = out.shape
    stride = light.shape[1]
    # Where, from the window's top left corner, pixels enter and leave the runs; in fours, since four
    # of each fit 16 bits. The places left over enter and leave at once, which changes nothing.
    enter = np.zeros(len(runs) + 3, dtype=np.int64)
    leave = np.zeros(len(runs) + 3, dtype=np.int64)
    sums = np.zeros(width, dtype=np.int32)
    columns = 0
    for column in range(len(runs)):
        half, left = runs[column], column * channels
        if half >= 0:
            enter[columns] = (reach + half) * stride + left
            leave[columns] = (reach - half - 1) * stride + left
            columns += 1
            for y in range(reach - half, reach + half + 1):
                row = light[y, left : left + width]
                for x in range(width):
                    sums[x] += row[x]
    places = np.empty(orbits.shape[:2], dtype=np.int64)
    for orbit in range(orbits.shape[0]):
        for place in range(orbits.shape[1]):
            dy, dx = orbits[orbit, place, 0], orbits[orbit, place, 1]
            places[orbit, place] = (dy + reach) * stride + (dx + reach) * channels
    block = np.empty(LANES, dtype=np.int32)
    for k in range((width + LANES - 1) // LANES):
        # The last block may overlap the one before it: both compute the same there.
        left = min(k * LANES, width - LANES)
        for x in range(LANES):
            block[x] = sums[left + x]
        for y in range(height):
            _block(
                light.ctypes.data + 2 * (y * stride + left),
                enter.ctypes.data,
                leave.ctypes.data,
                (columns + 3) // 4 if y > 0 else 0,
                block.ctypes.data,
                full,
                places.ctypes.data,
                orbit_weights.ctypes.data,
                orbits.shape[0],
                scale,
                out.ctypes.data + 2 * (y * width + left),
            )


def _emit_block(
    context: Any,
    source: Any,
    enter: Any,
    leave: Any,
    fours: Any,
    sums: Any,
    full: Any,
    places: Any,
    weights: Any,
    orbits: Any,
    scale: Any,
    out: Any,
) -> Any:
    """One row of one block; the arguments but counts and numbers are addresses, and in terms of numpy it does this.

    for four in range(fours): sums += sum(source[enter[four]]) - sum(source[leave[four]])
    total = full * sums
    for orbit in range(orbits): total += weights[orbit] * sum(source[places[orbit]])
    out[:] = total * scale + 0.5
    """
    whole = types.intp
    signature = types.void(whole, whole, whole, whole, whole, whole, whole, whole, whole, types.float32, whole)

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, enter, leave, fours, sums, full, places, weights, orbits, scale, out = arguments
        start = builder.inttoptr(source, _I16.as_pointer())

        def splat(value: Any, kind: Any) -> Any:
            single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
            zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
            return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)

        def pixels(table: Any, index: Any) -> Any:
            address = builder.inttoptr(table, _I64.as_pointer())
            offset = builder.load(builder.gep(address, [index]))
            return builder.load(builder.bitcast(builder.gep(start, [offset]), _V16.as_pointer()), align=2)

        def added(table: Any, first: Any, count: int) -> Any:
            total = pixels(table, first)
            for place in range(1, count):
                total = builder.add(total, pixels(table, builder.add(first, ir.Constant(_I64, place))))
            return total

        kept = builder.inttoptr(sums, _V32.as_pointer())
        running = _variable(builder, builder.load(kept, align=4))
        with cgutils.for_range(builder, fours) as loop:
            first = builder.mul(loop.index, ir.Constant(_I64, 4))
            change = builder.sub(added(enter, first, 4), added(leave, first, 4))
            builder.store(builder.add(builder.load(running), builder.sext(change, _V32)), running)
        builder.store(builder.load(running), kept, align=4)
        by = splat(builder.trunc(full, _I32), _V32)
        total = _variable(builder, builder.mul(builder.load(running), by))
        with cgutils.for_range(builder, orbits) as loop:
            eight = added(places, builder.mul(loop.index, ir.Constant(_I64, 8)), 8)
            weight = builder.load(builder.gep(builder.inttoptr(weights, _I32.as_pointer()), [loop.index]))
            product = builder.mul(builder.zext(eight, _V32), splat(weight, _V32))
            builder.store(builder.add(builder.load(total), product), total)
        scaled = builder.fmul(builder.sitofp(builder.load(total), _FLOATS), splat(scale, _FLOATS))
        rounded = builder.fptosi(builder.fadd(scaled, ir.Constant(_FLOATS, [0.5] * LANES)), _V32)
        builder.store(builder.trunc(rounded, _V16), builder.inttoptr(out, _V16.as_pointer()), align=2)
        return target.get_dummy_value()

    return signature, generate


_block = cast(Any, intrinsic(_emit_block))
