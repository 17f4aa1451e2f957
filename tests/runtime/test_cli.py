"""The device's commands, through the command line."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from conftest import REPOSITORY, command

from charedge import load


def test_generate_writes_the_prompt_and_the_new_characters(model, process):
    result = process("generate", model.path, "--prompt", "Hello", "--length", "60", "--seed", "3")
    assert result.returncode == 0
    assert result.stdout == "Hello" + load(model.path).generate("Hello", 60, seed=3)
    assert result.stderr == ""  # not even LiteRT's greeting


def test_a_terminal_gets_a_newline_at_the_end(model):
    leader, follower = pty.openpty()
    arguments = command("generate", model.path, "--prompt", "Hello", "--length", "5", "--temperature", "0")
    subprocess.run(arguments, stdout=follower, stderr=follower, check=True)
    os.close(follower)
    shown = os.read(leader, 1000).decode().replace("\r\n", "\n")
    os.close(leader)
    assert shown == "Hello" + load(model.path).generate("Hello", 5, temperature=0) + "\n"


def test_no_echo_leaves_the_prompt_out(model, charedge):
    arguments = ("generate", model.path, "--prompt", "Hello", "--seed", "3", "--length", "20")
    assert charedge(*arguments).stdout == "Hello" + charedge(*arguments, "--no-echo").stdout


def test_json_has_the_prompt_of_a_file_and_no_echo_is_refused_with_it(model, charedge, tmp_path):
    (tmp_path / "prompt.txt").write_text("Hello", encoding="utf-8")
    arguments = ("generate", model.path, "--prompt-file", tmp_path / "prompt.txt", "--length", "5", "--json")
    assert json.loads(charedge(*arguments).stdout)["prompt"] == "Hello"
    result = charedge(*arguments, "--no-echo")
    assert (result.status, "--no-echo has no effect with --json" in result.stderr) == (2, True)


def test_a_text_is_not_read_while_it_is_written(model, tmp_path):
    """`>> story.txt` would read what it has just written, without an end."""
    story = tmp_path / "story.txt"
    story.write_text("Hello\n", encoding="utf-8")
    for arguments in (("generate", model.path, "--prompt-file", story), ("score", model.path, story, "--lines")):
        with story.open("a") as output:
            result = subprocess.run(command(*arguments), stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert (result.returncode, "is also the output" in result.stderr) == (2, True), result.stderr
    with story.open("a") as output:
        arguments = ("generate", model.path, "--prompt-file", story, "--no-echo", "--length", "20", "--seed", "3")
        subprocess.run(command(*arguments), stdout=output, check=True)
    assert story.read_text(encoding="utf-8") == "Hello\n" + load(model.path).generate("Hello\n", 20, seed=3)


def test_an_empty_text_is_said_by_its_name(model, charedge, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.touch()
    for options in ((), ("--lines",), ("--lines", "--json")):
        result = charedge("score", model.path, empty, *options)
        assert (result.status, f"charedge: {empty} has" in result.stderr) == (1, True), result.stderr


def test_strict_names_all_unknown_characters_of_a_prompt(model, charedge):
    result = charedge("generate", model.path, "--prompt", "A漢 and then 字", "--strict")
    assert (result.status, "漢" in result.stderr, "字" in result.stderr) == (1, True, True)


def test_without_a_prompt_the_start_text_is_fed_and_not_printed(model, charedge):
    expected = load(model.path).generate("\n", 30, seed=3)
    for prompt in ([], ["--prompt", ""]):
        assert charedge("generate", model.path, *prompt, "--seed", "3", "--length", "30").stdout == expected


def test_the_prompt_understands_escapes(model, charedge):
    result = charedge("generate", model.path, "--prompt", r"A\nB\u0041", "--seed", "3", "--length", "10")
    assert result.stdout == "A\nBA" + load(model.path).generate("A\nBA", 10, seed=3)


def test_the_prompt_may_come_from_a_file_or_stdin(model, process, tmp_path):
    (tmp_path / "prompt.txt").write_text("Hello", encoding="utf-8")
    arguments = ("--length", "20", "--seed", "3")
    expected = process("generate", model.path, "--prompt", "Hello", *arguments).stdout
    assert process("generate", model.path, "--prompt-file", tmp_path / "prompt.txt", *arguments).stdout == expected
    assert process("generate", model.path, "--prompt-file", "-", *arguments, input="Hello").stdout == expected


def test_samples_are_separated_and_each_has_its_own_draws(model, charedge):
    result = charedge("generate", model.path, "--prompt", "Hi", "--samples", "3", "--seed", "3", "--length", "30")
    texts = result.stdout.split("\n----\n")
    assert texts == ["Hi" + text for text in load(model.path).generate_batch(["Hi"] * 3, 30, seed=3)]
    assert texts[0] == charedge("generate", model.path, "--prompt", "Hi", "--seed", "3", "--length", "30").stdout


def test_generate_as_json(model, charedge):
    fields = json.loads(charedge("generate", model.path, "--prompt", "Hi", "--seed", "3", "--length", "30", "--json").stdout)
    assert fields["texts"] == [load(model.path).generate("Hi", 30, seed=3)]
    assert fields["characters"] == 30
    assert fields["characters_per_second"] > 0


def test_unknown_characters_in_a_prompt_are_warned_of_once(model, charedge):
    result = charedge("generate", model.path, "--prompt", "Héllo", "--length", "5", "--samples", "2")
    assert result.status == 0
    assert result.stderr.count("U+00E9") == 1
    result = charedge("generate", model.path, "--prompt", "Héllo", "--length", "5", "--strict")
    assert (result.status, "U+00E9" in result.stderr, result.stdout) == (1, True, "")


def test_every_control_reaches_the_generator(model, charedge):
    options = ["--temperature", "1.1", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.02", "--repetition-penalty", "1.2"]
    options += ["--repetition-window", "20", "--ban", "xyz", "--logit-bias", "e=1.5", "--logit-bias", r"\n=-2", "--stop", "ZQ"]
    expected = load(model.path).generate(
        "Hi",
        80,
        seed=3,
        temperature=1.1,
        top_k=9,
        top_p=0.9,
        min_p=0.02,
        repetition_penalty=1.2,
        repetition_window=20,
        banned="xyz",
        logit_bias={"e": 1.5, "\n": -2.0},
        stop=["ZQ"],
    )
    result = charedge("generate", model.path, "--prompt", "Hi", "--seed", "3", "--length", "80", "--no-echo", *options)
    assert (result.status, result.stdout) == (0, expected)


def test_a_pattern_on_the_command_line(model, charedge):
    result = charedge("generate", model.path, "--prompt", "Hi", "--no-echo", "--pattern", "[a-z]{3}: [A-Z]+[.]", "--seed", "1")
    assert re.fullmatch("[a-z]{3}: [A-Z]+[.]", result.stdout)


def test_a_terminal_is_never_steered(models):
    """A model whose vocabulary has escape sequences and marks that turn the writing round."""
    made = models(characters="\x1b[3J\x07\x9b\u202e\u2066\u0301a\n")
    leader, follower = pty.openpty()
    subprocess.run(command("generate", made.path, "--length", "200", "--seed", "1"), stdout=follower, check=True)
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert r"\u001B" in shown
    assert r"\u202E" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e\u2066")


def test_a_long_prompt_is_read_in_pieces(model, charedge, tmp_path, monkeypatch):
    from charedge.runtime import text

    monkeypatch.setattr(text, "BLOCK_BYTES", 64)
    prompt = "Hello, World. " * 50
    (tmp_path / "prompt.txt").write_text(prompt, encoding="utf-8")
    result = charedge("generate", model.path, "--prompt-file", tmp_path / "prompt.txt", "--length", "30", "--seed", "2")
    assert result.stdout == prompt + load(model.path).generate(prompt, 30, seed=2)


def test_score_by_line(model, charedge, tmp_path):
    (tmp_path / "text.txt").write_text("Hello\r\nx\n\nWorld", encoding="utf-8")
    generator = load(model.path)
    nats = [generator.score(word).nats_per_character for word in ("Hello", "World")]
    plain = charedge("score", model.path, tmp_path / "text.txt", "--lines").stdout
    assert plain == f"{nats[0]:.4f}\tHello\n-\tx\n-\t\n{nats[1]:.4f}\tWorld\n"
    objects = [
        json.loads(line) for line in charedge("score", model.path, tmp_path / "text.txt", "--lines", "--json").stdout.splitlines()
    ]
    assert [entry["line"] for entry in objects] == [1, 2, 3, 4]
    assert [entry["nats_per_character"] for entry in objects] == [nats[0], None, None, nats[1]]
    assert objects[0]["text"] == "Hello"
    assert charedge("score", model.path, tmp_path / "text.txt", "--lines", "--strict").stdout == plain
    (tmp_path / "text.txt").write_text("Hello\nH\u00e9llo", encoding="utf-8")
    strict = charedge("score", model.path, tmp_path / "text.txt", "--lines", "--strict")
    assert (strict.status, "line 2 of" in strict.stderr, "U+00E9" in strict.stderr) == (1, True, True)


def test_score_in_pieces_is_score_of_the_whole(model, tmp_path, charedge, monkeypatch):
    from charedge.runtime import text

    whole = model.vocabulary.decode(model.held_out) * 4
    (tmp_path / "text.txt").write_text(whole, encoding="utf-8")
    monkeypatch.setattr(text, "BLOCK_BYTES", 100)
    fields = json.loads(charedge("score", model.path, tmp_path / "text.txt", "--json").stdout)
    assert fields["nats_per_character"] == pytest.approx(load(model.path).score(whole).nats_per_character, abs=1e-12)
    assert fields["characters"] == 1200


def test_bench_measures_this_machine(model, charedge):
    fields = json.loads(charedge("bench", model.path, "--characters", "50", "--json").stdout)
    assert fields["load_milliseconds"] > 0
    assert 0 < fields["microseconds_per_character"] <= fields["microseconds_per_character_p99"]
    assert [(entry["rows"], entry["threads"]) for entry in fields["rates"]] == [(r, t) for t in (1, 2) for r in (1, 4, 8)]
    assert all(entry["characters_per_second"] > 0 for entry in fields["rates"])
    assert fields["peak_rss_bytes"] > 10_000_000
    assert fields["interpreter"] == load(model.path).interpreter
    assert fields["machine"]["processor"]
    assert "characters/s" in charedge("bench", model.path, "--characters", "50").stdout


def test_info_is_a_card_and_json(model, charedge):
    card = charedge("info", model.path).stdout
    for part in ("GRU 1 x 24", "int8", "ai-edge-litert", "tflite-runtime", "nats per character", "CC0-1.0"):
        assert part in card
    fields = json.loads(charedge("info", model.path, "--json").stdout)
    assert fields["bytes"] == model.path.stat().st_size
    assert fields["vocabulary_size"] == len(model.vocabulary)


def test_verify_shows_the_probe_on_this_machine(model, charedge):
    result = charedge("verify", model.path)
    assert (result.status, "verified" in result.stdout, "probe" in result.stdout) == (0, True, True)
    fields = json.loads(charedge("verify", model.path, "--json").stdout)
    assert fields["passed"] is True
    assert fields["nats_per_character"] == pytest.approx(fields["expected_nats_per_character"], abs=fields["tolerance"])


def test_score_reads_a_file_or_stdin(model, process, tmp_path):
    text = model.vocabulary.decode(model.held_out)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    fields = json.loads(process("score", model.path, tmp_path / "text.txt", "--json").stdout)
    assert fields["nats_per_character"] == pytest.approx(load(model.path).score(text).nats_per_character)
    assert fields["characters"] == 300
    assert process("score", model.path, input=text).stdout.startswith(f"{fields['nats_per_character']:.4f} nats per character")


def test_the_runtime_never_imports_tensorflow(model):
    program = (
        "import sys; from charedge.program import run;"
        "status = run(sys.argv[1:]);"
        "heavy = {name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'matplotlib', 'rich', 'h5py'};"
        "sys.exit(status or (str(heavy) if heavy else 0))"
    )
    for arguments in (["generate", "--length", "5"], ["info"], ["verify"]):
        call = [sys.executable, "-c", program, arguments[0], str(model.path), *arguments[1:]]
        result = subprocess.run(call, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_no_source_of_the_runtime_names_tensorflow_in_an_import():
    for path in (REPOSITORY / "runtime").glob("*.py"):
        imports = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith(("import ", "from "))]
        assert not [line for line in imports if "tensorflow" in line or "keras" in line]


def test_workstation_commands_say_what_to_install(model, tmp_path):
    program = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest);"
        "from charedge.program import run; sys.exit(run(sys.argv[1:]))"
    )
    for arguments, extra in (
        (["train", "python-docs", "--output", str(tmp_path / "run")], "charedge[train]"),
        (["evaluate", "run"], "charedge[train]"),
        (["convert", "run", "--output", str(tmp_path / "m.tflite")], "charedge[convert]"),
        (["demo"], "charedge[train,convert]"),
    ):
        result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert f"pip install '{extra}'" in result.stderr
        assert "Traceback" not in result.stderr


def test_help_and_version(process):
    result = process("--help")
    for name in ("train", "evaluate", "convert", "demo", "generate", "info", "verify", "score", "bench"):
        assert f"\n  {name} " in result.stdout
    assert process("train", "--help").returncode == 0
    assert process("--version").stdout.startswith("charedge 0.")


BAD = [
    (["--length", "-3"], 2, "--length"),
    (["--end-at", "line", "--pattern", "a"], 2, "--end-at"),
    (["--characters-per-second", "0"], 2, "--characters-per-second"),
    (["--temperature", "-1"], 2, "--temperature"),
    (["--temperature", "nan"], 2, "--temperature"),
    (["--temperature", "hot"], 2, "--temperature"),
    (["--samples", "0"], 2, "--samples"),
    (["--seed", "-1"], 2, "--seed"),
    (["--threads", "0"], 2, "--threads"),
    (["--prompt", "\\x"], 2, "--prompt"),
    (["--stop", "\\x"], 2, "--stop"),
    (["--stop", ""], 2, "--stop"),
    (["--top-k", "-1"], 2, "--top-k"),
    (["--top-p", "0"], 2, "--top-p"),
    (["--top-p", "2"], 2, "--top-p"),
    (["--min-p", "nan"], 2, "--min-p"),
    (["--repetition-penalty", "0"], 2, "--repetition-penalty"),
    (["--repetition-window", "0"], 2, "--repetition-window"),
    (["--logit-bias", "e"], 2, "--logit-bias"),
    (["--logit-bias", "e=big"], 2, "--logit-bias"),
    (["--pattern", "["], 2, "--pattern"),
    (["--pattern", "[0-9]"], 1, "--pattern"),
    (["--samples", "2", "--session", "s"], 2, "--session"),
    (["--prompt", "a", "--prompt-file", "b"], 2, "--prompt-file"),
    (["--prompt-file", "/nowhere"], 1, "/nowhere"),
    (["--unheard-of"], 2, "--unheard-of"),
]


@pytest.mark.parametrize(("options", "status", "match"), BAD)
def test_bad_options_are_one_sentence(model, charedge, options, status, match):
    result = charedge("generate", model.path, *options)
    assert (result.status, match in result.stderr, result.stdout) == (status, True, ""), result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_a_model_is_one_sentence(charedge, tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"nonsense")
    for name in ("generate", "info", "verify", "score"):
        result = charedge(name, tmp_path / "m.tflite")
        assert (result.status, "m.tflite" in result.stderr, result.stdout) == (1, True, "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_written(model, start, number, status):
    writer = start("generate", model.path, "--prompt", "Hello", "--length", "100000000", "--seed", "1")
    first = writer.stdout.read(6)
    writer.send_signal(number)
    rest = writer.stdout.read()
    assert writer.wait() == status
    text = (first + rest).decode()[:1000]
    assert len(text) >= 6
    assert ("Hello" + load(model.path).generate("Hello", 1000, seed=1)).startswith(text)
    assert b"Traceback" not in writer.stderr.read()


def test_a_closed_pipe_ends_quietly(model, start):
    writer = start("generate", model.path, "--length", "100000000")
    writer.stdout.read(20)
    writer.stdout.close()
    assert writer.wait() == 0
    assert writer.stderr.read() == b""


@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_XX.latin1"])
def test_any_locale_writes_utf8(models, process, locale):
    made = models(characters="é漢\n")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = process("generate", made.path, "--length", "40", "--seed", "1", env=environment)
    assert result.stdout == load(made.path).generate("", 40, seed=1)


@pytest.mark.parametrize(("words", "expected"), [("charedge gen", "generate"), ("charedge generate --temp", "--temperature")])
def test_a_shell_can_complete_commands_and_options(process, words, expected):
    environment = {"_CHAREDGE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = process(env={**os.environ, **environment})
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, [expected], "")
