"""The `charedge` program: all commands under one name, error messages and exit statuses."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .console import PLAIN, say
from .runtime.errors import CharedgeError, InvalidOption
from .streams import STDOUT, drop, write_error

MODULES = {
    **dict.fromkeys(("train", "finetune", "evaluate"), "trainer.cli"),
    "convert": "converter.cli",
    "demo": "demo_cli",
    **dict.fromkeys(("generate", "score", "info", "verify", "bench"), "runtime.cli"),
    "serve": "runtime.server.cli",
    "deploy": "deployer.cli",
}
"""The module of each command, in the order of `charedge --help`."""
FIELD = re.compile(r"`([a-z][a-z0-9_]*)`")
"""An argument of the Python API, as messages name it."""
POSITIONAL = {"corpus": "CORPUS", "run": "RUN", "model": "MODEL", "file": "FILE", "target": "TARGET"}
"""Arguments that are positional on the command line."""
RENAMED = {"banned": "ban", "teachers": "teacher", "folder": "all"}
"""Arguments whose options have another name."""
ClickException: Any = typer.BadParameter.__mro__[2]
"""The error for a wrong option or argument; depending on its version, Typer takes the class from Click or has its own."""


class Commands(TyperGroup):
    """The group of all commands, each imported when it is called; errors become a line on stderr and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in MODULES:
            return None
        module = import_module(f".{MODULES[cmd_name]}", __package__)
        return typer.main.get_group(module.app).commands[cmd_name]

    def invoke(self, ctx: Any) -> Any:
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {as_options(message)}")
        try:
            return super().invoke(ctx)
        except InvalidOption as error:
            say(as_options(error))
            raise typer.Exit(2) from None
        except CharedgeError as error:
            say(as_options(error))
            raise typer.Exit(1) from None
        except BrokenPipeError:
            drop(sys.stdout)
            raise typer.Exit(0) from None
        except KeyboardInterrupt as interrupt:  # from Ctrl-C, or from `__main__.Terminated`
            raise typer.Exit(getattr(interrupt, "status", 130)) from None
        except MemoryError:
            say("the memory of this machine is not enough: give less text or fewer --samples.")
            raise typer.Exit(1) from None
        except OSError as error:
            raise typer.Exit(_say_system_error(error)) from None


def as_options(message: object) -> str:
    """Rewrite a message of the Python API for the command line: arguments in backquotes become options.

    >>> as_options("`top_k` -1 must be an integer from 0 up.")
    '--top-k -1 must be an integer from 0 up.'
    """

    def option(match: re.Match[str]) -> str:
        name = match[1]
        return POSITIONAL.get(name) or f"--{RENAMED.get(name, name).replace('_', '-')}"

    return FIELD.sub(option, str(message))


app = typer.Typer(
    cls=Commands,
    name="charedge",
    help="Train character-level language models and run them on small devices.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    **{**PLAIN, "add_completion": True},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"charedge {version('charedge')}")
        raise typer.Exit


@app.callback()
def charedge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the program.

    Returns:
        The exit status. A closed pipe is not an error.
    """
    status = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:
        return _say_system_error(error)
    return status


def _run(arguments: Sequence[str]) -> int:
    """Run the command line, without flushing stdout."""
    if any("\0" in argument for argument in arguments):
        say("an argument has a zero byte: leave it out.")
        return 2
    try:
        return app(list(arguments), prog_name="charedge", standalone_mode=False) or 0
    except ClickException as error:
        if arguments:
            command = error.ctx.command_path if error.ctx else "charedge"
            say(f"{error.format_message().rstrip('.')}: run `{command} --help` for the options.")
        else:
            write_error(error.format_message())  # the help
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except OSError as error:  # the help cannot be written
        return _say_system_error(error)


def _say_system_error(error: OSError) -> int:
    """Print the error of a system call; returns the exit status."""
    reason = error.strerror or error
    if error.filename == STDOUT:
        drop(sys.stdout)
        say(f"stdout cannot be written ({reason}): send it to a file or a program that takes it.")
    else:
        say(f"{error.filename or 'the system'}: {reason}.")
    return 1
