"""Exact sums of floats, against fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.runtime.exact import (
    limbs_of,
    packed,
    quotient,
    root,
    rounded,
    scaled,
    square_limbs_of,
    total_of_limbs,
    unpacked,
)

FINITE = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1.0, 0.1]),
)
UNIT = Fraction(1, 2**1074)


@given(FINITE)
def test_a_float_is_a_whole_multiple_of_the_smallest_one(value: float) -> None:
    assert scaled(value) * UNIT == Fraction(value)
    assert rounded(scaled(value)) == value


@given(st.lists(FINITE, max_size=20), st.integers(1, 2**40))
def test_a_sum_and_a_mean_are_rounded_once(values: list[float], divisor: int) -> None:
    total = sum(map(scaled, values))
    exact = sum(map(Fraction, values), Fraction())
    try:
        wanted = float(exact / divisor)
    except OverflowError:
        wanted = math.inf if exact > 0 else -math.inf
    assert rounded(total, divisor) == wanted


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.1] * 10, 1.0),
        ([1e16, 1.0, -1e16], 1.0),
        ([1e308, 1e308, -1e308], 1e308),
        ([1e308, 1e308], math.inf),
        ([-1e308, -1e308], -math.inf),
        ([5e-324, 5e-324], 1e-323),
        ([], 0.0),
    ],
)
def test_sums_that_naive_addition_gets_wrong(values: list[float], wanted: float) -> None:
    assert rounded(sum(map(scaled, values))) == wanted


@given(st.integers(-(2**2200), 2**2200), st.integers(-5, 5), st.integers(0, 2000))
def test_an_integer_survives_its_packing_and_has_one(large: int, small: int, shift: int) -> None:
    for total in (large, small << shift, 0):
        assert unpacked(packed(total)) == total
        assert packed(total + 1 - 1) == packed(total)


@given(st.lists(FINITE, max_size=30))
def test_the_limbs_of_a_column_add_up_to_its_floats(values: list[float]) -> None:
    base, limbs = limbs_of(np.array(values, dtype=np.float64))
    assert np.abs(limbs).max(initial=0) < 2**32
    assert total_of_limbs(base, limbs.tolist()) == list(map(scaled, values))
    sums = [[int(limb.sum())] for limb in limbs]
    assert total_of_limbs(base, sums) == [sum(map(scaled, values))]


@given(st.lists(FINITE, max_size=30))
def test_limbs_of_squares_add_up_to_the_exact_sum_of_squares(values: list[float]) -> None:
    base, limbs = square_limbs_of(np.array(values, dtype=np.float64))
    assert total_of_limbs(base, limbs.tolist()) == [scaled(value) ** 2 for value in values]
    assert total_of_limbs(base, limbs.sum(axis=1, keepdims=True).tolist()) == [
        sum(scaled(value) ** 2 for value in values)
    ]


@given(st.integers(0, 2**4300) | st.integers(0, 99), st.integers(1, 2**4300) | st.integers(1, 99))
def test_a_root_is_rounded_once(numerator: int, denominator: int) -> None:
    """No float lies nearer: the square of the middle between it and each neighbour says on which side the root is."""
    found = root(numerator, denominator)
    square = Fraction(numerator, denominator)
    if found == math.inf:
        assert square >= (Fraction(1.7976931348623157e308) + Fraction(2) ** 970) ** 2
        return
    above = math.nextafter(found, math.inf)
    if above != math.inf:
        assert square <= ((Fraction(found) + Fraction(above)) / 2) ** 2
    if found > 0:
        assert square >= ((Fraction(found) + Fraction(math.nextafter(found, 0.0))) / 2) ** 2


@pytest.mark.parametrize(("square", "wanted"), [(0, 0.0), (1, 1.0), (2, math.sqrt(2)), (9, 3.0), (2**2000, 2.0**1000)])
def test_roots_of_integers(square: int, wanted: float) -> None:
    assert root(square, 1) == wanted


def test_a_quotient_beyond_the_largest_float_is_an_infinity() -> None:
    assert (quotient(1, 3), quotient(2**2000, 1), quotient(-(2**2000), 1)) == (1 / 3, math.inf, -math.inf)
