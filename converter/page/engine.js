// The engine of the page: a worker, which runs the model that the page carries.
"use strict";

/** Start the worker, from a Blob so that it runs in a page that was opened as a file. */
function startEngine(page) {
  const refuse = (reason) => page.unavailable({ status: "The model was refused.", note: reason });
  const handlers = {
    ready: ({ manifest, nats }) => page.ready({ manifest, status: `Ready. The self-test gave ${nats.toFixed(4)} nats per character, as recorded.` }),
    refused: ({ reason }) => refuse(reason),
    unknown({ unknown, skipped }) {
      const list = unknown.slice(0, 10).map(visible).join(" ") + (unknown.length > 10 ? " …" : "");
      const what = skipped ? `They were left out (${number.format(skipped)} in all)` : "The model reads them as [UNK]";
      page.note(`The model does not know these characters: ${list}. ${what}.`);
    },
    text: ({ reports }) => page.text({ column: 0, reports }),
    done: ({ stopped }) => page.done({ stopped }),
  };
  const source = new Blob([element("worker").textContent], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(source));
  worker.onmessage = ({ data }) => handlers[data.type](data);
  worker.onerror = () => refuse("The model cannot run in this browser: use a newer one.");
  const model = element("model");
  worker.postMessage({ type: "load", base64: model.textContent, bytes: Number(model.dataset.bytes) });
  model.remove();
  return {
    write: (values) => worker.postMessage({ type: "write", ...values }),
    score: (values) => worker.postMessage({ type: "score", ...values }),
    stop: () => worker.postMessage({ type: "stop" }),
  };
}
