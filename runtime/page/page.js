// What the page shows. The script before this one is the engine, which writes the texts:
//
//   startEngine(page) -> { write(values), score(values), stop() }
//
// `values` are those of the form's controls by name. The engine calls `page`:
//   ready({ manifest, status })   it can write with this model
//   unavailable({ status, note }) it cannot
//   note(sentence)                about the text, without ending it
//   text({ column, reports })     more of a text; a report is { character, nats, expected, given }: its cost (null if nothing was
//                                 predicted there), [character, cost] of the most likely ones, and whether it is of the prompt
//   done({ stopped, failed })     all texts have ended: by themselves, by `stop`, or as the sentence `failed` says
"use strict";

const MAX_SHOWN = 20000; // characters of a text that were written, and as many of its prompt
const LEVELS = [1, 2, 3, 5]; // nats, where a character's class changes: see the legend
const REST = 3; // how many times as long as a drawing took the page waits before the next
const MAX_SEED = 2 ** 32;

const element = (id) => document.getElementById(id);
const [form, columnsBox, readout] = ["controls", "columns", "readout"].map(element);
const wide = matchMedia("(min-width: 58rem)"); // the controls beside the text, as in page.css
const number = new Intl.NumberFormat("en");
const hint = readout.textContent;

let run = null; // of the texts that are being written or scored
let usable = false; // whether the engine is ready
let drawing; // the timer of the next drawing
let pause = 0; // milliseconds until then
let current = null; // the character that the readout describes

/** The place of a text: its characters, each in the class of its surprise, and for screen readers the whole when it is complete. */
class Column {
  constructor(box) {
    this.box = box;
    [this.plain, this.characters] = box.children;
    const indexOf = (target) => Array.prototype.indexOf.call(this.characters.children, target);
    for (const type of ["pointerover", "click"]) this.characters.addEventListener(type, ({ target }) => this.describe(indexOf(target)));
    box.addEventListener("keydown", (event) => this.move(event));
    this.clear();
  }

  clear() {
    this.shown = [];
    this.counts = { given: 0, written: 0 };
    this.position = -1;
    this.characters.replaceChildren();
    this.plain.textContent = "";
  }

  /** Take reports, for the next call of `draw`. */
  take(reports) {
    for (const report of reports) {
      if (this.counts[report.given ? "given" : "written"]++ < MAX_SHOWN) this.shown.push(report);
    }
  }

  get isAtEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 80;
  }

  /** Append the characters that were taken. */
  draw() {
    const fragment = document.createDocumentFragment();
    for (const report of this.shown.slice(this.characters.childElementCount)) fragment.append(spanOf(report));
    this.characters.append(fragment);
  }

  get text() {
    return this.shown.map((report) => report.character).join("");
  }

  /** Say what the model expected where a character stands. */
  describe(index) {
    if (index < 0 || index >= this.characters.childElementCount) return;
    current?.classList.remove("current");
    this.position = index;
    current = this.characters.children[index];
    current.classList.add("current");
    const { character, nats, expected } = this.shown[index];
    const share = (cost) => `${(100 * Math.exp(-cost)).toPrecision(2)} %`;
    const strong = document.createElement("b");
    strong.textContent = visible(character);
    const list = expected.map(([token, cost]) => `${visible(token)} ${share(cost)}`).join(", ");
    const sentence = nats === null ? "the first character, which nothing predicts." : `${nats.toFixed(2)} nats, a probability of ${share(nats)}. Expected: ${list}.`;
    readout.replaceChildren(strong, `  ${sentence}`);
    return current;
  }

  move(event) {
    const moves = { ArrowLeft: this.position - 1, ArrowRight: this.position + 1, Home: 0, End: this.shown.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.describe(moves[event.key])?.scrollIntoView({ block: "nearest" });
  }
}

const columns = [new Column(columnsBox.firstElementChild)];

/** Have as many empty columns as there are texts. */
function arrange(count) {
  while (columns.length > count) columns.pop().box.remove();
  while (columns.length < count) columns.push(new Column(columnsBox.appendChild(columns[0].box.cloneNode(true))));
  columnsBox.dataset.count = count;
  columns.forEach((column, index) => {
    column.clear();
    const name = count === 1 ? "Text" : `Text ${index + 1} of ${count}`;
    column.box.setAttribute("aria-label", `${name}, character by character: move with the left and right arrow keys`);
  });
}

/** Draw what has arrived, and keep the end of a column in view if it was. Long texts take long and are drawn less often. */
function draw() {
  clearTimeout(drawing);
  drawing = undefined;
  const began = performance.now(), followed = columns.filter(({ isAtEnd }) => isAtEnd);
  for (const column of columns) column.draw();
  for (const { box } of followed) box.scrollTop = box.scrollHeight;
  pause = REST * (performance.now() - began);
}

function spanOf({ character, nats, given }) {
  const span = document.createElement("span");
  span.className = `s${LEVELS.filter((level) => nats >= level).length}`;
  span.classList.toggle("given", given);
  span.classList.toggle("line-end", character === "\n");
  if (nats !== null) span.title = `${visible(character)}: ${nats.toFixed(2)} nats`;
  span.textContent = character;
  return span;
}

/** A character that can be seen. */
function visible(character) {
  const names = { "\n": "line end", " ": "space", "\t": "tab", "[UNK]": "unknown" };
  return names[character] ?? (/[\p{C}\p{Z}]/u.test(character) ? `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : character);
}

const wholeText = () => columns.map((column) => column.text).join("\n----\n");

const page = {
  ready({ manifest, status }) {
    usable = true;
    showCard(manifest);
    if (run) return;
    element("start").disabled = false;
    setStatus(status);
  },
  unavailable({ status, note }) {
    usable = false;
    if (run) end();
    element("start").disabled = true;
    setStatus(status);
    setNote(note);
  },
  note: setNote,
  text({ column, reports }) {
    if (!run) return;
    const counted = reports.filter(({ given, nats }) => !given && nats !== null);
    run.count += counted.length;
    run.total += counted.reduce((total, { nats }) => total + nats, 0);
    columns[column].take(reports);
    drawing ??= setTimeout(draw, pause);
  },
  done({ stopped, failed }) {
    if (!run) return;
    const { total, count, began, seed, mode } = run;
    const rate = Math.round(count / ((performance.now() - began) / 1000));
    const ended = stopped || failed ? ", stopped" : "";
    const parts = [`${columns.length > 1 ? `${columns.length} texts, ` : ""}${number.format(count)} characters${ended}`];
    if (count) parts.push(`${(total / count).toFixed(4)} nats per character`, `${number.format(rate)} characters per second`);
    if (seed !== undefined) parts.push(`seed ${seed}`);
    if (!count && mode === "score" && !ended) parts.splice(0, 1, "The text is too short: two characters that the model knows are needed");
    else if (count > MAX_SHOWN * columns.length) parts.push(`the first ${number.format(MAX_SHOWN)} are shown`);
    setStatus(failed && !count ? "Nothing was written." : `${parts.join("; ")}.`);
    end();
    if (!failed) return;
    setNote(failed);
    element("note").scrollIntoView({ block: "nearest" });
  },
};

function start() {
  if (element("start").disabled || run) return;
  if (!form.checkValidity()) element("settings").open = true; // where what is wrong can be shown
  if (!form.reportValidity()) return;
  const mode = form.elements.mode.value, values = valuesOf(form);
  current = null;
  arrange(Number(values.n ?? 1));
  element("copy").disabled = true;
  setNote("");
  readout.textContent = hint;
  run = { total: 0, count: 0, began: performance.now(), mode };
  setStatus(mode === "write" ? "Writing …" : "Scoring …");
  columnsBox.classList.add("writing");
  element("start").disabled = true;
  element("stop").disabled = false;
  element("result-heading").scrollIntoView({ block: wide.matches ? "nearest" : "start" });
  if (mode === "write") values.seed = run.seed = values.seed ?? Math.floor(Math.random() * MAX_SEED);
  engine[mode](values);
}

/** The values of the controls that are in use, by name; an empty number is null. */
function valuesOf({ elements }) {
  const used = Array.from(elements).filter(({ name, type }) => name && type !== "radio").filter((control) => !control.matches(":disabled"));
  const isNumber = ({ type }) => type === "range" || type === "number";
  return Object.fromEntries(used.map((control) => [control.name, !isNumber(control) ? control.value : control.value === "" ? null : Number(control.value)]));
}

function stop() {
  if (run) engine.stop();
}

function end() {
  const focused = document.activeElement === element("stop");
  draw();
  run = null;
  columnsBox.classList.remove("writing");
  element("stop").disabled = true;
  element("start").disabled = !usable;
  element("copy").disabled = columns.every(({ shown }) => !shown.length);
  for (const column of columns) column.plain.textContent = column.text;
  if (focused) element("start").focus();
}

function showCard(manifest) {
  const { name, license, training, cell, layers, units, vocabulary_size, quantization, flatbuffer_sha256, created } = manifest;
  element("name").textContent = name;
  document.title = `${name}: a character model`;
  element("network").textContent = `${cell.toUpperCase()} of ${layers} × ${number.format(units)} units`;
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
  element("card").replaceChildren();
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
for (const slider of form.querySelectorAll("[type=range]")) {
  const update = () => { element(`${slider.id}-value`).value = Number(slider.value).toFixed(slider.step < 1 ? 2 : 0); };
  slider.addEventListener("input", update);
  update();
}
wide.addEventListener("change", showSettings);
showSettings();
selectMode();
arrange(1);
const engine = startEngine(page);
