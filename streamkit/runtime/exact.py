"""Exact sums of floats: no order of additions, no cut of the input and no spelling changes the result.

Every finite double is an integer times 2**-1074. A sum is kept as that integer, exactly, and rounded once, at the
end, to the nearest double (ties to even), as `math.fsum` does; so is a mean, as one exact quotient. A sum beyond
the largest double is an infinity. Infinities and NaN are kept beside it: they add up as IEEE 754 says in any order.

A whole column is split into limbs of 32 bits first (`limbs_of`), which are summed as 64-bit integers by group. So are
its squares (`square_limbs_of`), which are multiples of 2**-2148.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LIMB_BITS",
    "SCALE_BITS",
    "limbs_of",
    "packed",
    "quotient",
    "root",
    "rounded",
    "scaled",
    "square_limbs_of",
    "total_of_limbs",
    "unpacked",
]

LIMB_BITS: Final = 32

SCALE_BITS: Final = 1074
"""Every finite float is a multiple of 2**-1074."""

_FRACTION_BITS: Final = 52
_HALF_BITS: Final = 27
_POSITION_MAX: Final = 1 << 12
_LIMB: Final = (1 << LIMB_BITS) - 1
_ZEROS_BYTES: Final = 2


def scaled(value: float) -> int:
    """Return a finite float as an integer multiple of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (SCALE_BITS + 1 - denominator.bit_length())


def rounded(total: int, divisor: int = 1) -> float:
    """Return `total * 2**-1074 / divisor` as the nearest float, infinity if it is beyond the largest one."""
    return quotient(total, divisor << SCALE_BITS)


def quotient(numerator: int, denominator: int) -> float:
    """Return a fraction as the nearest float, infinity if it is beyond the largest one; `denominator` > 0."""
    try:
        # Python's true division of integers rounds once and correctly, subnormal results included.
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def root(numerator: int, denominator: int) -> float:
    """Return the square root of a fraction >= 0 as the nearest float, infinity if it is beyond the largest one."""
    # The root of the integer has 66 bits or more, and one more that says whether anything was cut off: what is cut
    # lies beyond every bit that decides how a float is rounded.
    shift = max(0, (denominator.bit_length() - numerator.bit_length() + 133) // 2)
    shifted, rest = divmod(numerator << (2 * shift), denominator)
    whole = math.isqrt(shifted)
    inexact = rest != 0 or whole * whole != shifted
    return quotient(whole << 1 | inexact, 1 << (shift + 1))


def packed(total: int) -> bytes:
    """Return an integer as bytes, the same for equal integers: how many zero bytes end it, and the rest, signed."""
    if total == 0:
        return b""
    zeros = ((total & -total).bit_length() - 1) >> 3
    rest = total >> (8 * zeros)
    return zeros.to_bytes(_ZEROS_BYTES, "big") + rest.to_bytes((rest.bit_length() >> 3) + 1, "big", signed=True)


def unpacked(data: bytes) -> int:
    """Return the integer that `packed` made bytes of."""
    zeros = int.from_bytes(data[:_ZEROS_BYTES], "big")
    return int.from_bytes(data[_ZEROS_BYTES:], "big", signed=True) << (8 * zeros)


def limbs_of(values: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.int64]]:
    """Split finite floats into signed limbs.

    Returns:
        A bit position `base`, and limbs of the shape (limb, row): the scaled integer of a row is the sum of
        `limbs[i] * 2**(base + 32 * i)`. Sums of up to 2**31 rows of one limb fit into 64 bits.
    """
    mantissas, positions = _taken_apart(values)
    base, limbs = _laid_out([(mantissas, positions)])
    return base, limbs * np.where(values.view(np.int64) < 0, -1, 1)


def square_limbs_of(values: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.int64]]:
    """Split the squares of finite floats into limbs, as `limbs_of` does, in multiples of 2**-2148.

    Sums of up to 2**29 rows of one limb fit into 64 bits.
    """
    mantissas, positions = _taken_apart(values)
    # Both halves of a mantissa have 27 bits at most, so each product has 54.
    high, low = mantissas >> _HALF_BITS, mantissas & ((1 << _HALF_BITS) - 1)
    return _laid_out(
        [
            (low * low, 2 * positions),
            (2 * high * low, 2 * positions + _HALF_BITS),
            (high * high, 2 * positions + 2 * _HALF_BITS),
        ]
    )


def _taken_apart(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return mantissas (53 bits, >= 0) and their bit positions in multiples of 2**-1074."""
    bits = values.view(np.int64)
    exponents = (bits >> _FRACTION_BITS) & 0x7FF
    mantissas = bits & ((1 << _FRACTION_BITS) - 1)
    mantissas |= (exponents > 0).astype(np.int64) << _FRACTION_BITS
    return mantissas, np.maximum(exponents, 1) - 1


def _laid_out(
    addends: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> tuple[int, npt.NDArray[np.int64]]:
    """Return a base and the limbs of the sum, row by row, of numbers (54 bits at most, >= 0) at bit positions."""
    used = [numbers != 0 for numbers, _ in addends]
    base = min(
        int(positions.min(where=some, initial=_POSITION_MAX))
        for (_, positions), some in zip(addends, used, strict=True)
    )
    distances = [np.where(some, positions - base, 0) for (_, positions), some in zip(addends, used, strict=True)]
    row_count = len(addends[0][0])
    limbs = np.zeros((max(int(one.max(initial=0)) for one in distances) // LIMB_BITS + 3, row_count), dtype=np.int64)
    rows = np.arange(row_count)
    for (numbers, _), distance in zip(addends, distances, strict=True):
        indices, shifts = distance >> 5, distance & 31
        low = (numbers & _LIMB) << shifts
        middle = ((numbers >> LIMB_BITS) << shifts) + (low >> LIMB_BITS)
        limbs[indices, rows] += low & _LIMB
        limbs[indices + 1, rows] += middle & _LIMB
        limbs[indices + 2, rows] += middle >> LIMB_BITS
    return base, limbs


def total_of_limbs(base: int, limbs: Sequence[Iterable[int]]) -> list[int]:
    """Return the scaled integer of each row of summed limbs, which are given limb by limb."""
    totals: list[int] = []
    for row in zip(*reversed(limbs), strict=True):
        total = 0
        for limb in row:
            total = (total << LIMB_BITS) + limb
        totals.append(total << base)
    return totals
