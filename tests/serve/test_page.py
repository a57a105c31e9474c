"""The page in a real browser: headless Chromium, no outside host, by mouse and by keyboard alone."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from serve.client import Client
from tests.serve.local import LocalFocus, client, encoded, server
from tests.slides import on_glass

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
TOKEN = "a-token-of-16-letters"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1100, "height": 900})
    found.outside, found.wrong = [], []  # type: ignore[attr-defined]
    found.on("request", lambda one: None if "127.0.0.1" in one.url else found.outside.append(one.url))  # type: ignore[attr-defined]
    found.on("pageerror", lambda one: found.wrong.append(str(one)))  # type: ignore[attr-defined]
    yield found
    outside = [one for one in found.outside if not one.startswith(("data:", "blob:"))]  # type: ignore[attr-defined]
    assert not outside
    assert not found.wrong  # type: ignore[attr-defined]
    found.close()


@pytest.fixture(scope="module")
def address(focus: LocalFocus) -> Iterator[str]:
    with server(client(focus).app) as found:
        yield found


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "slide.png"
    path.write_bytes(encoded(on_glass(700, 900, (90, 130, 500, 600))))
    return path


def test_an_image_gets_its_map_and_legend(page: Page, address: str, picture: Path, test_output: Path) -> None:
    page.goto(address)
    expect(page.get_by_text("Not for diagnosis.")).to_be_visible()
    page.screenshot(path=test_output / "page-empty.png")
    page.set_input_files("#file", picture)
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#status")).to_have_text("slide.png: 900 × 700 pixels of 0.25 µm")
    assert page.locator("#ticks li").all_text_contents() == [
        "0 µm, in focus",
        "0.5 µm, slight",
        "1 µm, moderate",
        "2 µm, severe",
        "3 µm and more",
    ]
    shares = [float(text.removesuffix(" %")) for text in page.locator("#shares td").all_text_contents()]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    page.screenshot(path=test_output / "page-map.png", full_page=True)
    before = colours(page)
    page.locator("#opacity").fill("0")
    after = colours(page)
    assert np.abs(before - after).mean() > 5, "the map lies over the picture, and can be faded"
    assert np.abs(after - np.array([222, 150, 196])).mean() < 60, "without the map it is the picture"


def colours(page: Page) -> np.ndarray:
    """Mean colour of the map's middle."""
    code = "() => Array.from(canvas.getContext('2d').getImageData(400, 300, 64, 64).data)"
    return np.array(page.evaluate(code), float).reshape(-1, 4)[:, :3].mean(axis=0)


def test_by_keyboard_alone(page: Page, address: str, picture: Path, test_output: Path) -> None:
    page.on("filechooser", lambda _: None)  # from here on the browser tells of one: a listener set late can miss it
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.screenshot(path=test_output / "page-focus-ring.png")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(picture)
    expect(page.locator("#result")).to_be_visible()
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
        if seen[-1] == "canvas":
            break
    assert seen[-1] == "canvas", seen
    assert set(seen) >= {"mpp", "opacity", "again", "canvas"}
    page.keyboard.press("ArrowRight")
    expect(page.locator("#reading")).to_contain_text("row 1, column 1: no tissue")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    expect(page.locator("#reading")).to_contain_text("row 10, column 10: blur radius")
    page.screenshot(path=test_output / "page-keyboard.png", full_page=True)


def test_the_reading_is_what_the_service_said(page: Page, address: str, picture: Path) -> None:
    page.goto(address)
    page.set_input_files("#file", picture)
    grid = json.loads(Client(address).heat_map(picture.read_bytes(), 0.25, "application/json"))
    expect(page.locator("#result")).to_be_visible()
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    shape = grid["geometry"]
    x, y = ((shape["origin_px"] + 9.5 * shape["spacing"]) / shape[side] for side in ("width", "height"))
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    said = f"row 10, column 10: blur radius {grid['radius_um'][9][9]:.2f} µm"
    expect(page.locator("#reading")).to_contain_text(said)


def test_what_goes_wrong_is_told(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(address)
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "text.png")
    expect(page.locator("#status")).to_contain_text("Bad Request: starts with")
    expect(page.locator("#result")).to_be_hidden()
    (tmp_path / "glass.png").write_bytes(encoded(on_glass(300, 300, (0, 0, 0, 0))))
    page.set_input_files("#file", tmp_path / "glass.png")
    expect(page.locator("#status")).to_contain_text("no tissue found")


def test_a_token_is_asked_for_where_one_is_needed(page: Page, focus: LocalFocus, picture: Path) -> None:
    with server(client(focus, tokens=(TOKEN,)).app) as address:
        page.goto(address)
        expect(page.locator("#token-field")).to_be_hidden()
        page.set_input_files("#file", picture)
        expect(page.locator("#token-field")).to_be_visible()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_be_visible()


def test_dropped_images_and_small_screens(page: Page, address: str, picture: Path, test_output: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(address)
    drop = """async (data) => {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
    }"""

    page.evaluate(drop, base64.b64encode(picture.read_bytes()).decode())
    expect(page.locator("#status")).to_contain_text("dropped.png: 900 × 700 pixels")
    expect(page.locator("#result")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    page.screenshot(path=test_output / "page-small.png", full_page=True)


def test_the_docs_are_readable(page: Page, address: str, test_output: Path) -> None:
    page.goto(f"{address}/docs")
    expect(page.get_by_role("heading", name="POST /v1/focus/scores")).to_be_visible()
    page.screenshot(path=test_output / "docs.png", full_page=True)
