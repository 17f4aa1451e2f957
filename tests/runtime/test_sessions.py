import json
import signal
import subprocess
import sys
from random import Random

import pytest
from conftest import command

from charedge import CharedgeError, load


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.mark.parametrize(
    "controls", [{}, {"temperature": 0}, {"top_p": 0.9}, {"repetition_penalty": 1.3}, {"stop": ["qqqq"]}], ids=str
)
@pytest.mark.parametrize("parts", [[1, 1, 1], [10, 20], [63, 1, 70], [64, 64], [130, 7]])
def test_parts_are_identical_to_an_uninterrupted_text(generator, tmp_path, parts, controls):
    session = tmp_path / "session.json"
    first, *rest = parts
    text = generator.generate("Hello", first, seed=7, session=session, **controls)
    for length in rest:
        text += generator.generate("", length, session=session, **controls)
    assert text == generator.generate("Hello", sum(parts), seed=7, **controls)


def test_an_abandoned_text_resumes_after_the_last_piece(generator, tmp_path):
    session = tmp_path / "session.json"
    pieces = generator.stream("Hello", 1000, seed=7, session=session)
    text = "".join(next(pieces) for _ in range(37))
    pieces.close()
    text += generator.generate("", 20, session=session)
    assert text == generator.generate("Hello", 57, seed=7)


def test_a_prompt_is_added_to_a_session(generator, tmp_path):
    session = tmp_path / "session.json"
    first = generator.generate("Hello", 10, temperature=0, session=session)
    second = generator.generate(" World", 10, temperature=0, session=session)
    assert second == generator.generate("Hello" + first + " World", 10, temperature=0)


def test_the_end_of_the_text_is_kept(generator, tmp_path):
    session = tmp_path / "session.json"
    text = "Hello" + generator.generate("Hello", 3000, seed=1, session=session)
    assert json.loads(session.read_text())["tail"] == text[-1024:]


def test_the_recent_characters_of_a_long_text_are_kept(generator, tmp_path):
    session = tmp_path / "session.json"
    controls = {"repetition_penalty": 1.5, "repetition_window": 900, "top_p": 0.9}
    prompt = "Some prompt of the text. " * 60
    text = generator.generate(prompt, 700, seed=7, session=session, **controls)
    text += generator.generate("", 700, session=session, **controls)
    assert text == generator.generate(prompt, 1400, seed=7, **controls)
    generator.generate("XyZ", 1, session=session)
    assert json.loads(session.read_text())["tail"][-4:-1] == "XyZ"


def test_unknown_characters_keep_their_place_among_the_recent_ones(models, tmp_path):
    """To a model that was trained with `[UNK]` they are characters of the text, which the penalty's window counts."""
    generator = load(models(characters="abcdefgh\n", unknown="unk").path)
    random = Random(8)
    for number in range(25):
        prompt = "".join(random.choices("abcdéü😀", k=12))
        controls = {"repetition_penalty": 4.0, "repetition_window": random.randint(4, 12)}
        session = tmp_path / f"{number}.json"
        text = generator.generate(prompt, 2, seed=number, session=session, **controls)
        text += generator.generate("", 1, session=session, **controls)
        text += generator.generate("", 10, session=session, **controls)
        assert text == generator.generate(prompt, 13, seed=number, **controls)


def test_a_text_resumes_after_a_pattern(generator, tmp_path):
    session = tmp_path / "session.json"
    name = generator.generate("A", 50, temperature=0, pattern="[A-Z][a-z]{2}", session=session)
    rest = generator.generate("", 20, temperature=0, session=session)
    assert rest == generator.generate("A" + name, 20, temperature=0)


def test_ctrl_c_saves_what_was_written(model, generator, start, tmp_path):
    session = tmp_path / "session.json"
    writer = start("generate", model.path, "--no-echo", "--length", "100000000", "--seed", "7", "--session", session)
    first = writer.stdout.read(1)
    writer.send_signal(signal.SIGINT)
    text = (first + writer.stdout.read()).decode()
    assert writer.wait() == 130
    rest = generator.generate("", 50, session=session)
    assert text + rest == generator.generate("", len(text) + 50, seed=7)


def test_a_kill_never_leaves_an_unreadable_session(model, generator, tmp_path):
    """A program that does nothing but save is killed at some moment of it, again and again."""
    session = tmp_path / "session.json"
    program = (
        "import sys; from charedge import load; generator = load(sys.argv[1])\n"
        "while True: print(generator.generate('', 1, seed=7, session=sys.argv[2]), end='', flush=True)"
    )
    text = ""
    for count in range(1, 16):
        arguments = [sys.executable, "-c", program, model.path, session]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            writer.stdout.read(count)
            writer.kill()
        saved = json.loads(session.read_text())["tail"]
        assert saved.startswith(text)  # nothing that was saved before is lost
        text = saved
        generator.generate("", 1, session=session)
    assert text == "\n" + generator.generate("", len(text) - 1, seed=7)


def test_a_session_of_another_model_is_refused(models, generator, tmp_path):
    session = tmp_path / "session.json"
    generator.generate("", 5, session=session)
    other = load(models(quantization="float32").path)
    with pytest.raises(CharedgeError, match="another model"):
        other.generate("", 5, session=session)


def test_a_session_that_cannot_be_written_is_an_error(generator, tmp_path):
    with pytest.raises(CharedgeError, match="`session`"):
        generator.generate("", 5, session=tmp_path / "no" / "session.json")


def test_the_command_line_resumes_too(model, generator, charedge, tmp_path):
    session = tmp_path / "session.json"
    first = charedge("generate", model.path, "--length", "30", "--seed", "7", "--session", session).stdout
    second = charedge("generate", model.path, "--length", "30", "--session", session).stdout
    assert first + second == generator.generate("", 60, seed=7)
    assert charedge("generate", model.path, "--samples", "2", "--session", session).status == 2


def test_nothing_is_left_beside_the_session_even_by_one_that_was_killed(model, tmp_path):
    session = tmp_path / "session.json"
    (tmp_path / f".charedge-{'0' * 16}.partial").write_bytes(b"left by a process that was killed")
    subprocess.run(command("generate", model.path, "--length", "5", "--session", session), capture_output=True, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["session.json"]
