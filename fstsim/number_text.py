"""Numbers as text: one function for each place that shows them, because a terminal, Markdown and HTML can do different things.

All of them are rounded for people; files hold every digit.
"""

from __future__ import annotations

import math
import re

MISSING = "–"


def _scientific(value: float, digits: int) -> tuple[str, int]:
    """Mantissa with ``digits`` decimals, and the power of ten."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return mantissa, int(exponent)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def terminal_number(value: float | None) -> str:
    """Three significant digits in at most seven characters, one where a power of ten is needed; ``-`` for what is missing."""
    if value is None or math.isnan(value):
        return "-"
    if value != 0.0 and math.isfinite(value) and not 1e-3 <= abs(value) < 1e4:
        return "{}e{}".format(*_scientific(value, 0))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def html_number(value: float | None) -> str:
    """Three significant digits as HTML, powers of ten raised; a dash for what is missing."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e5 or 0.0 < abs(value) < 1e-3:
        return _minus("{}×10<sup>{}</sup>".format(*_scientific(value, 2)))
    return _minus(f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.3g}")


def table_number(value: float | None) -> str:
    """Three decimals, three significant digits from a thousand on; a dash for what is missing or infinite."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.3f}" if abs(value) < 1e3 else f"{value:.3g}"


def short_number(value: float) -> str:
    """Up to three decimals below one, two above it; a dash for what is missing or infinite."""
    if not math.isfinite(value):
        return MISSING
    return _minus(f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1.0 else f"{value:.2f}")


def ratio_number(value: float) -> str:
    """Three significant digits of a ratio of at least 0; from 10,000 on one and the power of ten: ``2e+05``."""
    return f"{value:.3g}" if value < 1e4 else f"{value:.0e}"


def signed(text: str) -> str:
    """``text`` with a minus sign before each negative number in it; exponents (``9e-05``), ranges and names keep their hyphens."""
    return re.sub(r"(?<![\w.)])-(?=[\d.])", "−", text)
