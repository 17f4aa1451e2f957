"""A page with LiteRT.js, Google's interpreter for browsers, and a server for it on this machine."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGES = Path(__file__).parent.parent.parent / "build" / "litertjs" / "node_modules" / "@litertjs"
"""Where `make test-browser` installs it."""
PAGE = """<!DOCTYPE html>
<link rel="icon" href="data:,">
<script type="importmap">
{"imports": {"@litertjs/core": "/@litertjs/core/dist/index.js", "@litertjs/wasm-utils": "/@litertjs/wasm-utils/dist/index.js"}}
</script>
<script type="module">
import { loadLiteRt, loadAndCompile, Tensor } from "@litertjs/core";

let model;

/** Load the model file. */
window.load = async () => {
  await loadLiteRt("/@litertjs/core/wasm/");
  model = await loadAndCompile("/model.tflite", { accelerator: "wasm" });
};

/** The logits after each token, from a state of zeros. */
window.logitsAfter = async (ids, stateSize) => {
  let state = new Float32Array(stateSize);
  const logits = [];
  for (const id of ids) {
    const inputs = { token: new Tensor(Int32Array.of(id), [1]), state: new Tensor(state, [1, stateSize]) };
    const outputs = await model.run(inputs);
    logits.push(Array.from(outputs.logits.toTypedArray()));
    state = outputs.state.toTypedArray().slice();
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();
  }
  return logits;
};
</script>
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr."""


@contextmanager
def served(path: Path) -> Iterator[str]:
    """Serve a model file beside LiteRT.js; the address of the page."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "@litertjs").symlink_to(PACKAGES)
        (root / "model.tflite").symlink_to(path.absolute())
        (root / "index.html").write_text(PAGE, encoding="utf-8")
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
