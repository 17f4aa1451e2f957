"""The whole path in three commands, run as a user would run them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ..runtime.cli import say
from ..runtime.errors import CharedgeError

TRAIN = "--preset small --epochs 6 --batch-size 32"
PROMPT = "The statement"


def demo_commands(folder: Path) -> list[list[str]]:
    """The arguments of `charedge` for each step."""
    run, model = str(folder / "run"), str(folder / "python-docs.tflite")
    return [
        ["train", "python-docs", "--output", run, *TRAIN.split(), "--overwrite"],
        ["convert", run, "--output", model, "--name", "python-docs"],
        ["generate", model, "--prompt", PROMPT, "--length", "400", "--seed", "1"],
    ]


def run_demo(folder: Path) -> None:
    """Train a small model on Python's own documentation, convert it, and let it write.

    Args:
        folder: where the run and the model go; made if need be.

    Raises:
        CharedgeError: the folder cannot be made, or a step failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharedgeError(f"--output {folder} cannot be made ({error.strerror}): choose another folder.") from None
    start = time.monotonic()
    commands = demo_commands(folder)
    for arguments in commands:
        line = _shown(arguments)
        print(f"\n$ {line}", flush=True)
        status = _run([sys.executable, "-m", "charedge.runtime", *arguments])
        if status in (129, 130, 143):
            raise SystemExit(status)
        if status:
            raise CharedgeError(f"the demo stopped because `{line}` ended with status {status}: see the line above.")
    sys.stdout.flush()
    print(f"\n\nDone in {time.monotonic() - start:.0f} s. These three commands did it:\n")
    for arguments in commands:
        print(f"  {_shown(arguments)}")
    model = commands[1][3]
    print("\nTo try next:\n")
    print(f"  charedge generate {model} --prompt 'A class' --temperature 0.5  # calmer; 1.2 is wilder")
    print(f"  charedge info {model}  # what the file says of itself")
    print("  charedge train YOUR.txt --output runs/yours  # your own text, with the larger default model\n")
    say(f"the file to copy to a device is {model}")


def _run(command: list[str]) -> int:
    """Run a command in a session of its own, and pass Ctrl-C, SIGTERM and SIGHUP on to it, so that it can save what it has to."""
    with subprocess.Popen(command, start_new_session=True) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt as interrupt:
                child.send_signal(getattr(interrupt, "status", 130) - 128)


def _shown(arguments: list[str]) -> str:
    """The command as one would type it."""
    return " ".join(["charedge", *(f'"{argument}"' if " " in argument else argument for argument in arguments)])
