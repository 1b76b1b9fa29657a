"""Numbers as text: read back they are the number to the digits promised, and in the form that each place can show."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstsim.number_text import html_number, ratio_number, short_number, signed, table_number, terminal_number

FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)


def read(text: str) -> Decimal:
    """The number that a person reads in ``text``."""
    plain = text.replace("−", "-").replace(",", "").replace("×10<sup>", "e").replace("</sup>", "")
    return Decimal(plain)


def close(text: str, value: float, relative: str) -> bool:
    """Whether the number in ``text`` is off by at most half of ``relative`` times its leading power of ten."""
    exact = Decimal(value)
    unit = Decimal(10) ** exact.adjusted() if exact else Decimal(0)
    return abs(read(text) - exact) <= unit * Decimal(relative) / 2


@given(FINITE)
def test_a_terminal_has_seven_characters(value: float) -> None:
    text = terminal_number(value)
    assert len(text) <= 7
    assert close(text, value, "1" if "e" in text else "0.01")


@given(FINITE)
def test_html_has_three_digits(value: float) -> None:
    assert close(html_number(value), value, "0.01")
    assert "-" not in html_number(value)


@given(st.floats(-1e12, 1e12))
def test_tables_have_three_decimals_then_three_digits(value: float) -> None:
    assert abs(float(table_number(value)) - value) <= 0.0005001 or close(table_number(value), value, "0.01")


@given(st.floats(-1e6, 1e6))
def test_the_readme_has_three_decimals_below_one_and_two_above(value: float) -> None:
    off = abs(read(short_number(value)) - Decimal(value))
    assert off <= (Decimal("0.0005") if abs(value) < 1.0 else Decimal("0.005"))


@given(st.floats(1e-300, 1e300))
def test_ratios_have_three_digits_or_one(value: float) -> None:
    text = ratio_number(value)
    assert close(text, value, "0.01" if value < 1e4 else "1")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (terminal_number(0.0), "0.00"),
        (terminal_number(-12.345), "-12.3"),
        (terminal_number(1234.5), "1234"),
        (terminal_number(2.3e5), "2e5"),
        (terminal_number(4e-7), "4e-7"),
        (terminal_number(math.inf), "inf"),
        (html_number(-0.5), "−0.5"),
        (html_number(12345.6), "12,346"),
        (html_number(2.5e-7), "2.50×10<sup>−7</sup>"),
        (html_number(-math.inf), "−∞"),
        (table_number(0.12345), "0.123"),
        (table_number(12345.0), "1.23e+04"),
        (short_number(-0.25), "−0.25"),
        (short_number(1.005e2), "100.50"),
        (ratio_number(1.0), "1"),
        (ratio_number(2.3e5), "2e+05"),
    ],
)
def test_examples(text: str, wanted: str) -> None:
    assert text == wanted


def test_what_is_missing_is_a_dash() -> None:
    assert [f(None) for f in (terminal_number, html_number, table_number)] == ["-", "–", "–"]
    assert [f(math.nan) for f in (terminal_number, html_number, table_number, short_number)] == ["-", "–", "–", "–"]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("-0.5 ± 0.1", "−0.5 ± 0.1"),
        ("[-1, -.5], from -2 to 3", "[−1, −.5], from −2 to 3"),
        ("9e-05 for 1e-4", "9e-05 for 1e-4"),
        ("2026-11-28, seeds 3-4, strings:rotate-2", "2026-11-28, seeds 3-4, strings:rotate-2"),
    ],
)
def test_negative_numbers_have_a_minus_sign(text: str, printed: str) -> None:
    assert signed(text) == printed
