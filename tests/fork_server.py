"""Runs commands that need TensorFlow as forks of one process that has imported it: each starts without those five seconds.

The import starts neither a device nor a thread pool, so a fork is as good as a new process, but for what is drawn when Python
starts: the hash seed. Tests of signals, of the environment and of the same seed start processes of their own.
"""

import json
import os
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

COMMANDS = ("train", "finetune", "evaluate", "convert")


class ForkServer:
    """The process that imports TensorFlow, started with the first command."""

    def __init__(self):
        self._server = None

    def run(self, arguments):
        """Run the command line with some arguments -> CompletedProcess with text."""
        if self._server is None:
            self._server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with TemporaryFile() as stdout, TemporaryFile() as stderr:
            request = {
                "arguments": arguments,
                "streams": [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (stdout, stderr)],
                "folder": str(Path.cwd()),
                "environment": dict(os.environ),
            }
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (stdout, stderr)]
        return subprocess.CompletedProcess(arguments, status, *texts)

    def stop(self):
        if self._server is not None:
            self._server.communicate()


def serve():
    """Fork for each request and answer with the exit status. Returns in the forks alone."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if not child:
            requests.close()
            replies.close()
            become(request)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=replies, flush=True)
    sys.exit()


def become(request):
    """In a fork: take the streams, folder, environment and arguments of a request."""
    import numpy as np

    for descriptor, path in enumerate([os.devnull, *request["streams"]]):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["charedge", *request["arguments"]]
    random.seed()
    np.random.seed()


if __name__ == "__main__":
    from charedge.trainer.installation import require_tensorflow

    require_tensorflow("train", "train")
    for module in ("trainer.loop", "trainer.curves", "trainer.evaluation", "trainer.training", "converter.saved_model"):
        import_module(f"charedge.{module}")
    serve()
    from charedge.__main__ import main

    main()
