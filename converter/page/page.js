// What the page shows, and what it asks of the worker.
"use strict";

const MAX_SHOWN = 20000; // characters
const LEVELS = [1, 2, 3, 5]; // nats, where a character's class changes: see the legend
const MAX_SEED = 2 ** 32;

const element = (id) => document.getElementById(id);
const [form, text, characters, given, readout] = ["controls", "text", "characters", "given", "readout"].map(element);
const wide = matchMedia("(min-width: 58rem)"); // the controls beside the text, as in page.css
const number = new Intl.NumberFormat("en");
const hint = readout.textContent;
const worker = startWorker();

let shown = []; // reports of the characters on the page, in order
let current = -1; // the one that the readout describes
let run = null; // of the text that is being written or scored

/** The page's second script, from a Blob so that it runs in a page that was opened as a file. */
function startWorker() {
  const source = new Blob([element("worker").textContent], { type: "text/javascript" });
  const started = new Worker(URL.createObjectURL(source));
  started.onmessage = ({ data }) => HANDLERS[data.type](data);
  started.onerror = () => HANDLERS.refused({ reason: "The model cannot run in this browser: use a newer one." });
  const model = element("model");
  started.postMessage({ type: "load", base64: model.textContent, bytes: Number(model.dataset.bytes) });
  model.remove();
  return started;
}

const HANDLERS = {
  ready({ manifest, nats }) {
    showCard(manifest);
    element("start").disabled = false;
    setStatus(`Ready. The self-test gave ${nats.toFixed(4)} nats per character, as recorded.`);
  },
  refused({ reason }) {
    end();
    element("start").disabled = true;
    setStatus("The model was refused.");
    setNote(reason);
  },
  started({ prompt, unknown, handling, skipped }) {
    given.textContent = prompt;
    run.began = performance.now();
    run.skipped = skipped;
    if (unknown.length) {
      const list = unknown.slice(0, 10).map(visible).join(" ") + (unknown.length > 10 ? " …" : "");
      const what = handling === "skip" ? "They were left out" : "The model reads them as [UNK]";
      setNote(`The model does not know these characters: ${list}. ${what}.`);
    }
  },
  text({ reports }) {
    if (run) show(reports);
  },
  done({ stopped }) {
    if (!run) return;
    const { total, count, began, seed, skipped } = run;
    const rate = Math.round(count / ((performance.now() - began) / 1000));
    const parts = [`${number.format(count)} characters${stopped ? ", stopped" : ""}`];
    if (count) parts.push(`${(total / count).toFixed(4)} nats per character`, `${number.format(rate)} characters per second`);
    if (seed !== undefined) parts.push(`seed ${seed}`);
    if (skipped) parts.push(`${number.format(skipped)} left out`);
    if (!count && !stopped) parts.splice(0, 1, "The text is too short: two characters that the model knows are needed");
    else if (count > MAX_SHOWN) parts.push(`the first ${number.format(MAX_SHOWN)} are shown`);
    setStatus(`${parts.join("; ")}.`);
    end();
  },
};

function start() {
  if (element("start").disabled || run) return;
  if (!form.checkValidity()) element("settings").open = true; // where what is wrong can be shown
  if (!form.reportValidity()) return;
  const mode = form.elements.mode.value;
  clear();
  run = { total: 0, count: 0, mode };
  if (mode === "write") {
    run.seed = element("seed").value === "" ? Math.floor(Math.random() * MAX_SEED) : Number(element("seed").value);
    worker.postMessage({
      type: "write",
      prompt: element("prompt").value,
      temperature: Number(element("temperature").value),
      topP: Number(element("top-p").value),
      seed: run.seed,
      length: Number(element("length").value),
    });
  } else {
    worker.postMessage({ type: "score", text: element("sample").value });
  }
  setStatus(mode === "write" ? "Writing …" : "Scoring …");
  characters.classList.add("writing");
  element("start").disabled = true;
  element("stop").disabled = false;
  if (!wide.matches) element("result-heading").scrollIntoView();
}

function stop() {
  if (run) worker.postMessage({ type: "stop" });
}

function end() {
  const focused = document.activeElement === element("stop");
  run = null;
  characters.classList.remove("writing");
  element("stop").disabled = true;
  element("start").disabled = false;
  element("copy").disabled = wholeText() === "";
  element("plain").textContent = wholeText();
  if (focused) element("start").focus();
}

function clear() {
  shown = [];
  current = -1;
  characters.replaceChildren(given);
  given.textContent = element("plain").textContent = "";
  element("copy").disabled = true;
  setNote("");
  readout.textContent = hint;
}

/** Append characters, each in the class of its surprise, and keep the end in view if it was. */
function show(reports) {
  const follow = text.scrollHeight - text.scrollTop - text.clientHeight < 80;
  run.count += reports.length;
  run.total += reports.reduce((total, report) => total + report.nats, 0);
  const fitting = reports.slice(0, MAX_SHOWN - shown.length);
  shown.push(...fitting);
  characters.append(...fitting.map(spanOf));
  if (follow) text.scrollTop = text.scrollHeight;
}

function spanOf({ character, nats }) {
  const span = document.createElement("span");
  span.className = `s${LEVELS.filter((level) => nats >= level).length}`;
  span.classList.toggle("line-end", character === "\n");
  span.title = `${visible(character)}: ${nats.toFixed(2)} nats`;
  span.textContent = character;
  return span;
}

const wholeText = () => given.textContent + shown.map((report) => report.character).join("");

/** Say what the model expected where a character stands. */
function describe(index) {
  if (index < 0 || index >= shown.length) return;
  characters.children[current + 1].classList.remove("current");
  current = index;
  const span = characters.children[index + 1], { character, nats, expected } = shown[index];
  span.classList.add("current");
  const share = (cost) => `${(100 * Math.exp(-cost)).toPrecision(2)} %`;
  const strong = document.createElement("b");
  strong.textContent = visible(character);
  const list = expected.map(([token, cost]) => `${visible(token)} ${share(cost)}`).join(", ");
  readout.replaceChildren(strong, `  ${nats.toFixed(2)} nats, a probability of ${share(nats)}. Expected: ${list}.`);
  return span;
}

/** A character that can be seen. */
function visible(character) {
  const names = { "\n": "line end", " ": "space", "\t": "tab", "[UNK]": "unknown" };
  return names[character] ?? (/[\p{C}\p{Z}]/u.test(character) ? `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : character);
}

function showCard(manifest) {
  const { name, license, training, cell, layers, units, vocabulary_size, quantization, flatbuffer_sha256, created } = manifest;
  const rows = [
    ["Name", name],
    ["Licence", license],
    ["Notes", training.notes],
    ["Network", `${cell.toUpperCase()}, ${layers} × ${number.format(units)} units`],
    ["Vocabulary", `${number.format(vocabulary_size - 1)} characters`],
    ["Weights", quantization],
    ["Measured", measured(manifest)],
    ["Trained", created.slice(0, 10)],
    ["SHA-256", flatbuffer_sha256],
  ];
  for (const [term, value] of rows.filter(([, value]) => value)) {
    const [dt, dd] = ["dt", "dd"].map((tag) => element("card").appendChild(document.createElement(tag)));
    dt.textContent = term;
    dd.textContent = value;
    dd.classList.toggle("code", term === "SHA-256");
  }
}

/** The loss on text that nothing was fitted on. */
function measured({ verified, logit_temperature: temperature }) {
  if (temperature?.fit && temperature.value !== 1) {
    const nats = temperature.fit.cross_validated_nats_per_character.toFixed(4);
    return `${nats} nats per character in Keras, each half of the held-out text with the temperature fitted on the other half`;
  }
  return verified[0] && `${verified[0].nats_per_character.toFixed(4)} nats per character on held-out text`;
}

function setStatus(message) {
  element("status").textContent = message;
}

function setNote(message) {
  element("note").textContent = message;
  element("note").hidden = message === "";
}

function selectMode() {
  const mode = form.elements.mode.value;
  for (const part of form.querySelectorAll("[data-mode]")) part.hidden = part.disabled = part.dataset.mode !== mode;
}

function showSettings() {
  element("settings").open = wide.matches;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
element("stop").addEventListener("click", stop);
element("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(wholeText());
  setStatus("Copied.");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  if (event.key === "Escape") stop();
});
for (const radio of form.elements.mode) radio.addEventListener("change", selectMode);
for (const name of ["temperature", "top-p"]) {
  const update = () => { element(`${name}-value`).value = Number(element(name).value).toFixed(2); };
  element(name).addEventListener("input", update);
  update();
}
const indexOf = (target) => Array.prototype.indexOf.call(characters.children, target) - 1;
characters.addEventListener("pointerover", ({ target }) => describe(indexOf(target)));
characters.addEventListener("click", ({ target }) => describe(indexOf(target)));
text.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: shown.length - 1 };
  if (!(event.key in moves)) return;
  event.preventDefault();
  describe(moves[event.key])?.scrollIntoView({ block: "nearest" });
});
wide.addEventListener("change", showSettings);
showSettings();
selectMode();
