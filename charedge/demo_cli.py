"""`charedge demo`: train, convert and generate, as three commands that a user would run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .console import PLAIN, say
from .runtime.errors import CharedgeError
from .trainer.installation import require_tensorflow

app = typer.Typer(**PLAIN)

TRAIN = "--preset small --epochs 6 --batch-size 32"
PROMPT = "The statement"


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the run and the model.")] = Path("charedge-demo"),
) -> None:
    """Train, convert and generate on Python's own documentation, in about a minute."""
    require_tensorflow("demo", "train,convert")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharedgeError(f"`output` {output} cannot be made ({error.strerror}): choose another folder.") from None
    start = time.monotonic()
    commands = demo_commands(output)
    for arguments in commands:
        line = _shown(*arguments)
        print(f"\n$ {line}", flush=True)
        status = _run([sys.executable, "-m", "charedge", *arguments])
        if status in (129, 130, 143):
            raise SystemExit(status)
        if status:
            raise CharedgeError(f"the demo stopped because `{line}` ended with status {status}: see the line above.")
    sys.stdout.flush()
    print(f"\n\nDone in {time.monotonic() - start:.0f} s. These three commands did it:\n")
    for arguments in commands:
        print(f"  {_shown(*arguments)}")
    model = commands[1][3]
    print("\nTo try next:\n")
    print(f"  {_shown('generate', model, '--prompt', 'A class', '--temperature', '0.5')}  # safer; 1.2 is wilder")
    print(f"  {_shown('info', model)}  # the metadata of the model file")
    print(f"  {_shown('train', 'YOUR.txt', '--output', 'runs/yours')}  # your own text\n")
    say(f"the file to copy to a device is {model}")


def demo_commands(folder: Path) -> list[list[str]]:
    """The arguments of the three commands."""
    run, model = str(folder / "run"), str(folder / "python-docs.tflite")
    return [
        ["train", "python-docs", "--output", run, *TRAIN.split(), "--overwrite"],
        ["convert", run, "--output", model, "--name", "python-docs"],
        ["generate", model, "--prompt", PROMPT, "--length", "400", "--seed", "1"],
    ]


def _run(command: list[str]) -> int:
    """Run a command in its own session, and pass Ctrl-C, SIGTERM and SIGHUP on to it, so that it can save its state."""
    with subprocess.Popen(command, start_new_session=True) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt as interrupt:
                child.send_signal(getattr(interrupt, "status", 130) - 128)


def _shown(*arguments: str) -> str:
    """A `charedge` command line that works in this shell."""
    return shlex.join([*_program(), *arguments])


def _program() -> list[str]:
    """The start of such a command line: `charedge` if it is on PATH, else its path, which needs no activated environment."""
    started, beside_python = Path(sys.argv[0]), Path(sys.executable).with_name("charedge")
    script = started if started.name == "charedge" else beside_python
    if not script.is_file():
        return [sys.executable, "-m", "charedge"]
    found = shutil.which("charedge")
    return ["charedge" if found and script.samefile(found) else str(script)]
