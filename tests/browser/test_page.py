"""The page of `charedge convert --format html` in Chromium: what people do with it, and what it computes."""

# pyright: reportMissingImports=false

import base64
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from charedge.converter.html import build_page
from charedge.runtime.bundled import FOLDER, NAMES
from charedge.runtime.manifest import LogitTemperature, TemperatureFit
from charedge.runtime.model_file import read_model_file
from conftest import DATA
from model_files import CHARACTERS

from .conftest import assert_contrast_of_wcag_aa, page_of, run

SHAPES = [
    {"cell": cell, "layers": layers, "embedding_dim": embedding_dim}
    for cell in ("gru", "lstm")
    for layers, embedding_dim in ((1, 16), (2, 64))
]
"""Networks whose input table is folded, and ones where folding does not pay."""
TINY = FOLDER / "shakespeare-tiny.tflite"
LARGE = FOLDER / "shakespeare.tflite"
"""Takes so long for 20,000 characters that a test can do something before they are written."""


def found(pattern, text):
    """The first group of a pattern, which must be in a text."""
    match = re.search(pattern, text)
    assert match, text
    return match[1]


@pytest.fixture
def page(models, open_model):
    """A page of a small model."""
    return open_model(models(quantization="int8").path)


@pytest.fixture
def scripts(chromium):
    """A function that opens an empty page with the worker's program of a model's page in it, to call its functions."""
    opened = chromium.new_page()

    def load(path):
        content = found(r'(?s)<script type="text/plain" id="worker">(.*?)</script>', page_of(path).decode())
        opened.add_script_tag(content=content)
        return opened

    yield load
    opened.close()


def test_it_continues_a_prompt(page):
    result = run(page, prompt="ROMEO:\nO ", characters=1000, seed=1)
    assert result.given == "ROMEO:\nO "
    assert len(result.characters) == 1000
    assert set(result.characters) <= set(CHARACTERS)
    assert result.text == result.given + "".join(result.characters)
    assert re.match(r"1,000 characters; \d\.\d{4} nats per character; [\d,]+ characters per second; seed 1\.", result.status)


def test_the_text_comes_while_it_is_written_and_stops_when_asked(open_model):
    from playwright.sync_api import expect

    page = open_model(LARGE)
    page.get_by_label("Characters").fill("20000")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".characters span").nth(50)).to_be_attached()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    written = len(page.locator(".plain").text_content())
    assert 50 <= written < 20000
    assert f"{written:,} characters, stopped" in page.locator("#status").text_content()
    assert len(run(page, characters=30).characters) == 30


def test_the_keyboard_starts_stops_and_moves_through_the_text(open_model):
    from playwright.sync_api import expect

    page = open_model(LARGE)
    page.get_by_label("Characters").fill("20000")
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.locator(".characters span").nth(5)).to_be_attached()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    text = page.get_by_role("group", name="Text, character by character")
    text.press("ArrowRight")
    text.press("ArrowRight")
    second = page.locator(".characters .current")
    assert second.evaluate("span => [...span.parentNode.children].indexOf(span)") == 1
    nats = float(found(r": ([\d.]+) nats", second.get_attribute("title")))
    assert f" {nats:.2f} nats, a probability of " in page.locator("#readout").text_content()


def test_the_characters_of_the_prompt_have_the_surprise_of_a_score(page):
    text = "ROMEO:\nO, so"
    page.get_by_text("Score", exact=True).click()
    run(page, text_to_score=text)
    scored = page.locator(".characters span").evaluate_all("spans => spans.map(span => [span.textContent, span.title])")
    page.get_by_text("Write", exact=True).click()
    run(page, prompt=text, characters=10)
    prompt = page.locator(".characters .given").evaluate_all("spans => spans.map(span => [span.textContent, span.title])")
    assert prompt == scored
    assert [title != "" for _, title in prompt] == [False] + [True] * (len(text) - 1)


def test_a_seed_gives_the_same_text_again(page):
    first = run(page, characters=200, seed=7)
    assert run(page).text == first.text
    assert run(page, seed=8).text != first.text
    assert run(page, seed=7 + 2**32).text != first.text
    drawn = run(page, seed="")
    assert run(page, seed=found(r"seed (\d+)", drawn.status)).text == drawn.text


def test_without_a_prompt_it_begins_from_the_start_text(models, open_model, charedge):
    model = models(quantization="float32", start_text="Once")
    page = open_model(model.path)
    for prompt in ("", "Once", "The end"):
        expected = charedge("generate", model.path, "--prompt", prompt, "--length", 100, "--temperature", 0)
        result = run(page, prompt=prompt, characters=100, temperature=0)
        assert (result.given, result.text) == (prompt, expected.stdout)


@pytest.mark.parametrize("unknown", ["skip", "unk"])
def test_unknown_characters_are_named_and_treated_as_on_a_device(models, open_model, charedge, unknown):
    model = models(quantization="float32", characters="\n abe\u0301", normalization="NFD", unknown=unknown)
    prompt = "\ufeffa\r\né漢b"  # with the accent of NFD, which is known
    expected = charedge("generate", model.path, "--prompt", prompt, "--length", 50, "--temperature", 0, "--no-echo")
    result = run(open_model(model.path), prompt=prompt, characters=50, temperature=0)
    assert "".join(result.characters) == expected.stdout
    assert result.given == ("a\ne\u0301b" if unknown == "skip" else "a\ne\u0301漢b")
    assert "漢" in result.note
    assert ("left out" if unknown == "skip" else "[UNK]") in result.note


@pytest.mark.parametrize("place", [0.02, 0.5, 0.97, 1.0])
def test_a_page_with_one_damaged_byte_says_so_and_writes_nothing(open_page, model, place):
    from playwright.sync_api import expect

    data = bytearray(page_of(model.path))
    found = re.search(rb'id="model"[^>]*>([^<]*)<', data)
    at = found.start(1) + int(place * (found.end(1) - found.start(1) - 4))
    data[at] = ord("B") if data[at] == ord("A") else ord("A")
    page = open_page(bytes(data))
    expect(page.locator("#note")).to_have_text(re.compile(r"^This page is damaged \(.*\): download or export it again\.$"))
    assert page.get_by_role("button", name="Start").is_disabled()
    page.keyboard.press("Control+Enter")
    assert page.locator(".characters span").count() == 0


def test_a_page_that_was_cut_short_says_so(open_page, model):
    from playwright.sync_api import expect

    data = page_of(model.path).decode()
    page = open_page(re.sub(r'(id="model"[^>]*>.{4000})[^<]*', r"\1", data).encode())
    expect(page.locator("#note")).to_contain_text("This page is damaged (the model has 3000 bytes instead of")


def test_a_browser_that_computes_something_else_is_refused(open_page, model):
    from playwright.sync_api import expect

    file = read_model_file(model.path)
    probe = replace(file.manifest.probe, nats_per_character=file.manifest.probe.nats_per_character + 0.1)
    page = open_page(build_page(replace(file, manifest=replace(file.manifest, probe=probe)), model.path))
    expect(page.locator("#note")).to_contain_text("This model does not work in this browser (its self-test gives ")
    assert page.get_by_role("button", name="Start").is_disabled()


def as_stored(weights, quantization, folded):
    """The weights as a file of that quantization has them, as `reference.run_model` takes them: rounded here, in numpy."""

    def round_to(array, axis):
        if quantization == "float32":
            return array
        if quantization == "float16":
            return array.astype(np.float16).astype(np.float32)
        scale = (np.abs(array).max(axis=axis, keepdims=True) / 127).astype(np.float32)
        return np.clip(np.rint(array / scale), -127, 127) * scale

    def bias(array):
        return array if array is None or quantization != "float16" else round_to(array, 0)

    layers = []
    for i, layer in enumerate(weights.layers):
        kernel, input_bias = round_to(layer.kernel, 0), bias(layer.input_bias)  # a scale for each output: a column here
        if i == 0 and folded:  # the table is a matrix that multiplies one-hot rows
            kernel = round_to(weights.embedding @ layer.kernel + layer.input_bias, 0)
            input_bias = np.zeros_like(layer.input_bias)
        layers.append(
            SimpleNamespace(
                kernel=kernel,
                recurrent_kernel=round_to(layer.recurrent_kernel, 0),
                input_bias=input_bias,
                recurrent_bias=bias(layer.recurrent_bias),
            )
        )
    return SimpleNamespace(
        cell=weights.cell,
        embedding=np.eye(len(weights.embedding)) if folded else round_to(weights.embedding, 0),
        layers=layers,
        output_kernel=round_to(weights.output_kernel, 0),
        output_bias=bias(weights.output_bias),
    )


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8-static"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_the_logits_are_those_of_the_formulas(models, scripts, shape, quantization):
    model = models(quantization=quantization, **shape)
    folded = shape["embedding_dim"] == 64
    assert read_model_file(model.path).manifest.input_table_folded == folded
    expected, _ = reference.run_model(as_stored(model.weights, quantization, folded), model.held_out[:100])
    data = model.path.read_bytes()
    logits = scripts(model.path).evaluate(
        """([base64, bytes, ids]) => {
            const step = new Step(readModelFile(decodeBase64(base64, bytes)));
            return ids.map((id) => Array.from(step.advance(id)));
        }""",
        [base64.b64encode(data).decode(), len(data), model.held_out[:100].tolist()],
    )
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("temperature", "top_p"), [(1, 1), (0.5, 1), (2, 0.9), (0.8, 0.5), (1, 0.05), (0, 1), (0, 0.5)])
def test_sampling_means_what_it_means_on_a_device(model, scripts, temperature, top_p):
    logits = np.random.default_rng(3).normal(0, 3, 60)
    logits[0] = 20  # [UNK] is never drawn
    page = scripts(model.path)
    weights = page.evaluate(
        "([l, t, p]) => Array.from(weightsOf(Float64Array.from(l), t, p))", [logits.tolist(), temperature, top_p]
    )
    expected = reference.distribution(logits, temperature=temperature, top_p=top_p)
    np.testing.assert_allclose(np.array(weights) / np.sum(weights), expected, atol=1e-12)
    drawn = page.evaluate(
        """([weights, seed, count]) => {
            const random = randomFrom(seed);
            return Array.from({ length: count }, () => draw(weights, random));
        }""",
        [weights, 5, 50_000],
    )
    share = np.bincount(drawn, minlength=60) / 50_000
    assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / 50_000)).all()


@pytest.mark.skipif(not (DATA / "shakespeare.txt").exists(), reason="no shakespeare.txt in $CHAREDGE_DATA")
@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_devices(open_model, charedge, tmp_path, name):
    text = (DATA / "shakespeare.txt").read_text(encoding="utf-8")[-2100:]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    expected = json.loads(charedge("score", name, tmp_path / "text.txt", "--json").stdout)
    page = open_model(FOLDER / f"{name}.tflite")
    page.get_by_text("Score", exact=True).click()
    result = run(page, text_to_score=text)
    assert len(result.characters) == expected["characters"] - 1 == 2099
    assert result.text == text
    nats = float(found(r"; ([\d.]+) nats per character", result.status))
    assert nats == pytest.approx(expected["nats_per_character"], abs=0.001)


def test_a_text_too_short_to_score_is_refused(page):
    page.get_by_text("Score", exact=True).click()
    assert run(page, text_to_score="a").status == "The text is too short: two characters that the model knows are needed."


def test_a_number_that_cannot_be_is_not_taken(page):
    page.get_by_label("Characters").fill("0")
    page.get_by_label("Prompt").press("Control+Enter")
    assert page.get_by_label("Characters").evaluate("input => input.matches(':invalid:focus')")
    assert page.locator(".characters span").count() == 0


def test_the_card_says_what_the_model_is(open_model):
    manifest = read_model_file(TINY).manifest
    card = open_model(TINY).locator("#card").text_content()
    for value in (
        manifest.name,
        manifest.license,
        manifest.training["notes"],
        "GRU, 2 \u00d7 160 units",
        manifest.flatbuffer_sha256,
    ):
        assert value in card
    assert f"{manifest.verified[0].nats_per_character:.4f} nats per character" in card


def test_the_card_has_no_loss_over_text_that_the_temperature_was_fitted_on(open_page, tmp_path):
    file = read_model_file(TINY)
    fitted = LogitTemperature(1.1, TemperatureFit(20_000, 1.5125, 1.6))
    page = open_page(build_page(replace(file, manifest=replace(file.manifest, logit_temperature=fitted)), tmp_path / "page.html"))
    card = page.locator("#card")
    card.locator("dt", has_text="Measured").wait_for(state="attached")
    assert "1.5125 nats per character in Keras, each half of the held-out text" in card.text_content()
    assert f"{file.manifest.verified[0].nats_per_character:.4f}" not in card.text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(open_model, scheme):
    page = open_model(TINY, color_scheme=scheme)
    run(page, prompt="O ", characters=50)
    assert_contrast_of_wcag_aa(page)


def test_it_fits_a_phone(open_model):
    page = open_model(TINY, viewport={"width": 360, "height": 740})
    page.get_by_text("Settings").click()
    run(page, prompt="O " * 100, characters=200)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.get_by_role("button", name="Stop").bounding_box()["y"] < 740
