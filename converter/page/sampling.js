// From logits to the next token, in the order of `charedge generate`: [UNK], which is never drawn; temperature; top-p; the draw.
"use strict";

const UNKNOWN_ID = 0;

/** The probabilities that the next token is drawn with; they need not add up to 1. */
function weightsOf(logits, temperature, topP) {
  let best = 1;
  for (let i = 2; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  if (temperature === 0) return logits.map((_, i) => Number(i === best));
  const weights = logits.map((logit, i) => (i === UNKNOWN_ID ? 0 : Math.exp((logit - logits[best]) / temperature)));
  return topP < 1 ? keepTopP(weights, topP) : weights;
}

/** The smallest set of most likely tokens that has a share of the whole. Holtzman et al. 2019. */
function keepTopP(weights, topP) {
  const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]);
  const wanted = topP * weights.reduce((a, b) => a + b);
  const kept = new Float64Array(weights.length);
  for (let i = 0, sum = 0; i < order.length && sum < wanted; i++) {
    kept[order[i]] = weights[order[i]];
    sum += weights[order[i]];
  }
  return kept;
}

/** A token drawn by its weight; `random` gives numbers from 0 to 1. */
function draw(weights, random) {
  let rest = random() * weights.reduce((a, b) => a + b), last = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    last = i;
    rest -= weights[i];
    if (rest < 0) break;
  }
  return last;
}

/** A generator of numbers in [0, 1) of 53 bits, from a seed: xoshiro128** (Blackman and Vigna 2018), seeded by SplitMix32. */
function randomFrom(seed) {
  let mixed = (seed % 2 ** 32) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b);
  const s = Int32Array.from({ length: 4 }, () => {
    mixed = (mixed + 0x9e3779b9) | 0;
    let z = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  });
  const rotate = (x, n) => (x << n) | (x >>> (32 - n));
  const next = () => {
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0, shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 11);
    return result;
  };
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}
