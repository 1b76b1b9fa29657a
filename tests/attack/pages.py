"""Hostile texts in records, in pages opened by a real browser: no script runs, nothing is loaded from outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attack import harness
from attack.campaign import Case

PAYLOADS = (
    "<script>window.owned=1</script>",
    '<svg onload="window.owned=1">',
    "\"><img src=x onerror='window.owned=1'>",
    "' onmouseover='window.owned=1' autofocus onfocus='window.owned=1",
    "</pre></style></title><script>window.owned=1</script>",
    '<iframe srcdoc="<script>parent.owned=1</script>"></iframe>',
    "javascript:window.owned=1",
    "{{7*7}}${7*7}<!--",
    "\u202e</code><base href='http://127.0.0.1:9/'>",
)


def _poisoned(value: Any, payload: str) -> Any:
    """Every text in ``value`` replaced, keys too where a table has no fixed ones."""
    if isinstance(value, dict):
        return {key: _poisoned(item, payload) for key, item in value.items()}
    if isinstance(value, list):
        return [_poisoned(item, payload) for item in value]
    return payload if isinstance(value, str) else value


def _report(pristine: Path, payload: str, only: str, work: Path) -> str:
    shutil.copytree(pristine / "report", work / "DIR")
    for path in sorted((work / "DIR").rglob("*.json")):
        if only not in path.name:
            continue
        held = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(_poisoned(held, payload)), encoding="utf-8")
    done = harness.command(["report", "--out", "DIR"], work, 120.0)
    if fault := done.fault((0, 2)):
        return fault
    page = work / "DIR" / "report.html"
    return _opened(page) if page.exists() else ""  # refused in one line


def _card(pristine: Path, payload: str, work: Path) -> str:
    from fstsim.paper.records.measure_card import write_measure_card

    held = json.loads((pristine / "measure" / "measure.json").read_text(encoding="utf-8"))
    numbers = {"checkpoint", "sha256", "task", "context", "base"}
    text = json.dumps(held)
    for key in numbers:
        text = json.dumps(_named(json.loads(text), key, payload))
    measured = json.loads(text)
    measured["verifier_errors"] = {"count": 1, "first": payload}
    page = write_measure_card(measured, [payload], pristine / "measure" / "picture.png", work / "card.html")
    return _opened(page)


def _named(value: Any, key: str, payload: str) -> Any:
    if isinstance(value, dict):
        return {k: payload if k == key and isinstance(v, str) else _named(v, key, payload) for k, v in value.items()}
    return [_named(item, key, payload) for item in value] if isinstance(value, list) else value


def _opened(page: Path) -> str:
    """What a browser finds wrong with the page."""
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--allow-file-access-from-files",
    ):
        options.add_argument(flag)
    options.binary_location = str(shutil.which("chromium"))
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.set_page_load_timeout(60)
        browser.get(page.as_uri())
        for details in browser.find_elements(By.TAG_NAME, "details")[:3]:
            ActionChains(browser).move_to_element(details).perform()
        if browser.execute_script("return window.owned === 1"):
            return "a script ran"
        outside = browser.execute_script(
            "return [...document.querySelectorAll('script, iframe, base, link, object, embed, [src], [onload], [onerror], [onfocus], [onmouseover]')]"
            ".filter(e => !(e.tagName === 'IMG' && e.src.startsWith('data:image/png'))).map(e => e.outerHTML.slice(0, 100))"
        )
        return f"the page has {outside[0]}" if outside else ""
    finally:
        browser.quit()


def cases(pristine: Path) -> Iterator[Case]:
    """Every payload in every kind of record; none where there is no browser."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return
    for number, payload in enumerate(PAYLOADS):
        for only in ("validation.json", "predictions.json", "config.json", "environment.json", "checks.json"):
            yield Case(
                "pages in a browser", f"report, {only}, payload {number}", partial(_report, pristine, payload, only)
            )
        yield Case("pages in a browser", f"card, payload {number}", partial(_card, pristine, payload))
