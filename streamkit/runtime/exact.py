"""Exact sums of floats: no order of additions, no cut of the input and no spelling changes the result.

Every finite double is an integer times 2**-1074. A sum is kept as that integer, exactly, and rounded once, at the
end, to the nearest double (ties to even), as `math.fsum` does; so is a mean, as one exact quotient. A sum beyond
the largest double is an infinity. Infinities and NaN are kept beside it: they add up as IEEE 754 says in any order.

A whole column is split into limbs of 32 bits first (`limbs_of`), which are summed as 64-bit integers by group.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LIMB_BITS", "limbs_of", "packed", "rounded", "scaled", "total_of_limbs", "unpacked"]

LIMB_BITS: Final = 32

_SCALE_BITS: Final = 1074
_FRACTION_BITS: Final = 52
_LIMB: Final = (1 << LIMB_BITS) - 1
_ZEROS_BYTES: Final = 2


def scaled(value: float) -> int:
    """Return a finite float as an integer multiple of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_SCALE_BITS + 1 - denominator.bit_length())


def rounded(total: int, divisor: int = 1) -> float:
    """Return `total * 2**-1074 / divisor` as the nearest float, infinity if it is beyond the largest one."""
    try:
        # Python's true division of integers rounds once and correctly, subnormal results included.
        return total / (divisor << _SCALE_BITS)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


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
    bits = values.view(np.int64)
    exponents = (bits >> _FRACTION_BITS) & 0x7FF
    mantissas = bits & ((1 << _FRACTION_BITS) - 1)
    mantissas |= (exponents > 0).astype(np.int64) << _FRACTION_BITS
    positions = np.maximum(exponents, 1) - 1
    used = mantissas != 0
    base = int(positions.min(where=used, initial=2047))
    distances = np.where(used, positions - base, 0)
    indices, shifts = distances >> 5, distances & 31
    low = (mantissas & _LIMB) << shifts
    middle = ((mantissas >> LIMB_BITS) << shifts) + (low >> LIMB_BITS)
    signs = np.where(bits < 0, -1, 1)
    rows = np.arange(len(values))
    limbs = np.zeros((int(indices.max(initial=0)) + 3, len(values)), dtype=np.int64)
    limbs[indices, rows] = (low & _LIMB) * signs
    limbs[indices + 1, rows] = (middle & _LIMB) * signs
    limbs[indices + 2, rows] = (middle >> LIMB_BITS) * signs
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
