"""A page with LiteRT.js, Google's interpreter for browsers, and a server for it on this machine."""

from __future__ import annotations

import functools
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGES = REPOSITORY / "build" / "litertjs" / "node_modules" / "@litertjs"
"""Where `make test-browser` installs it."""
EXAMPLE = REPOSITORY / "docs" / "browser.md"
"""Its JavaScript is what runs here."""
PAGE = """<!DOCTYPE html>
<link rel="icon" href="data:,">
<script type="importmap">
{{"imports": {{"@litertjs/core": "/@litertjs/core/dist/index.js", "@litertjs/wasm-utils": "/@litertjs/wasm-utils/dist/index.js"}}}}
</script>
<script type="module">
{example}
/** The logits after each token, from a state of zeros. */
window.logitsAfter = async (ids, stateSize) => {{
  let state = new Float32Array(stateSize);
  const all = [];
  for (const id of ids) {{
    const result = await step(id, state);
    state = result.state;
    all.push(Array.from(result.logits));
  }}
  return all;
}};
</script>
"""
READY = "window.logitsAfter !== undefined"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr."""


@contextmanager
def served(path: Path) -> Iterator[str]:
    """Serve a model file beside LiteRT.js; the address of the page."""
    (example,) = re.findall(r"```js\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "@litertjs").symlink_to(PACKAGES)
        (root / "bard.tflite").symlink_to(path.absolute())
        (root / "index.html").write_text(PAGE.format(example=example), encoding="utf-8")
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
