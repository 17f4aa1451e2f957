// The engine of the page of `charedge serve`: asks the server that the page came from, in OpenAI's completions protocol.
"use strict";

const EXPECTED = 3; // how many of the likeliest characters are reported beside each character
const POLL_SECONDS = { first: 1, last: 15 }; // between two questions whether the server is back
const TOKEN = "charedge-token"; // in the storage of this tab
const UNREACHABLE = "The server does not answer. This page asks again until it does.";

/** A message of the server, whose errors begin with a small letter. */
const sentence = (message) => message.charAt(0).toUpperCase() + message.slice(1).replace(/[^.]$/, "$&.");

/** The server refused a request; `param` is the field that is wrong. */
class Refused extends Error {
  constructor(status, { message = `The server answered with the status ${status}.`, param } = {}) {
    super(sentence(message));
    Object.assign(this, { status, param });
  }
}

function startEngine(page) {
  const choice = element("models"), access = element("access");
  let models = [], asked = null, polling = false;

  /** A response with the status 200; the token goes with every request. */
  async function request(path, options = {}) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(path, { cache: "no-store", ...options, headers });
    if (response.ok) return response;
    throw new Refused(response.status, (await response.json().catch(() => ({}))).error);
  }

  async function connect(status = "Ready.") {
    try {
      models = (await (await request("v1/models")).json()).data;
    } catch (error) {
      handle(error);
      if (error.status !== 401) page.unavailable({ status: "Not connected.", note: reasonOf(error) });
      return;
    }
    access.hidden = true;
    page.note("");
    const chosen = choice.value;
    choice.replaceChildren(...models.map(({ id }) => new Option(id, id, false, id === chosen)));
    element("choice").hidden = models.length < 2;
    page.ready({ manifest: manifestOf(choice.value), status });
  }

  const manifestOf = (id) => models.find((model) => model.id === id).manifest;
  const reasonOf = (error) => (error instanceof Refused ? error.message : UNREACHABLE);

  /** Do what an error asks for: a token, or to wait for the server. */
  function handle(error) {
    if (error.status === 401) {
      const wrong = sessionStorage.getItem(TOKEN) !== null;
      sessionStorage.removeItem(TOKEN);
      page.unavailable({ status: "Not connected.", note: wrong ? "The server does not accept this token." : "" });
      access.hidden = false;
      element("token").focus();
    } else if (error.status === 503 || !(error instanceof Refused)) {
      poll(POLL_SECONDS.first);
    }
    form.elements[error.param]?.focus?.();
  }

  /** Ask the server whether it is there, less and less often, and go on when it is. */
  function poll(seconds) {
    if (polling) return;
    polling = true;
    setTimeout(async () => {
      const response = await fetch("health", { cache: "no-store" }).catch(() => ({ ok: false }));
      polling = false;
      if (response.ok) connect("The server is there again.");
      else poll(Math.min(2 * seconds, POLL_SECONDS.last));
    }, 1000 * seconds);
  }

  /** Have texts written or scored, and give the page what arrives. */
  async function ask(body, handlers) {
    const mine = (asked = new AbortController());
    try {
      const fields = { ...body, echo: true, logprobs: EXPECTED, stream: true };
      const response = await request("v1/completions", { method: "POST", body: JSON.stringify(fields), signal: mine.signal });
      for await (const { error, choices, warnings } of eventsOf(response)) {
        if (mine !== asked) return;
        if (error) throw new Refused(response.status, error);
        for (const { index, logprobs } of choices) page.text({ column: index, reports: handlers[index](reportsOf(logprobs)) });
        if (warnings) page.note(warnings.map(sentence).join(" "));
      }
      page.done({ stopped: false });
    } catch (error) {
      if (mine !== asked) return;
      page.done({ failed: reasonOf(error) });
      handle(error);
    }
  }

  choice.addEventListener("change", () => page.ready({ manifest: manifestOf(choice.value), status: "Ready." }));
  access.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, element("token").value.trim());
    element("token").value = "";
    connect();
  });
  connect();
  return {
    write({ n, stop, ...values }) {
      const { normalization } = manifestOf(values.model);
      const prompt = normalization === "none" ? values.prompt : values.prompt.normalize(normalization);
      const body = { ...values, n: Number(n), ...(stop && { stop: unescaped(stop) }) };
      ask(body, Array.from({ length: Number(n) }, () => promptMarker(prompt)));
    },
    score: ({ model, sample }) => ask({ model, prompt: sample, max_tokens: 0 }, [(reports) => reports]),
    stop() {
      asked.abort();
      asked = null;
      page.done({ stopped: true });
    },
  };
}

/** The objects of a stream of server-sent events, which must have its end. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) throw new TypeError("the stream ended early");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      yield JSON.parse(event.slice("data: ".length));
    }
  }
}

/** Log probabilities in the legacy shape as reports for the page. */
function reportsOf({ tokens, token_logprobs, top_logprobs }) {
  return tokens.map((character, i) => ({
    character,
    nats: token_logprobs[i] === null ? null : -token_logprobs[i],
    expected: Object.entries(top_logprobs[i] ?? {}).map(([token, logprob]) => [token, -logprob]).sort((a, b) => a[1] - b[1]),
    given: token_logprobs[i] === null,
  }));
}

/**
 * A function that marks the reports which are of the prompt. The text begins with it, without the characters that the model does
 * not know, which can be nowhere in the text: each character of the prompt that does not come next in the text was left out.
 */
function promptMarker(prompt) {
  const expected = Array.from(prompt);
  let next = 0;
  return (reports) => reports.map((report) => {
    while (next < expected.length && report.character !== "[UNK]" && report.character !== expected[next]) next++;
    return { ...report, given: next++ < expected.length };
  });
}

/** A text with the escapes of vocabulary.txt that are easy to type. */
function unescaped(text) {
  const escapes = { n: "\n", t: "\t", "\\": "\\" };
  return text.replace(/\\([nt\\])/g, (_, name) => escapes[name]);
}
