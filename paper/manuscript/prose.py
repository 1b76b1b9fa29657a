"""Plain text of the records as print wants it: Greek letters, sub- and superscripts, numbers without computer notation."""

from __future__ import annotations

import re
from decimal import Decimal

from fstsim.number_text import signed

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "eta": "η", "kappa": "κ", "lambda": "λ",
    "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "ϕ", "psi": "ψ",
    "vartheta": "ϑ", "varrho": "ϱ", "Delta": "Δ", "Gamma": "Γ", "Phi": "Φ",
}  # fmt: skip
_SIGNS = (
    ("<<", "≪"), (">>", "≫"), ("->", "→"), ("<=", "≤"), (">=", "≥"), ("!=", "≠"), ("||", "‖"), (" - ", " − "),
    ("sqrt(3)", "√3"), ("sqrt(", "√("), ("sqrt ", "√"), ("exp(-", "exp(−"),
)  # fmt: skip
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SCIENTIFIC = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]\d+)")
_LETTER = "α-ωΑ-Ωϵϕϑϱ"
_SCRIPT = re.compile(
    rf"(?<![A-Za-z])(?P<base>[A-Za-z{_LETTER}])_(?P<sub>\d/\d|[A-Za-z]+|\d+|[{_LETTER}])"
    rf"|\^(?P<power>\(|[\w*]+)|(?P<limit>[{_LETTER}])∞|(?P<sign>[{_LETTER}∞≪≫])"
)

Run = tuple[str, str]


def readable(text: str) -> str:
    """``1.96e+04`` as ``19,600``, ``1e-16`` as ``10⁻¹⁶``; minus signs instead of hyphens before digits; a lone hyphen is a dash."""

    def number(match: re.Match[str]) -> str:
        mantissa, exponent = match[1], int(match[2])
        if -4 <= exponent <= 6:
            plain = format(Decimal(f"{mantissa}e{exponent}"), "f")
            return f"{int(plain):,}" if "." not in plain and len(plain) > 4 else plain
        power = f"10{str(exponent).translate(_POWERS)}"
        return power if mantissa == "1" else f"{mantissa} × {power}"

    text = signed(_SCIENTIFIC.sub(number, text))
    return "–" if text == "-" else text


def prose(text: str) -> list[Run]:
    """The text in runs ``(kind, text)`` with kind ``text``, ``super`` or ``maths``; ``beta_0 ->`` becomes β₀ →.

    Runs of maths are Typst code: Greek letters, a base with its subscript, and signs that text fonts lack.
    """
    for name, letter in _GREEK.items():
        text = re.sub(rf"(?<![A-Za-z]){name}(?![A-Za-z])", letter, text)
    for sign, printed in _SIGNS:
        text = text.replace(sign, printed)
    text = re.sub(r"(?<=[=,(] )-(?=[\w(])", "−", text)
    runs: list[Run] = []
    at = 0
    while found := _SCRIPT.search(text, at):
        before, end = text[at : found.start()], found.end()
        if found["base"]:
            word = found["sub"]
            below = word if len(word) == 1 or word.isdigit() else f'"{word}"'
            runs += [("text", before), ("maths", f"{found['base']}_({below})")]
        elif found["limit"]:
            runs += [("text", before), ("maths", f"{found['limit']}_∞")]
        elif found["sign"]:
            runs += [("text", before), ("maths", found["sign"])]
        else:
            power = found["power"]
            if power == "(":
                end = _closing(text, found.end())
                power = text[found.end() : end - 1]
            runs += [("text", before), ("super", power.replace("-", "−"))]
        at = end
    return [run for run in [*runs, ("text", text[at:])] if run[1]]


def _closing(text: str, start: int) -> int:
    """Index after the parenthesis that closes the one before ``start``; the end of the text if none does."""
    depth = 1
    for k in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[k], 0)
        if depth == 0:
            return k + 1
    return len(text) + 1
