// The worker: loads and checks the model, then writes or scores one text at a time, in slices between which it hears `stop`.
"use strict";

const SLICE_MILLISECONDS = 40;
const EXPECTED = 3; // how many of the likeliest characters are reported beside each character

let file, step, job = 0;

/** Load the model, and run its probe: 64 tokens whose loss must come out as recorded. */
function load({ base64, bytes }) {
  try {
    file = readModelFile(decodeBase64(base64, bytes));
    step = new Step(file);
  } catch (error) {
    const reason = error instanceof Damaged ? error.message : "the model cannot be read";
    postMessage({ type: "refused", reason: `This page is damaged (${reason}): download or export it again.` });
    return;
  }
  const { token_ids: ids, nats_per_character: expected, tolerance } = file.manifest.probe;
  const nats = meanNats(ids);
  if (!(Math.abs(nats - expected) <= tolerance)) {
    const found = `its self-test gives ${nats.toFixed(4)} nats, recorded were ${expected.toFixed(4)}`;
    postMessage({ type: "refused", reason: `This model does not work in this browser (${found}): export the page again.` });
    return;
  }
  const index = new Map(file.tokens.map((token, id) => [token, id]));
  file.idOf = (character) => index.get(character) ?? UNKNOWN_ID;
  postMessage({ type: "ready", manifest: file.manifest, nats });
}

/** The mean nats per character of some ids, from a state of zeros. */
function meanNats(ids) {
  step.reset();
  let total = 0;
  for (let i = 0; i + 1 < ids.length; i++) total += natsOf(step.advance(ids[i]))[ids[i + 1]];
  return total / (ids.length - 1);
}

/** A text as the model reads it: its ids, the characters they came from, and those that the model does not know. */
function encode(text) {
  const { normalization, unknown } = file.manifest;
  text = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  const characters = Array.from(normalization === "none" ? text : text.normalize(normalization));
  const strangers = new Set(characters.filter((character) => file.idOf(character) === UNKNOWN_ID));
  const read = unknown === "skip" ? characters.filter((character) => !strangers.has(character)) : characters;
  return { ids: read.map(file.idOf), characters: read, unknown: Array.from(strangers), skipped: characters.length - read.length };
}

/** The same of a text that somebody gave, who is told of unknown characters. */
function encodeGiven(text) {
  const { unknown, skipped, ...given } = encode(text);
  if (unknown.length) postMessage({ type: "unknown", unknown, skipped });
  return given;
}

/** Continue a prompt; without one the model begins from its start text, which is not shown. */
async function write({ prompt, temperature, top_p, seed, max_tokens }) {
  const { ids, characters } = encodeGiven(prompt);
  const random = randomFrom(seed);
  const fed = ids.length ? ids : encode(file.manifest.start_text).ids;
  let last;
  step.reset();
  await inSlices(fed.length + max_tokens, (i) => {
    const logits = i > 0 ? step.advance(last) : null;
    last = i < fed.length ? fed[i] : draw(weightsOf(logits, temperature, top_p), random);
    if (i < fed.length) return i < ids.length ? report(characters[i], last, logits && natsOf(logits), true) : null;
    return report(file.tokens[last], last, natsOf(logits), false);
  });
}

/** Score a text: the nats of each character after the first, the state carried from zeros. */
async function score({ sample }) {
  const { ids, characters } = encodeGiven(sample);
  step.reset();
  await inSlices(ids.length, (i) => report(characters[i], ids[i], i > 0 ? natsOf(step.advance(ids[i - 1])) : null, i === 0));
}

/** A character, its cost, what the model expected in its place (without `nats` nothing), and whether it is of the prompt. */
function report(character, id, nats, given) {
  if (!nats) return { character, nats: null, expected: [], given };
  const expected = [];
  for (let i = 0; i < nats.length; i++) {
    if (expected.length === EXPECTED && nats[i] >= nats[expected[EXPECTED - 1]]) continue;
    let place = expected.length;
    while (place > 0 && nats[i] < nats[expected[place - 1]]) place--;
    expected.splice(place, 0, i);
    expected.length = Math.min(expected.length, EXPECTED);
  }
  return { character, nats: nats[id], expected: expected.map((i) => [file.tokens[i], nats[i]]), given };
}

/** Call `work(i)` for each i below `count`, and post what it reports slice by slice, until another job begins. */
async function inSlices(count, work) {
  const mine = ++job;
  let began = performance.now(), reports = [];
  for (let i = 0; i < count; i++) {
    const result = work(i);
    if (result) reports.push(result);
    if (performance.now() - began < SLICE_MILLISECONDS) continue;
    postMessage({ type: "text", reports });
    await new Promise((resolve) => setTimeout(resolve));
    if (job !== mine) return;
    began = performance.now();
    reports = [];
  }
  postMessage({ type: "text", reports });
  postMessage({ type: "done", stopped: false });
}

function stop() {
  job++;
  postMessage({ type: "done", stopped: true });
}

const HANDLERS = { load, write, score, stop };
onmessage = ({ data }) => HANDLERS[data.type](data);
