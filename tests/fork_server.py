"""Runs commands and programs that need TensorFlow as forks of one process that has imported it, which takes five seconds.

The import starts neither a device nor a thread pool, so a fork is as good as a new process, except for what is drawn when Python
starts: the hash seed. The test of the same seed, and tests of variables that Python or TensorFlow read when they start, start
processes of their own.
"""

import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

COMMANDS = ("train", "finetune", "evaluate", "convert")


class ForkServer:
    """The process that imports TensorFlow, started with the first request."""

    def __init__(self):
        self._server: Any = None

    def run(self, arguments, **options):
        """Run a process to its end -> CompletedProcess with text. Arguments as in `start`."""
        with TemporaryFile() as stdout, TemporaryFile() as stderr:
            status = self._fork(arguments, stdout.fileno(), stderr.fileno(), **options).wait()
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (stdout, stderr)]
        return subprocess.CompletedProcess(arguments, status, *texts)

    def start(self, arguments, **options):
        """Start a process whose streams are pipes of text -> Fork.

        Args:
            arguments: of the command line; or of Python, which begin with `-c` or the path of a script.
            environment: its variables [default: those of this process].
        """
        pipes = [os.pipe() for _ in range(2)]
        fork = self._fork(arguments, *(write for _, write in pipes), **options)
        for _, write in pipes:
            os.close(write)
        fork.stdout, fork.stderr = (os.fdopen(read, encoding="utf-8") for read, _ in pipes)
        return fork

    def stop(self):
        if self._server is not None:
            self._server.communicate()

    def _fork(self, arguments, stdout, stderr, environment=None):
        if self._server is None:
            self._server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        read, write = os.pipe()
        request = {
            "arguments": [os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument) for argument in arguments],
            "streams": [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in (stdout, stderr, write)],
            "folder": str(Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        reply = os.fdopen(read, encoding="ascii")
        if reply not in select.select([reply, self._server.stdout], [], [])[0]:
            raise RuntimeError("the fork server ended: its error is on stderr")
        fork = Fork(int(reply.readline()), reply)
        os.close(write)
        return fork


class Fork:
    """A running process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid, reply):
        self.pid, self.returncode = pid, None
        self.stdout: Any = None
        self.stderr: Any = None
        self._reply = reply

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)

    def poll(self):
        if self.returncode is None and select.select([self._reply], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        """The exit status; of a process that does not end within `timeout` seconds -SIGKILL."""
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                self.send_signal(signal.SIGKILL)
            self.returncode = int(self._reply.readline())
            self._reply.close()
        return self.returncode

    def communicate(self, timeout=None):
        """What the process has still written to stdout and to stderr, when it has ended."""
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
            return tuple(text.result() for text in texts)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        self.stdout.close()
        self.stderr.close()


def serve():
    """Answer each request with a process id, and later with its exit status. Returns in the forks alone, with the arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork is waited for here
    for line in os.fdopen(os.dup(0)):
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(line)
            stdout, stderr, reply = (os.open(path, os.O_WRONLY) for path in request["streams"])
            child = os.fork()
            if not child:
                os.close(reply)
                become(request, stdout, stderr)
                return request["arguments"]
            for stream in (stdout, stderr):
                os.close(stream)
            os.write(reply, f"{child}\n".encode())
            _, status = os.waitpid(child, 0)
            os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
    sys.exit()


def become(request, stdout, stderr):
    """In a fork: take the streams, folder and environment of a request, and the signals of a process that a shell starts."""
    import numpy as np

    for descriptor, stream in enumerate([os.open(os.devnull, os.O_RDONLY), stdout, stderr]):
        os.dup2(stream, descriptor)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    random.seed()
    np.random.seed()


def run_python(arguments):
    """Run a program as Python would, `-c CODE` or a script, with charedge not imported yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "charedge"]:
        del sys.modules[name]
    program, *rest = arguments
    if program == "-c":
        sys.path[0] = ""
        code, *rest = rest
        sys.argv = ["-c", *rest]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = str(Path(program).parent)
        sys.argv = [program, *rest]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    from charedge.trainer.installation import require_tensorflow

    require_tensorflow("train", "train")
    for module in ("trainer.loop", "trainer.curves", "trainer.evaluation", "trainer.training", "converter.saved_model"):
        import_module(f"charedge.{module}")
    arguments = serve()
    if arguments[0] == "-c" or arguments[0].endswith(".py"):
        run_python(arguments)
    else:
        from charedge.__main__ import main

        sys.argv = ["charedge", *arguments]
        main()
