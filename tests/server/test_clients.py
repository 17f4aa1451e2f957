"""Programs that people have work with the server: the openai client, and curl."""

import json
import shutil
import subprocess

import pytest
from http_server import serving

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def address(model):
    with serving(model.path, token=TOKEN) as client:
        yield f"http://localhost:{client.port}"


class TestOpenAI:
    @pytest.fixture
    def openai(self):
        return pytest.importorskip("openai", reason="needs the openai package")

    @pytest.fixture
    def client(self, openai, address):
        with openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0) as client:
            yield client

    def test_it_lists_the_models(self, client, model):
        (listed,) = client.models.list().data
        assert listed.id == client.models.retrieve(listed.id).id == model.path.stem

    def test_it_gets_texts(self, client, model, loaded):
        answer = client.completions.create(model=model.path.stem, prompt="Hello ", max_tokens=30, n=2, seed=1, temperature=0.7)
        assert [choice.text for choice in answer.choices] == loaded.generate_batch(["Hello "] * 2, 30, seed=1, temperature=0.7)
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 60)

    def test_it_streams(self, client, model, loaded):
        expected = loaded.generate("Hello ", 300, seed=2, temperature=1.0)
        options = {"model": model.path.stem, "prompt": "Hello ", "max_tokens": 300, "seed": 2, "temperature": 1.0}
        stream = client.completions.create(**options, stop=expected[200:204], stream=True, stream_options={"include_usage": True})
        *parts, last = list(stream)
        text = "".join(part.choices[0].text for part in parts)
        assert text == expected[: expected.index(expected[200:204])]
        assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == ["stop"]
        assert last.usage.completion_tokens == len(text)

    def test_it_gets_log_probabilities_of_a_prompt(self, client, model, loaded):
        answer = client.completions.create(model=model.path.stem, prompt="Hello there", max_tokens=0, echo=True, logprobs=1)
        logprobs = answer.choices[0].logprobs
        assert "".join(logprobs.tokens) == "Hello there"
        first, *others = logprobs.token_logprobs
        assert first is None
        assert -sum(others) / len(others) == pytest.approx(loaded.score("Hello there").nats_per_character, abs=1e-6)

    def test_it_sends_our_own_fields(self, client, model, loaded):
        answer = client.completions.create(
            model=model.path.stem, prompt="Hello ", max_tokens=30, seed=3, extra_body={"top_k": 3, "repetition_penalty": 1.2}
        )
        assert answer.choices[0].text == loaded.generate("Hello ", 30, seed=3, top_k=3, repetition_penalty=1.2)

    def test_its_errors_say_what_is_wrong(self, openai, client, address):
        with pytest.raises(openai.UnprocessableEntityError) as wrong:
            client.completions.create(model="", prompt="a", max_tokens=-1)
        assert wrong.value.param == "max_tokens"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model="gpt-2", prompt="a")
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as other,
            pytest.raises(openai.AuthenticationError),
        ):
            other.models.list()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
class TestCurl:
    def curl(self, *arguments):
        command = ["curl", "--silent", "--show-error", "--header", f"Authorization: Bearer {TOKEN}", *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode()

    def test_it_gets_a_text(self, address, loaded):
        body = json.dumps({"prompt": "Hello ", "max_tokens": 20, "seed": 1})
        answer = self.curl("--json", body, f"{address}/v1/completions")
        assert json.loads(answer)["choices"][0]["text"] == loaded.generate("Hello ", 20, seed=1)

    def test_it_gets_a_stream(self, address, loaded):
        body = json.dumps({"prompt": "Hello ", "max_tokens": 20, "seed": 1, "stream": True})
        lines = self.curl("--no-buffer", "--json", body, f"{address}/v1/completions").splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert "".join(event["choices"][0]["text"] for event in events) == loaded.generate("Hello ", 20, seed=1)
        assert lines[-2:] == ["data: [DONE]", ""]

    def test_a_body_that_is_too_large_is_refused_before_it_is_sent(self, address, tmp_path):
        body = tmp_path / "body.json"
        body.write_text("x" * 2_000_000)
        options = ("--header", "Expect: 100-continue", "--expect100-timeout", "30", "--write-out", "%{http_code} %{size_upload}")
        answer = self.curl(*options, "--json", f"@{body}", f"{address}/v1/completions")
        assert '"too_large"' in answer
        assert answer.endswith("413 0")
