"""Let EleutherAI's lm-evaluation-harness measure a server, and compare its perplexity with that of `charedge score`.

    python tests/lm_evaluation.py LM_EVAL [--model shakespeare-tiny]

LM_EVAL is the program `lm_eval`. It asks `POST /v1/completions` for `echo` and `logprobs`, as it asks OpenAI's models, and counts
tokens with a Hugging Face tokenizer, which is written here: its tokens are the model's characters. The task is made here, too: each
document is a line; its first character is the context, and its rest is the continuation. The log likelihood of this is that of all
predictions of the line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

import charedge

LINES = (
    "The king is come.",
    "What say you to my suit?",
    "I never heard a better jest.",
    "Good night, my lord.",
    "A horse went by the river.",
)
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{continuation}}}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
"""
NAME = "charedge_lines"
TOLERANCE = 1e-4  # the harness prints the perplexity with some digits


def expected(model: str) -> float:
    """The mean over the lines of their loss, in nats, by `charedge score`."""
    loaded = charedge.load(model)
    return sum(loaded.score(line).nats_per_character * (len(line) - 1) for line in LINES) / len(LINES)


def measured(program: str, model: str, port: int, folder: Path) -> float:
    """The same by the harness: the logarithm of its perplexity of a line."""
    data = folder / "lines.jsonl"
    data.write_text("".join(json.dumps({"context": line[0], "continuation": line[1:]}) + "\n" for line in LINES))
    (folder / f"{NAME}.yaml").write_text(TASK.format(name=NAME, data=data))
    tokenizer = _write_tokenizer(charedge.load(model).vocabulary.tokens, folder / "tokenizer")
    url = f"http://127.0.0.1:{port}/v1/completions"
    arguments = f"model={model},base_url={url},tokenizer={tokenizer},tokenized_requests=False,num_concurrent=4,max_retries=1"
    command = [program, "run"] if _has_subcommands(program) else [program]
    command += ["--model", "local-completions", "--model_args", arguments, "--tasks", NAME, "--include_path", str(folder)]
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--output_path", str(folder / "results")], check=True, env=environment, stdout=sys.stderr)
    (results,) = (folder / "results").rglob("results_*.json")
    return math.log(json.loads(results.read_text())["results"][NAME]["perplexity,none"])


def _write_tokenizer(tokens: Sequence[str], folder: Path) -> Path:
    """Write the files of a tokenizer whose tokens are characters."""
    folder.mkdir()
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}, "unk_token": tokens[0]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": tokens[0], "eos_token": tokens[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _has_subcommands(program: str) -> bool:
    return "run" in subprocess.run([program, "--help"], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("program", metavar="LM_EVAL")
    parser.add_argument("--model", default="shakespeare-tiny")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "charedge", "serve", options.model, "--port", str(port)])
    try:
        while server.poll() is None and not _is_ready(port):
            time.sleep(0.05)
        with tempfile.TemporaryDirectory() as folder:
            by_harness = measured(options.program, options.model, port, Path(folder))
    finally:
        server.terminate()
        server.wait()
    by_charedge = expected(options.model)
    print(f"nats for each line: {by_harness:.6f} by lm-evaluation-harness, {by_charedge:.6f} by charedge score")
    if abs(by_harness - by_charedge) > TOLERANCE:
        sys.exit("they differ")


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return answer.status == 200
    except OSError:  # it does not listen yet, or its model is being loaded
        return False


if __name__ == "__main__":
    main()
