"""`POST /v1/completions`: its texts are those of `charedge generate`, whatever else is written, and its figures those of numpy."""

import threading

import numpy as np
import pytest
import reference
from http_server import serving

PROMPT = "Hello there, "
CONTROLS = [
    ({}, ()),
    ({"temperature": 0}, ("--temperature", 0)),
    ({"temperature": 1.3, "top_k": 5}, ("--temperature", 1.3, "--top-k", 5)),
    (
        {"top_p": 0.5, "repetition_penalty": 1.5, "repetition_window": 9},
        ("--top-p", 0.5, "--repetition-penalty", 1.5, "--repetition-window", 9),
    ),
    ({"min_p": 0.02, "logit_bias": {"e": 3, "a": -100}}, ("--min-p", 0.02, "--logit-bias", "e=3", "--logit-bias", "a=-100")),
    ({"stop": "e"}, ("--stop", "e")),
    ({"stop": ["xy", "a"]}, ("--stop", "xy", "--stop", "a")),
    ({"end_at": "line", "max_tokens": 20}, ("--end-at", "line", "--length", 20)),
    ({"adapt": True, "adapt_rate": 0.01}, ("--adapt", "--adapt-rate", 0.01)),
    ({"prompt": ""}, ("--prompt", "")),
    ({"n": 3}, ("--samples", 3)),
]


def asked(fields, options):
    """Fields and options that ask for the same texts."""
    return (
        {"prompt": PROMPT, "max_tokens": 60, "seed": 5, **fields},
        ("--prompt", fields.get("prompt", PROMPT), "--length", 60, "--seed", 5, *options),
    )


@pytest.mark.parametrize(("fields", "options"), CONTROLS, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_text_is_the_one_that_charedge_generate_writes(client, generate, fields, options):
    fields, options = asked(fields, options)
    expected = generate(*options)
    assert client.texts(**fields) == expected
    assert client.streamed(**fields) == expected


def test_a_field_that_is_left_out_or_null_has_the_value_that_charedge_generate_gives_it(client, generate):
    (text,) = client.texts(prompt=PROMPT, seed=1)
    assert [text] == generate("--prompt", PROMPT, "--seed", 1)
    assert len(text) == 500
    empty = dict.fromkeys(("max_tokens", "temperature", "stop", "pattern", "user", "suffix", "session", "stream_options"))
    empty.pop("user")
    assert client.texts(prompt=PROMPT, seed=1, **empty) == [text]


def test_a_pattern_is_matched_as_charedge_generate_matches_it(client, generate):
    pytest.importorskip("regex")
    fields, options = asked({"pattern": "[A-Z][a-z]{3,9}"}, ("--pattern", "[A-Z][a-z]{3,9}"))
    assert client.texts(**fields) == client.streamed(**fields) == generate(*options)


def test_every_text_among_many_is_the_one_that_is_written_alone(client, loaded):
    """More prompts than rows, of different lengths, that join and leave while the others are written."""
    texts = {}

    def ask(number):
        ways = (client.texts, client.streamed)
        texts[number] = ways[number % 2](prompt=PROMPT * (1 + number % 5), max_tokens=30 + 7 * number, seed=number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(48):
        assert texts[number] == [loaded.generate(PROMPT * (1 + number % 5), 30 + 7 * number, seed=number)]


def test_each_prompt_of_a_list_has_its_own_texts(client, loaded):
    prompts = ["One ", "Two ", ""]
    reply = client.complete(prompt=prompts, n=2, max_tokens=20, seed=3).json
    expected = [text for prompt in prompts for text in loaded.generate_batch([prompt, prompt], 20, seed=3)]
    assert [choice["text"] for choice in reply["choices"]] == expected
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    assert reply["usage"] == {"prompt_tokens": 8, "completion_tokens": 120, "total_tokens": 128}
    assert client.streamed(prompt=prompts, n=2, max_tokens=20, seed=3) == expected


def test_an_answer_has_the_shape_of_a_completion(client, model):
    reply = client.complete(prompt="A", max_tokens=5, stop=["never written"]).json
    assert reply.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert (reply["object"], reply["model"]) == ("text_completion", model.path.stem)
    assert reply["choices"][0].keys() == {"text", "index", "logprobs", "finish_reason"}
    assert (reply["choices"][0]["logprobs"], reply["choices"][0]["finish_reason"]) == (None, "length")
    first, *_ = client.complete(prompt="A", max_tokens=5, stream=True).events
    assert first.keys() == {"id", "object", "created", "model", "choices"}
    (text,) = client.texts(prompt="A", max_tokens=60, seed=1)
    assert client.complete(prompt="A", max_tokens=60, seed=1, stop=text[10:14]).json["choices"][0]["finish_reason"] == "stop"


def test_a_stream_reports_its_usage_when_it_is_asked_to(client):
    *_, last = client.complete(prompt="ABC", max_tokens=9, stream=True, stream_options={"include_usage": True}).events
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert all("usage" not in event for event in client.complete(prompt="ABC", max_tokens=9, stream=True).events)


@pytest.fixture(scope="module")
def exact(models):
    """A client of a server whose model was not quantised, and the model."""
    model = models()
    with serving(model.path) as client:
        yield client, model


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_models_formula(exact, stream):
    client, model = exact
    fields = {
        "prompt": "Good day",
        "max_tokens": 12,
        "seed": 2,
        "logprobs": 3,
        "echo": True,
        "temperature": 2,
        "logit_bias": {"e": 5},
    }
    if stream:
        parts = [choice["logprobs"] for event in client.complete(**fields, stream=True).events for choice in event["choices"]]
        found = {key: [value for part in parts for value in part[key]] for key in parts[0]}
        (text,) = client.streamed(**fields)
    else:
        (choice,) = client.complete(**fields).json["choices"]
        found, text = choice["logprobs"], choice["text"]
    assert text.startswith("Good day")
    assert "".join(found["tokens"]) == text
    assert [text[offset] for offset in found["text_offset"]] == found["tokens"]
    ids = model.vocabulary.encode(text)
    logits, _ = reference.run_model(model.weights, ids[:-1])
    expected = reference.log_softmax(logits)
    assert found["token_logprobs"][0] is None
    np.testing.assert_allclose(found["token_logprobs"][1:], expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    assert found["top_logprobs"][0] is None
    for row, top in zip(expected, found["top_logprobs"][1:], strict=True):
        assert len(top) == 3
        np.testing.assert_allclose(list(top.values()), np.sort(row)[::-1][:3], atol=1e-4)
        np.testing.assert_allclose([row[model.vocabulary.tokens.index(token)] for token in top], list(top.values()), atol=1e-4)


def test_without_echo_the_first_character_has_a_log_probability(client):
    (choice,) = client.complete(prompt="Good day", max_tokens=3, logprobs=0).json["choices"]
    assert all(value < 0 for value in choice["logprobs"]["token_logprobs"])
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]
    assert choice["logprobs"]["top_logprobs"] == [None, None, None]


def test_a_prompt_is_scored_without_writing(client, loaded):
    text = "What is to be read, not written"
    (choice,) = client.complete(prompt=text, max_tokens=0, echo=True, logprobs=0).json["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")
    first, *others = choice["logprobs"]["token_logprobs"]
    assert first is None
    assert -sum(others) / len(others) == pytest.approx(loaded.score(text).nats_per_character, abs=1e-6)


def test_a_bias_is_by_character_or_by_the_number_of_a_token(client, model):
    number = str(model.vocabulary.tokens.index("q"))
    by_number = client.texts(prompt="A", max_tokens=9, logit_bias={number: 100})
    assert by_number == client.texts(prompt="A", max_tokens=9, logit_bias={"q": 100}) == ["q" * 9]


@pytest.mark.parametrize("stream", [False, True])
def test_characters_that_the_model_does_not_know_are_left_out_with_a_warning(client, stream):
    reply = client.complete(prompt="Aé€B", max_tokens=5, echo=True, seed=1, stream=stream)
    last = reply.events[-1] if stream else reply.json
    (warning,) = last["warnings"]
    assert "U+00E9" in warning
    assert "U+20AC" in warning
    texts = client.streamed if stream else client.texts
    assert texts(prompt="Aé€B", max_tokens=5, echo=True, seed=1) == texts(prompt="AB", max_tokens=5, echo=True, seed=1)


def test_a_score_is_the_one_of_charedge_score(client, loaded):
    text = "The text, é and all, is scored as charedge score does"
    for fields in ({}, {"adapt": True, "adapt_rate": 0.01}):
        with pytest.warns(UserWarning, match="U\\+00E9"):
            expected = loaded.score(text, **fields)
        reply = client.ask("POST", "/v1/score", {"text": text, **fields}).json
        assert {key: reply[key] for key in vars(expected)} == vars(expected)
        assert "U+00E9" in reply["warnings"][0]
