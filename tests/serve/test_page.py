"""The page in a real browser: headless Chromium, no outside host, by mouse and by keyboard alone."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from starlette.types import Receive, Scope, Send

from medsynth import images
from serve.client import Client
from tests.serve.local import LocalFocus, LocalSkin, client, encoded, server
from tests.slides import on_glass, write_tiff

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
    page.get_by_label("Pixel size in µm").fill("0.25")
    page.set_input_files("#file", picture)
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#status")).to_have_text("slide.png: 900 × 700 pixels of 0.25 µm, as given here")
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
    expect(page.locator("#mpp")).to_be_focused()
    page.keyboard.type("0.25")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_be_visible()
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
        if seen[-1] == "canvas":
            break
    assert seen[-1] == "canvas", seen
    assert set(seen) >= {"opacity", "again", "canvas"}
    page.keyboard.press("ArrowRight")
    expect(page.locator("#reading")).to_contain_text("row 1, column 1: no tissue")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    expect(page.locator("#reading")).to_contain_text("row 10, column 10: blur radius")
    page.screenshot(path=test_output / "page-keyboard.png", full_page=True)


def test_the_reading_is_what_the_service_said(page: Page, address: str, picture: Path) -> None:
    page.goto(address)
    page.locator("#mpp").fill("0.25")
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
    page.locator("#mpp").fill("0.25")
    (tmp_path / "glass.png").write_bytes(encoded(on_glass(300, 300, (0, 0, 0, 0))))
    page.set_input_files("#file", tmp_path / "glass.png")
    expect(page.locator("#status")).to_contain_text("no tissue found")


def test_a_file_may_say_its_pixel_size(page: Page, address: str, picture: Path, test_output: Path) -> None:
    page.goto(address)
    field, status = page.get_by_label("Pixel size in µm (empty: as the file says)"), page.locator("#status")
    expect(field).to_have_value("")
    tiff = write_tiff(picture.with_name("half.tif"), on_glass(700, 900, (90, 130, 500, 600)), 0.5)
    page.set_input_files("#file", tiff)
    expect(status).to_have_text("half.tif: 900 × 700 pixels of 0.5 µm, as the file says")
    grid = json.loads(Client(address).heat_map(tiff.read_bytes(), None, "application/json"))
    expect(page.locator("#figures")).to_contain_text(f"Median {grid['summary']['radius_um_median']:.2f} µm")
    page.screenshot(path=test_output / "page-tiff.png", full_page=True)
    page.set_input_files("#file", picture)
    expect(status).to_have_text("slide.png does not say its pixel size: fill it in, then map again.")
    expect(status).to_have_class("bad")
    expect(page.locator("#result")).to_be_hidden()
    expect(field).to_be_focused()
    page.screenshot(path=test_output / "page-no-size.png", full_page=True)
    field.fill("0.3")
    page.get_by_role("button", name="Map again").click()
    expect(status).to_have_text("slide.png: 900 × 700 pixels of 0.3 µm, as given here")
    page.set_input_files("#file", tiff)
    expect(status).to_have_text("half.tif: 900 × 700 pixels of 0.3 µm, as given here")


def test_a_map_is_told_as_that_of_the_image_that_was_sent(page: Page, address: str, picture: Path) -> None:
    page.goto(address)
    held: list[Route] = []
    page.route("**/v1/focus/heatmaps*", lambda route: held.append(route))
    page.locator("#mpp").fill("0.25")
    page.set_input_files("#file", picture)
    expect(page.locator("#status")).to_have_text("Looking at slide.png …")
    page.locator("#mpp").fill("99")
    other = picture.with_name("other.png")
    other.write_bytes(picture.read_bytes())
    page.set_input_files("#file", other)
    told = "The pixel size is none that a microscope has."
    expect(page.locator("#status")).to_have_text(told)
    expect(page.locator("#status")).to_have_css("color", "rgb(200, 30, 30)")
    (asked,) = held
    with page.expect_response("**/v1/focus/heatmaps*"):
        asked.continue_()
    page.wait_for_timeout(200)
    expect(page.locator("#status")).to_have_text(told)
    expect(page.locator("#result")).to_be_hidden()


def test_a_token_is_asked_for_where_one_is_needed(page: Page, focus: LocalFocus, picture: Path) -> None:
    with server(client(focus, tokens=(TOKEN,)).app) as address:
        page.goto(address)
        expect(page.locator("#token")).to_be_focused()
        expect(page.locator("#skin")).to_be_hidden()
        page.locator("#mpp").fill("0.25")
        page.set_input_files("#file", picture)
        expect(page.locator("#token")).to_be_focused()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_be_visible()


def test_it_works_below_a_prefix(page: Page, focus: LocalFocus, skin: LocalSkin, picture: Path) -> None:
    app = client(focus, skin=skin).app

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/below/it"}, receive, send)

    with server(mounted) as address:
        page.goto(f"{address}/below/it/")
        expect(page.locator("#pictures")).to_be_visible()
        page.locator("#mpp").fill("0.25")
        page.set_input_files("#file", picture)
        expect(page.locator("#result")).to_be_visible()
        page.get_by_role("link", name="How to ask over HTTP").click()
        page.get_by_role("link", name="/openapi.json").click()
        assert page.url == f"{address}/below/it/openapi.json"
        page.go_back()
        page.get_by_role("link", name="the page").click()
        expect(page.locator("#pictures")).to_be_visible()


def test_dropped_images_and_small_screens(page: Page, address: str, picture: Path, test_output: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(address)
    page.locator("#mpp").fill("0.25")
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


@pytest.fixture(scope="module")
def drawing(focus: LocalFocus, skin: LocalSkin) -> Iterator[str]:
    with server(client(focus, skin=skin).app) as found:
        yield found


def shown(page: Page, selector: str = "#photo") -> bytes:
    """The pixels that an image element shows."""
    code = """async (selector) => {
        const picture = document.querySelector(selector);
        for (let attempt = 0; ; attempt++) {  // refused where the page puts another picture in just then
            try { await picture.decode(); break; } catch (error) { if (attempt == 100) throw error; }
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
        const sheet = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight).getContext("2d");
        sheet.drawImage(picture, 0, 0);
        return Array.from(sheet.getImageData(0, 0, picture.naturalWidth, picture.naturalHeight).data);
    }"""
    return bytes(value for place, value in enumerate(page.evaluate(code, selector)) if place % 4 != 3)


def drawn(address: str, **wanted: Any) -> bytes:
    """The pixels that the service draws."""
    return images.decode(Client(address).skin_image(**wanted).data).tobytes()


def settled(page: Page, address: str, **wanted: Any) -> None:
    """Wait until the page shows what the service draws of this."""
    right = drawn(address, **wanted)
    end = time.monotonic() + 10
    while shown(page) != right:
        assert time.monotonic() < end, "the page shows something else"
        page.wait_for_timeout(50)


def test_a_photo_follows_the_sliders(page: Page, drawing: str, test_output: Path) -> None:
    page.goto(drawing)
    wanted: dict[str, Any] = {"condition": "BCC", "fitzpatrick": "III", "lesion_box": [11, 11, 22, 22], "seed": 1}
    expect(page.locator("#pictures")).to_be_visible()
    settled(page, drawing, **wanted)
    page.screenshot(path=test_output / "page-skin.png", full_page=True)
    page.locator("#extent").fill("50")
    settled(page, drawing, **{**wanted, "lesion_box": [8, 8, 24, 24]})
    page.select_option("#condition", "NEV")
    page.select_option("#camera", "phone-lowlight")
    page.locator("#seed").fill("12")
    wanted = {"condition": "NEV", "device": "phone-lowlight", "seed": 12, "lesion_box": [8, 8, 24, 24]}
    settled(page, drawing, **wanted, fitzpatrick="III")
    strip = [shown(page, f"#strip button:nth-child({n}) img") for n in range(1, 7)]
    assert len(set(strip)) == 6
    page.get_by_role("button", name="Type VI").click()
    assert shown(page) == strip[5] == drawn(drawing, **wanted, fitzpatrick="VI")
    expect(page.locator("#type-name")).to_have_text("VI")
    expect(page.locator("#skin-status")).to_contain_text("Seed 12")
    expect(page.get_by_text("Synthetic: drawn by a network")).to_be_visible()
    expect(page.locator("#cautions")).to_contain_text("Dark skin was made from light skin.")
    assert (page.locator("#save").get_attribute("download") or "").startswith("synthetic-NEV-VI-12")


def test_the_lesion_is_dragged(page: Page, drawing: str) -> None:
    page.goto(drawing)
    expect(page.locator("#pictures")).to_be_visible()
    edges = page.locator("#map").bounding_box()
    assert edges is not None
    pixel = edges["width"] / 32
    page.mouse.move(edges["x"] + 16 * pixel, edges["y"] + 16 * pixel)
    page.mouse.down()
    for step in range(1, 13):  # many changes at once, of which the last one counts
        page.mouse.move(edges["x"] + (16 + step) * pixel, edges["y"] + (16 - 0.4 * step) * pixel)
    page.mouse.up()
    wanted = {"condition": "BCC", "fitzpatrick": "III", "seed": 1}
    settled(page, drawing, **wanted, lesion_box=[21, 6, 32, 17])
    page.mouse.click(edges["x"] + 8.3 * pixel, edges["y"] + 24.3 * pixel)
    settled(page, drawing, **wanted, lesion_box=[3, 19, 14, 30])


def test_photos_by_keyboard_alone(page: Page, drawing: str, test_output: Path) -> None:
    page.goto(drawing)
    expect(page.locator("#pictures")).to_be_visible()
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if seen[-1] == "type":
            page.keyboard.press("ArrowRight")
        if seen[-1] == "map":
            for key in ("ArrowRight", "ArrowRight", "ArrowDown", "+"):
                page.keyboard.press(key)
            page.screenshot(path=test_output / "page-skin-keyboard.png", full_page=True)
        if seen[-1] == "Type VI":
            break
    assert set(seen) >= {"condition", "type", "extent", "camera", "seed", "another", "map", "save", "Type I"}
    wanted = {"condition": "BCC", "seed": 1, "lesion_box": [12, 11, 24, 23]}
    settled(page, drawing, **wanted, fitzpatrick="IV")
    page.keyboard.press("Enter")
    assert shown(page) == drawn(drawing, **wanted, fitzpatrick="VI")


def test_a_refused_change_is_told_and_passes(page: Page, drawing: str) -> None:
    page.goto(drawing)
    expect(page.locator("#pictures")).to_be_visible()
    page.locator("#seed").fill("")
    expect(page.locator("#skin-status")).to_have_text("A seed is a whole number, 0 or more.")
    busy = {"title": "Too Many Requests", "detail": "wait"}
    page.route("**/v1/skin/images", lambda route: route.fulfill(status=429, json=busy), times=6)
    page.locator("#seed").fill("5")
    expect(page.locator("#skin-status")).to_have_text("Too Many Requests: wait")
    expect(page.locator("#skin-status")).to_contain_text("Seed 5")


def labelled(page: Page, condition: str, skin_type: str, seed: int) -> None:
    """Choose a skin type, and see that its photo is labelled, and saved, as what it is."""
    page.get_by_role("button", name=f"Type {skin_type}", exact=True).click()
    named = f"Synthetic photo: {condition}, skin type {skin_type}, seed {seed}"
    expect(page.locator("#photo")).to_have_attribute("alt", named)
    expect(page.locator("#save")).to_have_attribute("download", f"synthetic-{condition}-{skin_type}-{seed}.png")


def test_a_photo_is_labelled_as_what_was_asked(page: Page, drawing: str, test_output: Path) -> None:
    page.goto(drawing)
    settled(page, drawing, condition="BCC", fitzpatrick="III", lesion_box=[11, 11, 22, 22], seed=1)
    page.locator("#seed").fill("-3")
    expect(page.locator("#skin-status")).to_have_text("A seed is a whole number, 0 or more.")
    labelled(page, "BCC", "VI", 1)
    late = {"title": "Gateway Timeout", "detail": "20 s are over"}
    page.route("**/v1/skin/images", lambda route: route.fulfill(status=504, json=late))
    page.locator("#seed").fill("5")
    page.select_option("#condition", "NEV")
    expect(page.locator("#skin-status")).to_have_text("Gateway Timeout: 20 s are over")
    labelled(page, "BCC", "II", 1)
    page.screenshot(path=test_output / "page-skin-late.png", full_page=True)
    page.unroute("**/v1/skin/images")
    held: list[Route] = []
    page.route("**/v1/skin/images", lambda route: held.append(route))
    page.locator("#seed").fill("6")
    end = time.monotonic() + 10
    while len(held) < 6:
        assert time.monotonic() < end, "the page does not ask"
        page.wait_for_timeout(20)
    labelled(page, "BCC", "IV", 1)
    for route in held:
        route.continue_()
    expect(page.locator("#skin-status")).to_contain_text("Seed 6")
    labelled(page, "NEV", "IV", 6)


def test_the_docs_are_readable(page: Page, address: str, test_output: Path) -> None:
    page.goto(f"{address}/docs")
    expect(page.get_by_role("heading", name="POST /v1/focus/scores")).to_be_visible()
    page.screenshot(path=test_output / "docs.png", full_page=True)
