"""A site with a fault of each kind is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fstsim.paper.pages.links import problems_of


def write(site: Path, body: str) -> list[str]:
    (site / "api").mkdir(exist_ok=True)
    (site / "api" / "x.html").write_text('<h1 id="top">x</h1>')
    (site / "index.html").write_text(body)
    return problems_of(site)


def test_a_sound_site(tmp_path: Path) -> None:
    body = '<a href="api/x.html#top">x</a><a href="https://arxiv.org/abs/1">away</a><img src="data:image/png;base64,"><a id="here"></a><a href="#here">'
    assert write(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="api/y.html">', "leads to api/y.html, which is not there"),
        ('<a href="api/x.html#nowhere">', "no such anchor"),
        ('<a href="#nowhere">', "no such anchor"),
        ('<img src="gone.png">', "gone.png, which is not there"),
        ('<script src="https://cdn.example/x.js"></script>', "fetches https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "fetches //fonts.example/a.css"),
    ],
)
def test_a_fault(body: str, said: str, tmp_path: Path) -> None:
    (found,) = write(tmp_path, body)
    assert said in found


def test_a_font_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text(
        '@font-face { src: url("https://fonts.example/a.woff2") } b { background: url(local.png) }'
    )
    (found,) = write(tmp_path, "")
    assert "a.css fetches https://fonts.example/a.woff2" in found
