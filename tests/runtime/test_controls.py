"""The controls of sampling through the Python API: their order, alone and in pairs, and what their values may be."""

from itertools import combinations
from random import Random

import numpy as np
import pytest
import reference
from charedge.runtime.interpreter import Step
from charedge.runtime.model_file import read_model_file

from charedge import InvalidOption, load

DRAWS = 2000
PROMPT = "abcabdaea"
CONTROLS = {
    "logit_bias": {"a": 3.0, "b": -2.0, "f": 1.0},
    "banned": "cg",
    "repetition_penalty": 2.5,
    "temperature": 0.6,
    "top_k": 5,
    "top_p": 0.8,
    "min_p": 0.15,
}


@pytest.fixture(scope="module")
def made(models):
    return models(characters="\nabcdefghijk")


@pytest.fixture(scope="module")
def generator(made):
    return load(made.path)


@pytest.fixture(scope="module")
def logits(made):
    """What the model says after the prompt: float32 [V], of both signs."""
    step = Step.load(read_model_file(made.path))
    state, *ids = step.zeros(), *made.vocabulary.encode(PROMPT)
    for token in ids[:-1]:
        _, state = step(np.array([token], np.int32), state)
    found, _ = step(np.array(ids[-1:], np.int32), state)
    assert found.min() < -0.1
    assert found.max() > 0.1
    return found[0]


def expected_draws(vocabulary, logits, seed, controls):
    """The first characters of many rows, by the page's definitions."""
    ids = dict(controls)
    ids["bias"] = {int(vocabulary.encode(c)[0]): value for c, value in ids.pop("logit_bias", {}).items()}
    ids["banned"] = set(vocabulary.encode(ids.pop("banned", "")).tolist())
    window = ids.pop("repetition_window", 64)
    recent = vocabulary.encode(PROMPT[-window:]).tolist()
    return vocabulary.decode(reference.draws(reference.distribution(logits, recent=recent, **ids), seed, DRAWS))


PAIRS = [dict(pair) for pair in combinations(CONTROLS.items(), 2)]


@pytest.mark.parametrize("controls", [{}, *PAIRS, CONTROLS, {**CONTROLS, "temperature": 0}], ids=lambda c: "+".join(c))
def test_controls_act_in_the_order_of_the_page(made, generator, logits, controls):
    """Two thousand draws are those of the page's distribution, one by one."""
    controls = {"temperature": 1.0, **controls}
    drawn = "".join(generator.generate_batch([PROMPT] * DRAWS, 1, seed=11, **controls))
    assert drawn == expected_draws(made.vocabulary, logits, 11, controls)


def test_a_bias_is_added_before_the_penalty(made, generator, logits):
    """The other way round a biased character keeps the whole of its bias."""
    controls = {"logit_bias": {"a": 10.0}, "repetition_penalty": 5.0, "repetition_window": 1, "temperature": 1.0}
    drawn = "".join(generator.generate_batch([PROMPT] * DRAWS, 1, seed=12, **controls))
    assert drawn == expected_draws(made.vocabulary, logits, 12, controls)
    assert 0 < drawn.count("a") < DRAWS * 0.75


FLOATS = [0.0, -0.0, 5e-324, 1e-310, 1e-45, 1e-39, 1e-30, 1e-6, 0.5, 1.0, 1 + 2**-52, 1e6, 1e30, 1e38, 3.5e38, 1e39, 1.7e308]
FLOATS += [-x for x in FLOATS] + [float("inf"), float("-inf"), float("nan"), 1e300 * 1e300, 10**400]
INTEGERS = [0, 1, 2, 12, 13, 64, 1024, 1025, 2**31, 2**63, 10**30, -1, -(2**63), 2.5, float("nan")]


def some_controls(random):
    """One to four controls; often with values that can be, so that they meet."""
    makers = {
        "temperature": lambda: random.choice(FLOATS),
        "top_p": lambda: random.choice(FLOATS),
        "min_p": lambda: random.choice(FLOATS),
        "repetition_penalty": lambda: random.choice(FLOATS),
        "logit_bias": lambda: {c: random.choice(FLOATS) for c in random.sample("abé", 2)},
        "top_k": lambda: random.choice(INTEGERS),
        "repetition_window": lambda: random.choice(INTEGERS),
    }
    return {name: makers[name]() for name in random.sample(list(makers), random.randint(1, 4))}


def assert_names_one(error, controls):
    assert any(str(error).startswith(f"`{name}` ") for name in controls), (error, controls)


@pytest.mark.filterwarnings("error")
def test_any_number_gives_a_text_or_an_error_that_names_the_option(generator):
    random, texts, errors = Random(24), 0, 0
    for _ in range(3000):
        controls = some_controls(random)
        try:
            assert len(generator.generate("ab", 3, seed=1, **controls)) == 3, controls
            texts += 1
        except InvalidOption as error:
            assert_names_one(error, controls)
            errors += 1
    assert min(texts, errors) > 300


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--temperature", "1e38"], 2),
        (["--temperature", "1e30"], 0),
        (["--logit-bias", "e=1e39"], 2),
        (["--logit-bias", "e=-1e30"], 0),
        (["--repetition-penalty", "1e-39"], 2),
        (["--repetition-penalty", "1e-30", "--logit-bias", "e=1e30", "--temperature", "1e30"], 0),
        (["--temperature", "5e-324", "--top-p", "5e-324"], 0),
    ],
)
def test_extreme_numbers_on_the_command_line(made, charedge, options, status):
    result = charedge("generate", made.path, "--length", "20", "--seed", "1", *options)
    assert (result.status, status == 0 or result.stderr.startswith(f"charedge: {options[0]} ")) == (status, True), result.stderr


def test_the_largest_temperature_is_uniform_and_the_smallest_greedy(generator):
    drawn = generator.generate_batch(["a"] * DRAWS, 1, seed=3, temperature=1e30)
    counts = np.array([drawn.count(c) for c in "\nabcdefghijk"])
    assert ((counts - DRAWS / 12) ** 2).sum() / (DRAWS / 12) < 40  # chi-square of 11 degrees of freedom
    greedy = generator.generate("a", 20, temperature=0)
    assert generator.generate("a", 20, temperature=5e-324) == generator.generate("a", 20, temperature=1e-310, top_k=5) == greedy


def test_the_largest_bias_is_certain_and_the_smallest_a_ban(generator):
    assert generator.generate("a", 20, seed=1, logit_bias={"e": 1e30}) == "e" * 20
    assert "e" not in generator.generate("a", 300, seed=1, temperature=3.0, logit_bias={"e": -1e30})
