// One step of the model: a token and the state before it -> logits and the state after it, in plain arithmetic on the
// model file's weights. They are made Float32Array when the page is loaded, from whatever they are stored as.
"use strict";

const GATES = { gru: ["update", "reset", "candidate"], lstm: ["input", "forget", "candidate", "output"] };

/** Weights of a matrix [rows, columns] as floats; int8 levels are multiplied by the scale of their row, or of their column. */
function readMatrix(tensors, name, scaledBy) {
  const tensor = tensors.get(name);
  require(tensor !== undefined, `the tensor ${name} is missing`);
  const [rows, columns] = tensor.shape, levels = numbers(tensor);
  if (levels instanceof Float32Array) return { rows, columns, values: levels };
  const scale = numbers(tensors.get(`${name}/scale`)), values = new Float32Array(levels.length);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, i++) values[i] = levels[i] * scale[scaledBy === "row" ? row : column];
  }
  return { rows, columns, values };
}

/** weights @ x + bias. */
class Dense {
  constructor(tensors, name) {
    const { rows, columns, values } = readMatrix(tensors, `${name}/weights`, "row");
    Object.assign(this, { rows, columns, weights: values, out: new Float64Array(rows) });
    const bias = tensors.get(`${name}/bias`);
    this.bias = bias ? numbers(bias) : new Float32Array(rows);
  }

  /** Four rows at a time, so that each element of x is loaded once for all of them. */
  apply(x) {
    const { rows, columns, weights, bias, out } = this;
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      let a = 0, b = 0, c = 0, d = 0;
      const p = row * columns, q = p + columns, r = q + columns, s = r + columns;
      for (let i = 0; i < columns; i++) {
        const value = x[i];
        a += weights[p + i] * value;
        b += weights[q + i] * value;
        c += weights[r + i] * value;
        d += weights[s + i] * value;
      }
      out[row] = a + bias[row];
      out[row + 1] = b + bias[row + 1];
      out[row + 2] = c + bias[row + 2];
      out[row + 3] = d + bias[row + 3];
    }
    for (; row < rows; row++) {
      let sum = bias[row];
      for (let i = 0; i < columns; i++) sum += weights[row * columns + i] * x[i];
      out[row] = sum;
    }
    return out;
  }
}

/** A model with the state of one text. */
class Step {
  constructor({ manifest, tensors }) {
    const { cell, layers, units } = manifest;
    const folded = tensors.has("layer_0/table/rows"); // the embedding and the first input matrix in one
    this.update = { gru: updateGru, lstm: updateLstm }[cell];
    this.table = readMatrix(tensors, folded ? "layer_0/table/rows" : "embedding/rows", "column");
    this.layers = Array.from({ length: layers }, (_, i) => {
      const scope = `layer_${i}/${GATES[cell][0]}`;
      return {
        input: i === 0 && folded ? null : new Dense(tensors, `${scope}/input/all`),
        recurrent: new Dense(tensors, `${scope}/recurrent/all`),
        h: new Float64Array(units),
        c: new Float64Array(cell === "lstm" ? units : 0),
      };
    });
    this.output = new Dense(tensors, "logits");
  }

  /** Begin a text. */
  reset() {
    for (const { h, c } of this.layers) {
      h.fill(0);
      c.fill(0);
    }
  }

  /** Read a token; the logits for the next one are a Float64Array that the next call overwrites. */
  advance(token) {
    const { columns, values } = this.table;
    let x = values.subarray(token * columns, (token + 1) * columns);
    for (const layer of this.layers) {
      this.update(layer, layer.input ? layer.input.apply(x) : x, layer.recurrent.apply(layer.h));
      x = layer.h;
    }
    return this.output.apply(x);
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** Cho et al. 2014 with the reset gate after the matmul: c = tanh(x_c + r u_c), h' = c + z (h - c). */
function updateGru({ h }, x, u) {
  const n = h.length;
  for (let i = 0; i < n; i++) {
    const z = sigmoid(x[i] + u[i]), r = sigmoid(x[n + i] + u[n + i]);
    const candidate = Math.tanh(x[2 * n + i] + r * u[2 * n + i]);
    h[i] = candidate + z * (h[i] - candidate);
  }
}

/** Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000: c' = f c + i g, h' = o tanh(c'). */
function updateLstm({ h, c }, x, u) {
  const n = h.length;
  for (let i = 0; i < n; i++) {
    const gate = (k) => x[k * n + i] + u[k * n + i];
    c[i] = sigmoid(gate(1)) * c[i] + sigmoid(gate(0)) * Math.tanh(gate(2));
    h[i] = sigmoid(gate(3)) * Math.tanh(c[i]);
  }
}

/** The cost of each possible next token, -log softmax(logits), in nats. */
function natsOf(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const sum = Math.log(logits.reduce((total, logit) => total + Math.exp(logit - largest), 0));
  return logits.map((logit) => largest - logit + sum);
}
