"""The blinded page in a real browser, by its keys alone, and what might give an answer away."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from medsynth.errors import UserError
from medsynth.evaluation import turing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pictures(seed: int, count: int, grain: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.integers(90, 160, (count, 1, 1, 3)) + random.integers(0, grain, (count, 24, 24, 3))).astype(np.uint8)


def test_no_byte_gives_an_answer_away() -> None:
    page = turing.page(pictures(0, 9, 90), pictures(1, 9, 2), 12, 0, "Which?")
    files = re.findall(r'"(/9j/[^"]+)"', page)
    assert len(files) == 12
    assert len({len(data) for data in files}) == 1
    assert len({data[:200] for data in files}) == 1, "the same encoder and tables"
    assert page == turing.page(pictures(0, 9, 90), pictures(1, 9, 2), 12, 0, "Which?")
    assert page != turing.page(pictures(0, 9, 90), pictures(1, 9, 2), 12, 1, "Which?")
    for name in ("http://", "https://", ".jpg", ".png"):
        assert name not in page


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="there are 9 real and 4 synthetic"):
        turing.page(pictures(0, 9, 2), pictures(1, 4, 2), 12, 0, "Which?")
    with pytest.raises(UserError, match="px on a side"):
        turing.page(pictures(0, 9, 2), np.zeros((9, 8, 8, 3), np.uint8), 12, 0, "Which?")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_answers_are_counted_with_their_interval(tmp_path: Path) -> None:
    path = tmp_path / "turing.html"
    path.write_text(turing.page(pictures(0, 9, 90), pictures(1, 9, 2), 10, 0, "Which?"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        outside, wrong = [], []
        page.on("request", lambda one: None if one.url.startswith(("file:", "data:", "blob:")) else outside.append(one))
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.goto(path.as_uri())
        expect(page.get_by_text("Picture 1 of 10")).to_be_visible()
        page.keyboard.press("r")
        page.keyboard.press("b")
        expect(page.get_by_text("Picture 1 of 10")).to_be_visible()
        for _ in range(10):
            # What is real here has grain: an honest answer from the pixels that are shown.
            spread = page.evaluate(
                """async () => { const i = document.getElementById("picture"); await i.decode();
                const c = new OffscreenCanvas(24, 24).getContext("2d"); c.drawImage(i, 0, 0, 24, 24);
                const d = [...c.getImageData(0, 0, 24, 24).data].filter((_, n) => n % 4 === 0);
                const m = d.reduce((a, b) => a + b) / d.length;
                return Math.sqrt(d.reduce((a, b) => a + (b - m) ** 2, 0) / d.length) }"""
            )
            page.keyboard.press("r" if spread > 8 else "s")
        low, high = turing.wilson(10, 10)
        expect(page.locator("#verdict")).to_have_text(
            f"10 of 10 right, 100.0 % ({100 * low:.1f} % to {100 * high:.1f} %): better than chance."
        )
        page.keyboard.press("Tab")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        told = json.loads(Path(download.value.path()).read_text())
        browser.close()
    assert not outside
    assert not wrong
    assert [one["answer"] for one in told["answers"]] == [one["truth"] for one in told["answers"]]
    real = told["summary"]["real"]
    assert (real["right"], real["count"]) == (5, 5)
    assert real["interval"] == pytest.approx(turing.wilson(5, 5))
