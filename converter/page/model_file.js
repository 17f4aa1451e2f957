// The model file that the page carries: a TFLite flatbuffer, and behind it a ZIP of the vocabulary and the manifest
// (docs/file-format.md). Everything is checked before anything is used: lengths, CRC-32, SHA-256.
"use strict";

const FORMAT_VERSION = 1;
const FLOAT32 = 0, FLOAT16 = 1, INT8 = 9; // of TensorType in TFLite's schema

/** The page is not as charedge wrote it. */
class Damaged extends Error {}

function require(holds, what) {
  if (!holds) throw new Damaged(what);
}

/** The bytes of a base64 text, which must be `length`. */
function decodeBase64(text, length) {
  let binary;
  try {
    binary = atob(text);
  } catch {
    throw new Damaged("the model's base64 is broken");
  }
  require(binary.length === length, `the model has ${binary.length} bytes instead of ${length}`);
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The parts of a model file: `manifest`, `tokens` in id order, and `tensors` by name. */
function readModelFile(bytes) {
  const { flatbuffer, members } = readZip(bytes);
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const manifest = JSON.parse(text.decode(members["charedge.json"]));
  require(manifest.format_version === FORMAT_VERSION, `format version ${manifest.format_version} is unknown`);
  require(sha256(flatbuffer) === manifest.flatbuffer_sha256, "the SHA-256 of the weights is wrong");
  const tokens = text.decode(members["vocabulary.txt"]).split("\n").slice(0, -1).map(unescape);
  require(tokens.length === manifest.vocabulary_size, `the vocabulary has ${tokens.length} tokens`);
  return { manifest, tokens, tensors: readTensors(flatbuffer) };
}

/** The character that a line of vocabulary.txt stands for. */
function unescape(line) {
  const escapes = { n: "\n", r: "\r", t: "\t", "\\": "\\" };
  return line.replace(/^\\(?:([nrt\\])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))$/, (_, simple, short, long) =>
    simple ? escapes[simple] : String.fromCodePoint(parseInt(short || long, 16)));
}

/** The stored members of the ZIP at the end, and the bytes before them. */
function readZip(bytes) {
  const view = new DataView(bytes.buffer);
  const end = bytes.length - 22;
  require(end > 0 && view.getUint32(end, true) === 0x06054b50, "the end of the model is missing");
  let at = view.getUint32(end + 16, true), start = at;
  const members = {};
  for (let count = view.getUint16(end + 10, true); count > 0; count--) {
    require(view.getUint32(at, true) === 0x02014b50 && view.getUint16(at + 10, true) === 0, "the model's ZIP is broken");
    const length = view.getUint32(at + 24, true), local = view.getUint32(at + 42, true);
    const nameEnd = at + 46 + view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, nameEnd));
    const data = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    members[name] = bytes.subarray(data, data + length);
    require(crc32(members[name]) === view.getUint32(at + 16, true), `the checksum of ${name} is wrong`);
    start = Math.min(start, local);
    at = nameEnd + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  require("charedge.json" in members && "vocabulary.txt" in members, "the model has no manifest");
  return { flatbuffer: bytes.subarray(0, start), members };
}

/** The constants of a TFLite model: name -> { type, shape, data }. Only what charedge writes is understood. */
function readTensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const follow = (at) => at + view.getUint32(at, true);
  const field = (table, index) => { // where a field of a table is, or 0
    const vtable = table - view.getInt32(table, true);
    const entry = 4 + 2 * index;
    const offset = entry < view.getUint16(vtable, true) ? view.getUint16(vtable + entry, true) : 0;
    return offset && table + offset;
  };
  const vector = (table, index) => { // where a vector's elements are, and how many
    const at = field(table, index);
    return at ? [follow(at) + 4, view.getUint32(follow(at), true)] : [0, 0];
  };
  const tables = (table, index) => {
    const [at, length] = vector(table, index);
    return Array.from({ length }, (_, i) => follow(at + 4 * i));
  };
  const content = (table, index) => {
    const [at, length] = vector(table, index);
    return bytes.subarray(at, at + length);
  };
  const model = follow(0);
  const buffers = tables(model, 4).map((buffer) => content(buffer, 0));
  const tensors = new Map();
  for (const tensor of tables(tables(model, 2)[0], 0)) {
    const [shape, rank] = vector(tensor, 0), type = field(tensor, 1), buffer = field(tensor, 2);
    const data = buffers[buffer && view.getUint32(buffer, true)];
    if (data.length === 0) continue; // not a constant
    tensors.set(new TextDecoder().decode(content(tensor, 3)), {
      type: type && view.getInt8(type),
      shape: Array.from({ length: rank }, (_, i) => view.getInt32(shape + 4 * i, true)),
      data,
    });
  }
  return tensors;
}

/** A constant's numbers as they are stored: a Float32Array, or an Int8Array of levels. */
function numbers({ type, data }) {
  const own = data.slice().buffer;
  if (type === FLOAT32) return new Float32Array(own);
  if (type === FLOAT16) return Float32Array.from(new Uint16Array(own), fromHalf);
  require(type === INT8, `the tensor type ${type} is unknown`);
  return new Int8Array(own);
}

function fromHalf(half) {
  const sign = half >> 15 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** FIPS 180-4, in hexadecimal digits. `crypto.subtle` is missing where a page comes over plain HTTP. */
function sha256(bytes) {
  const padded = new Uint8Array(((bytes.length + 72) >> 6) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const hash = fractions(8, 1 / 2), constants = fractions(64, 1 / 3), w = new Int32Array(64);
  const rotate = (x, n) => (x >>> n) | (x << (32 - n));
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { hash[i] += value; });
  }
  return Array.from(hash, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

/** The first 32 bits of the fractions of a root of the first primes, as SHA-256 defines its constants. */
function fractions(count, power) {
  const primes = [];
  for (let n = 2; primes.length < count; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  return Int32Array.from(primes, (prime) => ((prime ** power) % 1) * 2 ** 32);
}
