"""Chromium without a window, and pages of model files in it."""

# pyright: reportMissingImports=false

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from charedge.converter.html import build_page
from charedge.runtime.model_file import read_model_file

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 1000  # as playwright counts time


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make test-browser`")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed: run `apt install chromium`")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=120 * SECONDS)  # a busy machine reads 2,000 characters in many seconds
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path):
    """A function that opens a page's bytes as a file: `open_page(data)` -> what playwright drives, and what it saw.

    At the end of the test nothing may have been written to the console, and nothing requested but the page and its worker.
    """
    opened = []

    def open_(data, **options):
        path = tmp_path / f"page{len(opened)}.html"
        path.write_bytes(data)
        context = chromium.new_context(**options)
        page, messages, requests = context.new_page(), [], []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append((context, path, messages, requests))
        page.goto(path.as_uri())
        return page

    yield open_
    for context, path, messages, requests in opened:
        context.close()
        assert messages == []
        assert [url for url in requests if not url.startswith("blob:")] == [path.as_uri()]


@pytest.fixture
def open_model(open_page):
    """A function that opens the page of a model file, and waits until it is ready."""

    def open_(path, **options):
        from playwright.sync_api import expect

        page = open_page(page_of(path), **options)
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        return page

    return open_


def page_of(path):
    return build_page(read_model_file(path), path.with_suffix(".html"))


def run(page, **fields):
    """Fill in fields by their labels, start, and wait for the end: the text, its characters' classes, status and note."""
    from playwright.sync_api import expect

    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ").capitalize(), exact=True).fill(str(value))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    given, characters = shown(page)
    return SimpleNamespace(
        text=page.locator(".plain").first.text_content(),
        given=given,
        characters=characters,
        status=page.locator("#status").text_content(),
        note=page.locator("#note").text_content(),
    )


def shown(page, column=0):
    """What a column of the page shows: the characters of the prompt, and those after it."""
    spans = page.locator(".characters").nth(column)
    return "".join(spans.locator(".given").all_text_contents()), spans.locator("span:not(.given)").all_text_contents()


def assert_contrast_of_wcag_aa(page):
    """Every text that can be seen and used has a contrast of at least 4.5 with what is behind it."""
    colours = page.evaluate("""() => {
        const solid = (element) => {
            const colour = getComputedStyle(element).backgroundColor;
            return colour === "rgba(0, 0, 0, 0)" ? solid(element.parentElement) : colour;
        };
        const shown = (element) => element.checkVisibility() && !element.closest(".hidden");
        const written = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        return [...document.body.querySelectorAll("*")]
            .filter((element) => shown(element) && written(element) && !element.closest(":disabled"))
            .map((element) => [element.outerHTML.slice(0, 80), getComputedStyle(element).color, solid(element)]);
    }""")
    assert len(colours) > 60
    for element, *pair in colours:
        lighter, darker = sorted((luminance(colour) for colour in pair), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, element


def luminance(colour):
    """Relative luminance, as WCAG defines it, of a colour as CSS writes it."""
    channels = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
