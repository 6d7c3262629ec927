// The model in the page itself, with LiteRT.js on WebAssembly: one thread, no GPU, the same file as everywhere.

import { cropOf, resize } from "./fit.js";
import { Tensor, loadAndCompile, loadLiteRt } from "./litert/litert.js";

const MARGIN = 0.05; // both as in edgenet.camera.smoothing
const SHARE = 0.2;

export const RUNTIME = "LiteRT.js 2.5.3, WebAssembly";

export class Classifier {
  /** config: what /config.json says of the model. Throws an Error in plain words. */
  static async open(config) {
    const answer = await fetch("model.tflite");
    if (!answer.ok) throw new Error(`The model file ${answer.status === 409 ? "has changed" : "is gone"}: start edgenet camera again.`);
    const file = new Uint8Array(await answer.arrayBuffer());
    try {
      await loadLiteRt("page/litert/");
    } catch (error) {
      const cure = "use another, or start edgenet camera with --source browser in place of --in-browser";
      throw new Error(`LiteRT.js does not start in this browser (${error.message ?? error}): ${cure}`, { cause: error });
    }
    try {
      return new Classifier(config, await loadAndCompile(file, { accelerator: "wasm" }));
    } catch (error) {
      throw new Error(`LiteRT.js does not take this model: ${error.message ?? error}`, { cause: error });
    }
  }

  constructor(config, model) {
    const [{ dtype, shape }] = model.getInputDetails();
    if (dtype !== "uint8" || shape.length !== 4 || shape[0] !== 1 || shape[3] !== 3) {
      throw new Error(`it takes ${dtype} [${shape}], and the page gives uint8 [1,height,width,3]; use a file made by edgenet`);
    }
    this.config = config;
    this.model = model;
    [, this.height, this.width] = shape;
    this.answered = 0;
    this.forget();
    this.logits = false; // once it has shown any, it is taken to answer logits
  }

  /** Classify what a canvas shows: its most probable classes, and how long each part took, ms. */
  async classify(canvas, context) {
    const began = performance.now();
    const crop = cropOf(canvas.width, canvas.height, this.width, this.height, this.config.crop);
    const { data } = context.getImageData(crop.left, crop.top, crop.width, crop.height);
    const pixels = resize(data, crop.width, crop.height, this.width, this.height);
    const fitted = performance.now();
    const scores = this.asProbabilities(await this.run(pixels));
    const ended = performance.now();
    return { ...this.rank(scores, ended), preprocess: fitted - began, inference: ended - fitted };
  }

  /** Answer the model's scores for RGB pixels, Uint8Array [height * width * 3]. */
  async run(pixels) {
    const input = new Tensor(pixels instanceof Uint8Array ? pixels : new Uint8Array(pixels), [1, this.height, this.width, 3]);
    const outputs = await this.model.run([input]);
    const scores = await outputs[0].data();
    for (const tensor of [input, ...outputs]) tensor.delete();
    const { scale, zero_point: zero } = this.config;
    return scores instanceof Float32Array ? scores : Float32Array.from(scores, (score) => (score - zero) * scale);
  }

  /** Turn a foreign file's logits into probabilities: as the server does it. */
  asProbabilities(scores) {
    const most = scores.reduce((a, b) => Math.max(a, b));
    const sum = scores.reduce((a, b) => a + b);
    if (!Number.isFinite(sum)) throw new Error("The model answers NaN or infinity: convert it again.");
    const { probabilities, sum_tolerance: tolerance } = this.config;
    const outside = most > 1.01 || scores.some((score) => score < -0.01) || Math.abs(sum - 1) > tolerance;
    this.logits ||= !probabilities && outside;
    if (!this.logits) return scores;
    const powers = scores.map((score) => Math.exp(score - most));
    const all = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / all);
  }

  /** Forget what was: the next answer is averaged with none before. */
  forget() {
    this.average = null;
    this.leader = -1;
  }

  /** Average over time, and keep the label on top until another is clearly ahead: as the server does it. */
  rank(scores, now) {
    const { smooth_s: smooth, labels, top } = this.config;
    if (this.average === null) this.average = Float32Array.from(scores);
    const keep = smooth > 0 ? Math.exp((this.answered - now) / 1000 / smooth) : 0;
    for (let i = 0; i < scores.length; i++) this.average[i] = scores[i] + keep * (this.average[i] - scores[i]);
    this.answered = now;
    const best = largest(this.average);
    const margin = smooth > 0 ? Math.min(MARGIN, SHARE * this.average[best]) : 0;
    if (!(this.average[best] < this.average[this.leader] + margin)) this.leader = best;
    const others = Array.from(scores.keys()).sort((a, b) => this.average[b] - this.average[a]);
    const listed = [this.leader, ...others.slice(0, top).filter((place) => place !== this.leader)].slice(0, top);
    const named = (index) => ({
      index,
      label: labels[index] ?? String(index),
      raw: scores[index],
      smoothed: this.average[index],
    });
    return { top: listed.map(named), raw: named(largest(scores)) };
  }
}

function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
