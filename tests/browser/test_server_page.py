"""The page at `/` of `charedge serve` in Chromium: what people do with it, and what it says when the server cannot answer."""

# pyright: reportMissingImports=false

import http.client
import json
import re
import socket

import numpy as np
import pytest
import reference

pytest.importorskip("starlette", reason="needs the extra `serve`")

from http_server import serving

from .conftest import assert_contrast_of_wcag_aa, run, shown

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def server(model):
    with serving(model.path) as client:
        yield client


@pytest.fixture
def visit(chromium):
    """A function that opens the page of a server: `visit(client)` -> what playwright drives, when it can start.

    At the end of the test nothing may have been written to the console but failed requests, and nothing requested elsewhere.
    """
    opened = []

    def open_(client, ready=True, **options):
        from playwright.sync_api import expect

        address = f"http://127.0.0.1:{client.port}/"
        context = chromium.new_context(**options)
        page, messages, requests = context.new_page(), [], []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append((context, address, messages, requests))
        page.goto(address)
        if ready:
            expect(page.get_by_role("button", name="Start")).to_be_enabled()
        return page

    yield open_
    for context, address, messages, requests in opened:
        context.close()
        assert [message for message in messages if not message.startswith("Failed to load resource: ")] == []
        assert [url for url in requests if not url.startswith((address, "data:"))] == []


@pytest.fixture
def page(server, visit):
    return visit(server)


@pytest.fixture
def generate(charedge, model):
    """The texts that `charedge generate` writes for some options, without the prompt."""

    def call(*options):
        return json.loads(charedge("generate", model.path, "--json", *options).stdout)["texts"]

    return call


def slide(page, **values):
    """Move sliders, by their labels, as a person does who drags them."""
    for label, value in values.items():
        page.get_by_label(label.replace("_", "-").capitalize().replace("-penalty", " penalty"), exact=True).fill(str(value))


def begin(page, characters=10_000):
    """Start a text, and wait for its first characters."""
    from playwright.sync_api import expect

    page.get_by_label("Characters").fill(str(characters))
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".characters span").nth(5)).to_be_attached()


def until(condition):
    """Ask again and again; the test's own time limit is pytest's."""
    while not condition():
        pass


def test_it_continues_a_prompt_as_charedge_generate_does(page, generate):
    result = run(page, prompt="ROMEO:\nO ", characters=300, seed=7)
    (expected,) = generate("--prompt", "ROMEO:\nO ", "--length", 300, "--seed", 7)
    assert (result.given, "".join(result.characters)) == ("ROMEO:\nO ", expected)
    assert result.text == "ROMEO:\nO " + expected
    assert re.fullmatch(r"300 characters; \d\.\d{4} nats per character; [\d,]+ characters per second; seed 7\.", result.status)


def test_every_control_means_what_it_means_on_the_command_line(page, generate):
    from playwright.sync_api import expect

    page.get_by_text("More settings").click()
    slide(page, temperature=1.5, top_p=0.9, min_p=0.01, top_k=20, repetition_penalty=1.2)
    page.get_by_label("Stop before").fill(r"\n")
    page.get_by_label("Texts").select_option("3")
    run(page, prompt="O ", characters=200, seed=3)
    options = ("--temperature", 1.5, "--top-p", 0.9, "--min-p", 0.01, "--top-k", 20, "--repetition-penalty", 1.2)
    expected = generate(*options, "--stop", r"\n", "--prompt", "O ", "--length", 200, "--seed", 3, "--samples", 3)
    assert [(given, "".join(written)) for given, written in (shown(page, i) for i in range(3))] == [
        ("O ", text) for text in expected
    ]
    assert len(set(expected)) == 3
    total = sum(map(len, expected))
    expect(page.locator("#status")).to_contain_text(f"3 texts, {total} characters; ")
    page.get_by_label("Texts").select_option("1")
    run(page)
    assert page.locator(".text").count() == 1


def test_each_character_has_the_surprise_that_numpy_computes(models, visit):
    model = models(quantization="float32")
    with serving(model.path) as client:
        page = visit(client)
        result = run(page, prompt="ROMEO:", characters=100, seed=1)
        ids = model.vocabulary.encode(result.text)
        logits, _ = reference.run_model(model.weights, ids[:-1])
        nats = -reference.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
        spans = page.locator(".characters span")
        titles = spans.evaluate_all("spans => spans.map((span) => span.title)")
        assert titles[0] == ""
        np.testing.assert_allclose([float(title.split()[-2]) for title in titles[1:]], nats, atol=0.0051)
        levels = spans.evaluate_all("spans => spans.map((span) => Number(span.className.match(/s([0-4])/)[1]))")
        assert levels[1:] == np.searchsorted([1, 2, 3, 5], nats, side="right").tolist()
        (mean,) = re.findall(r"; ([\d.]+) nats per character; ", result.status)
        assert float(mean) == pytest.approx(nats[5:].mean(), abs=1e-4)
        page.locator(".text").press("End")
        best = np.argsort(-logits[-1])[:3]
        probabilities = np.exp(reference.log_softmax(logits)[-1, best])
        expected = page.locator("#readout").text_content().split("Expected: ")[1]
        names = {" ": "space", "\n": "line end"}
        tokens, shares = zip(*re.findall(r"(\S+|line end) ([\d.]+) %[,.]", expected), strict=True)
        assert list(tokens) == [names.get(token, token) for token in (model.vocabulary.tokens[i] for i in best)]
        np.testing.assert_allclose([float(share) / 100 for share in shares], probabilities, rtol=0.051)


def test_a_score_is_the_one_of_charedge_score(page, charedge, model, tmp_path):
    text = "What light is this!\nO, so:" * 20
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    expected = json.loads(charedge("score", model.path, tmp_path / "text.txt", "--json").stdout)["nats_per_character"]
    page.get_by_text("Score", exact=True).click()
    result = run(page, text_to_score=text)
    assert (result.given, result.text) == (text[0], text)
    assert result.status.startswith(f"{len(text) - 1} characters; {expected:.4f} nats per character; ")
    assert run(page, text_to_score="a").status.startswith("The text is too short")
    assert run(page, text_to_score="").status.startswith("The text is too short")


def test_the_text_comes_while_it_is_written_and_stopping_frees_its_rows(server, page):
    page.get_by_label("Texts").select_option("4")
    begin(page)
    (engine,) = (served.engine for served in server.service.models.values())
    assert engine.rows_in_use == 4
    assert page.get_by_role("button", name="Start").is_disabled()
    page.get_by_role("button", name="Stop").click()
    status = page.locator("#status").text_content()
    assert "characters, stopped; " in status
    until(lambda: engine.rows_in_use == 0)
    written = [len(shown(page, i)[1]) for i in range(4)]
    assert f"4 texts, {sum(written):,} characters" in status
    assert all(0 < count < 10_000 for count in written)
    assert len(run(page, characters=30).characters) == 30


def test_the_keyboard_starts_stops_and_moves_through_the_texts(page):
    from playwright.sync_api import expect

    page.get_by_label("Texts").select_option("2")
    page.get_by_label("Characters").fill("10000")
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.locator(".characters").nth(1).locator("span").nth(5)).to_be_attached()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    for number in (1, 2):
        text = page.get_by_role("group", name=f"Text {number} of 2, character by character")
        text.press("ArrowRight")
        text.press("ArrowRight")
        current = page.locator(".current")
        assert current.count() == 1
        assert current.evaluate("(span) => [...span.parentNode.children].indexOf(span)") == 1
        assert text.locator(".current").count() == 1
        assert f"{current.get_attribute('title').split(': ')[1]}, a probability of " in page.locator("#readout").text_content()


def test_a_screen_reader_hears_of_the_end_and_reads_whole_texts(page):
    begin(page)
    assert page.locator(".characters").get_attribute("aria-hidden") == "true"
    assert page.locator("[aria-live] .characters, [role=status] .characters").count() == 0
    assert page.locator(".plain").text_content() == ""
    assert page.locator("#status[role=status]").text_content() == "Writing …"
    page.keyboard.press("Escape")
    assert page.locator(".plain").text_content() == "".join(shown(page)[1])
    assert "stopped" in page.locator("#status").text_content()


@pytest.mark.parametrize("unknown", ["skip", "unk"])
def test_unknown_characters_are_named_and_the_prompt_is_told_from_the_text(models, visit, charedge, unknown):
    model = models(quantization="float32", characters="\n abe\u0301", normalization="NFD", unknown=unknown)
    prompt = "\ufeffa\né漢b漢"  # with the accent of NFD, which is known
    options = ("--prompt", prompt, "--length", 50, "--temperature", 0, "--no-echo")
    expected = charedge("generate", model.path, *options).stdout
    with serving(model.path) as client:
        result = run(visit(client), prompt=prompt, characters=50, temperature=0)
    assert "".join(result.characters) == expected
    assert result.given == ("a\ne\u0301b" if unknown == "skip" else "a\ne\u0301[UNK]b[UNK]")
    assert ("漢" in result.note) == (unknown == "skip")


def test_one_of_several_models_is_chosen(models, visit, charedge):
    paths = [models(quantization="int8").path, models(quantization="float32", units=24, layers=2).path]
    with serving(*paths) as client:
        page = visit(client)
        for path, network in zip(paths[::-1], ("GRU, 2 \u00d7 24 units", "GRU, 1 \u00d7 "), strict=True):
            page.get_by_label("Model", exact=True).select_option(path.stem)
            assert page.get_by_role("heading", level=1).text_content() == path.stem
            assert network in page.locator("#card").text_content()
            text = "".join(run(page, characters=50, seed=1).characters)
            assert text == json.loads(charedge("generate", path, "--length", 50, "--seed", 1, "--json").stdout)["texts"][0]


def test_the_only_model_needs_no_choice(page, model):
    assert page.get_by_label("Model", exact=True).is_hidden()
    assert page.title() == f"{model.path.stem}: a character model"


def test_a_token_is_asked_for_and_kept_in_the_tab(model, visit):
    from playwright.sync_api import expect

    with serving(model.path, token=TOKEN) as client:
        page = visit(client, ready=False)
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        assert page.get_by_role("button", name="Start").is_disabled()
        field.fill("wrong")
        field.press("Enter")
        expect(page.locator("#note")).to_have_text("The server does not accept this token.")
        field.fill(f" {TOKEN} ")
        page.get_by_role("button", name="Connect").click()
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        expect(field).to_be_hidden()
        assert len(run(page, characters=20).characters) == 20
        page.reload()
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        assert TOKEN not in page.url
        assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]


def test_a_field_that_the_server_refuses_is_named_and_has_the_focus(page):
    result = run(page, characters=20_000)
    assert result.status == "Nothing was written."
    assert result.note.startswith("`max_tokens` must be ")
    assert page.get_by_label("Characters").evaluate("(field) => field === document.activeElement")
    assert run(page, characters=20).note == ""


def test_a_busy_server_is_reported_and_can_be_asked_again(model, visit):
    with serving(model.path, concurrency=1, queue=0, max_length=10_000_000) as client:
        page = visit(client)
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        body = json.dumps({"stream": True, "max_tokens": 10_000_000})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.readline().startswith(b"data: {")
        result = run(page, characters=20)
        assert (result.status, result.note) == ("Nothing was written.", "The server is busy: try again in a moment.")
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        response.close()
        (engine,) = (served.engine for served in client.service.models.values())
        until(lambda: engine.rows_in_use == 0)
        result = run(page)
        assert (len(result.characters), result.note) == (20, "")


def test_it_waits_for_models_that_are_still_loading(model, visit):
    from playwright.sync_api import expect

    with serving(model.path) as client:
        until(lambda: client.get("/health").status == 200)
        client.service.state = "loading"
        page = visit(client, ready=False)
        expect(page.locator("#note")).to_have_text("The models are still loading: try again in a moment.")
        assert page.get_by_role("button", name="Start").is_disabled()
        client.service.state = "ready"
        assert len(run(page, characters=20).characters) == 20
        expect(page.locator("#note")).to_be_hidden()


def test_a_server_that_goes_away_in_the_middle_of_a_text_and_comes_back(model, visit, start):
    from playwright.sync_api import expect

    def serve(port):
        server = start("serve", model.path, "--port", port)
        lines = [server.stderr.readline().decode() for _ in range(2)]
        assert "the models are loaded" in lines[1], lines
        server.port = int(lines[0].rstrip("/\n").rpartition(":")[2])
        return server

    server = serve(0)
    page = visit(server)
    begin(page)
    server.kill()
    server.communicate()
    expect(page.locator("#note")).to_have_text("The server does not answer. This page asks again until it does.")
    expect(page.locator("#status")).to_contain_text("characters, stopped; ")
    kept = shown(page)[1]
    assert len(kept) > 5
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#status")).to_have_text("Nothing was written.")
    server = serve(server.port)
    try:
        expect(page.locator("#status")).to_have_text("The server is there again.")
        expect(page.locator("#note")).to_be_hidden()
        assert len(run(page, characters=20).characters) == 20
    finally:
        server.kill()
        server.communicate()


def test_its_policy_forbids_other_scripts_and_other_servers(server, chromium):
    reply = server.get("/")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    blocked = page.evaluate("""() => {
        const violations = new Promise((resolve) => {
            const found = [];
            document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
                found.push(effectiveDirective);
                if (new Set(found).size === 3) resolve([...new Set(found)].sort());
            });
        });
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.head.appendChild(script);
        document.body.appendChild(document.createElement("p")).setAttribute("style", "color: red");
        fetch("http://127.0.0.1:9/").catch(() => {});
        return violations;
    }""")
    assert blocked == ["connect-src", "script-src-elem", "style-src-attr"]
    assert page.evaluate("window.ran === undefined")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(server, visit, scheme):
    page = visit(server, color_scheme=scheme)
    page.get_by_text("More settings").click()
    page.evaluate("document.getElementById('access').hidden = false")
    run(page, prompt="O " * 20 + "漢", characters=50)
    assert_contrast_of_wcag_aa(page)


def test_it_fits_a_phone_with_several_texts(server, visit):
    page = visit(server, viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    page.get_by_text("Settings", exact=True).click()
    page.get_by_text("More settings").click()
    page.get_by_label("Texts").select_option("4")
    run(page, prompt="O" * 100, characters=200)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    lefts = page.locator(".text").evaluate_all("boxes => boxes.map((box) => box.getBoundingClientRect().left)")
    assert len(lefts) == 4
    assert len(set(lefts)) == 1
    assert page.get_by_role("button", name="Stop").bounding_box()["y"] < 740
    page.evaluate("document.getElementById('columns').classList.add('writing')")
    cursor = "getComputedStyle(document.querySelector('.characters'), '::after').animationName"
    assert page.evaluate(cursor) == "none"
