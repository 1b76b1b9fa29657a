r"""LaTeX formulas of the statements as Typst mathematics.

The statements (`fstsim.theory.ALL_STATEMENTS`) carry LaTeX, the manuscript is set by Typst. `typst_maths` reads the part
of LaTeX that they use and raises InputError at anything else: an unknown macro stops the build, it is never printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fstsim.errors import InputError

# Macros that are one symbol. Typst reads Unicode; letters come out italic, the rest with its usual spacing.
_SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "varepsilon": "ε", "epsilon": "ϵ", "zeta": "ζ", "eta": "η",
    "theta": "θ", "iota": "ι", "chi": "χ", "vartheta": "ϑ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "varpi": "ϖ",
    "rho": "ρ", "varrho": "ϱ", "sigma": "σ", "tau": "τ", "phi": "ϕ", "varphi": "φ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω",
    "ell": "ℓ", "infty": "∞", "partial": "∂", "nabla": "∇", "top": "⊤", "Vert": 'class("normal", ‖)', "|": 'class("normal", ‖)', "lceil": "⌈", "rceil": "⌉",
}  # fmt: skip
_RELATIONS = {
    "le": "≤", "ge": "≥", "ne": "≠", "to": "→", "Rightarrow": "⇒", "iff": "⟺", "sim": "∼", "approx": "≈", "in": "∈",
    "propto": "∝", "equiv": "≡", "lesssim": "≲", "gtrsim": "≳", "uparrow": "↑", "downarrow": "↓", "cdot": "⋅", "times": "×",
    "ll": "≪", "gg": "≫", "leq": "≤", "geq": "≥", "neq": "≠", "pm": "±", "mid": "∣", "mapsto": "↦", "simeq": "≃",
    "int": "∫", "sum": "∑", "prod": "∏",
}  # fmt: skip
_OPERATORS = ("log", "exp", "sin", "cos", "sinh", "cosh", "tanh", "min", "max", "sup", "inf", "arg")
_FUNCTIONS = {
    "dot": "dot", "bar": "macron", "hat": "hat", "tilde": "tilde", "underline": "underline", "overline": "overline",
    "sqrt": "sqrt", "mathbb": "bb", "mathcal": "cal",
}  # fmt: skip
_FRACTIONS = {
    "frac": "frac({}, {})", "dfrac": "display(frac({}, {}))", "tfrac": "inline(frac({}, {}))",
    "binom": "binom({}, {})", "tbinom": "inline(binom({}, {}))",
}  # fmt: skip
_SPACES = {",": "thin", ";": "thick", " ": "med", "!": "", "textstyle": "", "quad": "quad", "qquad": "wide"}
_OPEN = {"(": r"\(", "[": r"\[", "\\{": r"\{"}
_CLOSE = {")": r"\)", "]": r"\]", "\\}": r"\}"}
# What means something to Typst between the parentheses of a function, and what is written otherwise there.
_ESCAPED = {",": r"\,", ";": r"\;", ":": r"\:", "/": r"\/", "*": "∗"}
_LABELS = {"RL", "FST", "mid", "sk", "op"}
"""Subscripts that are abbreviations, set upright; any other row of letters is a product of variables."""

_WORDS = re.compile(r"\\(?:text|mathrm|operatorname)\s*\{(?P<words>[^{}\\$\"]*)\}")
# A space after \quad is easily lost where two strings are joined, and no macro begins with that name.
_TOKEN = re.compile(rf"{_WORDS.pattern}|\\q?quad|\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)

_Stop = Literal["end", "brace", "sized", "sized bar"]


def _joined(pieces: Sequence[str]) -> str:
    """Pieces with a space between, but none beside a quoted word: Typst would show it."""
    text = ""
    for piece in filter(None, pieces):
        text += piece if not text or text.endswith('"') or piece.startswith('"') else f" {piece}"
    return text


@dataclass(frozen=True)
class _Piece:
    """A piece of Typst; ``opens`` if a bar after it begins an absolute value, as in ``= |x|``."""

    text: str
    opens: bool = False


class _Reader:
    """A recursive descent over the tokens of one formula."""

    def __init__(self, latex: str) -> None:
        self.source = latex
        self.tokens = [m.group() for m in _TOKEN.finditer(latex) if not m.group().isspace()]
        self.at = 0

    def fail(self, what: str) -> InputError:
        return InputError(f"{what} is not in the LaTeX that the manuscript understands, in {self.source!r}")

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self) -> str:
        if not self.peek():
            raise self.fail("an early end")
        self.at += 1
        return self.tokens[self.at - 1]

    def ends(self, stop: _Stop) -> bool:
        """Whether the next token ends a sequence; a wrong end is an error."""
        token, sized = self.peek(), self.peek() in (r"\big", r"\Big")
        if stop == "sized" and sized and self.peek(1) in _CLOSE:
            return True
        if stop == "sized bar" and sized and self.peek(1) == "|":
            return True
        if token in ("", "}"):
            if stop != ("brace" if token else "end"):
                raise self.fail(f"an unbalanced {token or 'end'}")
            return True
        return False

    def sequence(self, stop: _Stop) -> list[str]:
        """Pieces with their scripts up to ``stop``, which is left to take."""
        found: list[str] = []
        open_bars, opens = 0, True
        while not self.ends(stop):
            if self.peek() == "|":
                self.take()
                opening = opens or (open_bars == 0 and self.peek() not in ("_", "^"))
                open_bars += 1 if opening else -1
                piece = _Piece(f'class("{"opening" if opening else "closing"}", |)', opening)
            elif self.peek() == r"\rm":
                self.take()
                word = ""
                while self.peek().isalpha():
                    word += self.take()
                piece = _Piece(f'"{word}"')
            elif self.peek() in (r"\big", r"\Big"):
                self.take()
                piece = self.sized(stop)
            else:
                piece = self.atom()
            found.append(piece.text + self.scripts())
            opens = piece.opens
        return found

    def scripts(self) -> str:
        """Primes, then sub- and superscript in either order."""
        text = ""
        while self.peek() == "'":
            text += self.take()
        while self.peek() in ("_", "^"):
            text += f"{self.take()}({self.argument()})"
        return text

    def argument(self) -> str:
        """``{...}``, or one token: ``\\tfrac12`` is a half."""
        if self.peek() != "{":
            return self.atom(single=True).text
        self.take()
        word = ""
        while self.peek(len(word)).isalnum():
            word += self.peek(len(word))
        if word in _LABELS and self.peek(len(word)) == "}":
            self.at += len(word) + 1
            return f'"{word}"'
        body = _joined(self.sequence("brace"))
        self.take()
        return body or '""'

    def sized(self, stop: _Stop) -> _Piece:
        r"""After ``\big``: a delimiter with its partner, a lone bar between two others, or a slash."""
        delimiter = self.take()
        if delimiter == "/":
            return _Piece(r"\/", True)
        if delimiter == "|" and stop == "sized":
            return _Piece("mid(|)", True)
        if delimiter == "|":
            body = self.sequence("sized bar")
            self.at += 2
            return _Piece(f"lr(| {_joined(body)} |)")
        if delimiter not in _OPEN:
            raise self.fail(f"a sized {delimiter} here")
        body = self.sequence("sized")
        self.take()
        return _Piece(f"lr({_OPEN[delimiter]} {_joined(body)} {_CLOSE[self.take()]})")

    def atom(self, single: bool = False) -> _Piece:
        """One symbol, number, group, or macro with its arguments; digits run on unless ``single``."""
        if self.peek() == "{":
            return _Piece(self.argument())
        token = self.take()
        name = token.removeprefix("\\")
        if token in _OPEN or token in _CLOSE:
            return _Piece({**_OPEN, **_CLOSE}[token], token in _OPEN)
        if token.isdigit():
            while not single and (self.peek().isdigit() or (self.peek() == "." and self.peek(1).isdigit())):
                token += self.take()
            return _Piece(token)
        if not token.startswith("\\"):
            if token in _ESCAPED:
                return _Piece(_ESCAPED[token], True)
            if token in "+-=<>":
                return _Piece(token, True)
            if token.isascii() and token.isalpha():
                return _Piece(token)
        elif words := _WORDS.fullmatch(token):
            return _Piece(f'"{words["words"]}"')
        elif name in _SYMBOLS:
            return _Piece(_SYMBOLS[name])
        elif name in _RELATIONS or name in _OPERATORS:
            return _Piece(_RELATIONS.get(name, name), True)
        elif name in _SPACES:
            return _Piece(_SPACES[name])
        elif name in _FRACTIONS:
            return _Piece(_FRACTIONS[name].format(self.argument(), self.argument()))
        elif name in _FUNCTIONS:
            return _Piece(f"{_FUNCTIONS[name]}({self.argument()})")
        raise self.fail(token)


def typst_parts(latex: str) -> list[str]:
    r"""The formula as Typst mathematics, cut at each ``\quad`` and ``\qquad`` outside of groups (where a line may end).

    Raises InputError for any macro or character that it does not know, and for unbalanced groups.
    """
    parts: list[list[str]] = [[]]
    for piece in _Reader(latex).sequence("end"):
        if piece in ("quad", "wide"):
            parts.append([])
        else:
            parts[-1].append(piece)
    return [_joined(part) for part in parts if part]


def typst_maths(latex: str) -> str:
    """The whole formula as one line of Typst mathematics; errors as `typst_parts`."""
    return " quad ".join(typst_parts(latex))
