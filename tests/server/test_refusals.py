"""What cannot be honoured is refused by name, in bounded time, and never with a server error."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from http_server import serving

WRONG = [
    ("max_tokens", -1),
    ("max_tokens", 10_001),
    ("max_tokens", 2.5),
    ("max_tokens", True),
    ("max_tokens", "5"),
    ("max_tokens", 0),  # without echo
    ("max_tokens", 10**400),
    ("temperature", -0.1),
    ("temperature", "hot"),
    ("temperature", 10**400),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", -1),
    ("min_p", 2),
    ("repetition_penalty", 0),
    ("repetition_window", 0),
    ("n", 0),
    ("n", 33),
    ("best_of", 2),
    ("stop", ""),
    ("stop", [1]),
    ("stop", ["x"] * 17),
    ("stop", []),
    ("seed", -1),
    ("seed", 2**63),
    ("echo", 1),
    ("logprobs", 21),
    ("logprobs", True),
    ("logit_bias", {"a": 101}),
    ("logit_bias", {"ab": 1}),
    ("logit_bias", {"é": 1}),
    ("logit_bias", {"": 1}),
    ("logit_bias", {"0": 1}),
    ("logit_bias", {"99999": 1}),
    ("logit_bias", [1]),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),  # without stream
    ("stream_options", {"include_everything": True}),
    ("pattern", "("),
    ("pattern", "x" * 1001),
    ("end_at", "word"),
    ("adapt", "yes"),
    ("adapt_rate", 0),
    ("session", "a/b"),
    ("session", ".hidden"),
    ("session", "x" * 65),
    ("session", "name\n"),
    ("prompt", 5),
    ("prompt", [1, 2, 3]),
    ("prompt", [[1, 2], [3]]),
    ("prompt", []),
    ("prompt", ["a"] * 33),
    ("prompt", "x" * 100_001),
    ("prompt", ["x" * 60_000] * 2),
    ("suffix", "the end"),
    ("presence_penalty", 0.5),
    ("frequency_penalty", False),
    ("user", "somebody"),
    ("tempreature", 1),
    ("model", 5),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda value: repr(value)[:30])
def test_a_field_that_cannot_be_honoured_is_named(client, field, value):
    reply = client.complete(**{field: value})
    assert (reply.status, reply.error["param"]) == (422, field)
    assert f"`{field}`" in reply.error["message"]
    assert len(reply.error["message"]) < 600


TOGETHER = [
    ("n", {"prompt": ["a"] * 20, "n": 2}),
    ("session", {"session": "s", "n": 2}),
    ("session", {"session": "s", "prompt": ["a", "b"]}),
    ("session", {"session": "s", "max_tokens": 0, "echo": True}),
    ("logprobs", {"logprobs": 20, "n": 32, "max_tokens": 1000}),
    ("logprobs", {"logprobs": 5, "prompt": "x" * 50_000, "echo": True, "max_tokens": 0}),
    ("end_at", {"end_at": "line", "pattern": "a+"}),
    ("adapt_rate", {"adapt_rate": 0.01}),
    ("adapt_rate", {"adapt": False, "adapt_rate": 0.01}),
]


@pytest.mark.parametrize(("field", "fields"), TOGETHER, ids=repr)
def test_fields_that_do_not_go_together_are_named(client, field, fields):
    reply = client.complete(**fields)
    assert (reply.status, reply.error["param"]) == (422, field)


BODIES = {
    b"": 400,
    b"{": 400,
    b"nonsense": 400,
    b"\xff\xfe{}": 400,
    b'{"prompt": "\xff"}': 400,
    b'\xef\xbb\xbf{"prompt": "a"}': 400,
    b'{"temperature": NaN}': 400,
    b'{"temperature": Infinity}': 400,
    b'{"temperature": 1e999}': 400,
    b'{"seed": ' + b"9" * 5000 + b"}": 400,
    b'{"seed": 1, "seed": 2}': 400,
    b'{"prompt": "\\ud800"}': 400,
    b'{"\\udfff": 1}': 400,
    b'{"prompt": "a" /* comment */}': 400,
    b"[" * 50_000: 400,
    b'{"prompt":' * 20_000: 400,
    b"[" * 3_000 + b"]" * 3_000: 400,
    b"[]": 422,
    b"null": 422,
    b'"text"': 422,
    b"{}": 200,
    b'{"prompt": "\\ud83d\\ude00", "max_tokens": 1}': 200,
    b' {"max_tokens": 1.0} \r\n': 200,
}


@pytest.mark.parametrize(("body", "status"), BODIES.items(), ids=lambda value: repr(value)[:30])
def test_a_body_that_is_not_a_json_object_is_refused(client, body, status):
    for path in ("/v1/completions", "/v1/score"):
        reply = client.ask("POST", path, body, **{"Content-Type": "application/json"})
        expected = {200: 422}.get(status, status) if path == "/v1/score" else status  # without a text
        assert reply.status == expected, reply.body
        assert reply.status == 200 or reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_body_of_another_type_is_refused(client, kind):
    """A form in a page of another site can only send these."""
    reply = client.ask("POST", "/v1/completions", b'{"prompt": "a"}', **({"Content-Type": kind} if kind else {}))
    assert (reply.status, reply.error["code"]) == (415, "content_type")
    kind = "Application/JSON; charset=utf-8"
    assert client.ask("POST", "/v1/completions", b'{"max_tokens": 1}', **{"Content-Type": kind}).status == 200


def test_what_is_not_there_is_said(client):
    for reply in (
        client.get("/nothing"),
        client.get("/v1/models/nothing"),
        client.get("/v1/completions/"),
        client.complete(model="x"),
    ):
        assert (reply.status, reply.error["type"]) == (404, "not_found_error")
    reply = client.ask("DELETE", "/v1/completions")
    assert (reply.status, reply.headers["allow"], reply.error["code"]) == (405, "POST", "method_not_allowed")


def test_a_text_to_score_is_needed_and_must_have_a_prediction(client):
    for body, code in (({}, "missing_field"), ({"text": "a"}, "too_short"), ({"text": None}, "missing_field")):
        reply = client.ask("POST", "/v1/score", body)
        assert (reply.status, reply.error["param"], reply.error["code"]) == (422, "text", code)
    assert client.ask("POST", "/v1/score", {"text": "some text", "adapt_rate": 0.01}).error["param"] == "adapt_rate"


def test_a_pattern_that_takes_exponential_time_ends_with_an_error(client, loaded):
    """After some `a`, every `b` that the model would rather write takes twice as long to be refused; others get their texts."""
    pytest.importorskip("regex")
    slow = {"pattern": r"(a|aa)+!", "logit_bias": {"b": 100, "a": 50}, "max_tokens": 1000, "temperature": 0}
    reply = client.complete(**slow)
    assert (reply.status, reply.error["param"]) == (422, "pattern")
    assert "too long to match" in reply.error["message"]
    assert client.texts(prompt="A", max_tokens=20, seed=1) == [loaded.generate("A", 20, seed=1)]


def test_a_text_that_fails_takes_its_job_and_no_other(client, loaded):
    """Of several texts, those that begin with `a` come to a dead end, and those with `b` go on; another client's go on, too."""
    pytest.importorskip("regex")
    fails = {"pattern": "(a{3}€|b{500})", "n": 8, "max_tokens": 1000, "logit_bias": {"a": 50, "b": 50}}
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(client.texts, prompt="A", max_tokens=5000, seed=1)
        replies = [client.complete(**fails, seed=1)]
        while not other.done():
            replies.append(client.complete(**fails, seed=len(replies) + 1))
        assert other.result() == [loaded.generate("A", 5000, seed=1)]
    assert {(reply.status, reply.error["param"]) for reply in replies} == {(422, "pattern")}


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("((a{1000}){1000}){1000}", "more than 10,000 characters"),
        ("a{100000000}", "more than 10,000 characters"),
        ("(?x)(a{1000} # )\n){1000}", "more than 10,000 characters"),
        ("(a{1000}(?#()){1000}", "more than 10,000 characters"),
        ("(" * 450 + "a" + ")" * 450, "groups in one another"),
    ],
)
def test_a_pattern_that_would_take_all_memory_is_refused(client, pattern, reason):
    pytest.importorskip("regex")
    reply = client.complete(pattern=pattern, max_tokens=5)
    assert (reply.status, reply.error["param"], reason in reply.error["message"]) == (422, "pattern", True)


def test_a_pattern_that_is_not_complete_in_time_is_an_error_in_a_stream_too(client):
    pytest.importorskip("regex")
    reply = client.complete(pattern="[a-z]{50}", max_tokens=10)
    assert (reply.status, reply.error["param"]) == (422, "pattern")
    assert "`max_tokens`" in reply.error["message"]
    assert client.complete(pattern="[a-z]{50}", max_tokens=10, stream=True).status == 422


def test_a_server_has_its_own_limits(model):
    with serving(model.path, max_length=20, max_prompt=10, max_body=200, concurrency=2) as client:
        assert client.texts() == client.texts(max_tokens=20) or len(client.texts()[0]) == 20
        assert client.complete(max_tokens=21).error["param"] == "max_tokens"
        assert client.complete(prompt="x" * 11).error["param"] == "prompt"
        assert client.complete(n=3).error["param"] == "n"
        assert client.ask("POST", "/v1/score", {"text": "x" * 11}).error["param"] == "text"
        reply = client.complete(prompt="x" * 200)
        assert (reply.status, reply.error["code"], reply.headers["connection"]) == (413, "too_large", "close")


def test_two_models_are_chosen_by_name(models):
    paths = [models(quantization="int8").path, models().path]
    with serving(*paths) as client:
        listed = client.get("/v1/models").json
        assert [entry["id"] for entry in listed["data"]] == [path.stem for path in paths]
        assert listed["data"][0]["manifest"]["quantization"] == "int8"
        assert listed["data"][0]["manifest"]["bytes"] == paths[0].stat().st_size
        assert client.get(f"/v1/models/{paths[1].stem}").json == listed["data"][1]
        texts = [client.texts(model=path.stem, max_tokens=40, seed=1, prompt="A") for path in paths]
        assert texts[0] != texts[1]
        reply = client.complete(prompt="a")
        assert (reply.status, reply.error["param"]) == (422, "model")
        assert all(path.stem in reply.error["message"] for path in paths)
        assert client.ask("POST", "/v1/score", {"text": "abc", "model": paths[1].stem}).json["model"] == paths[1].stem
        assert json.loads(client.get("/health").body) == {"status": "ok"}
