// The page. It either watches the server, whose model answers (with the server's camera, or with this device's, whose
// pictures it sends), or, where the server hands out a model, answers its own camera's pictures itself.

import { Camera, cameras } from "./camera.js";
import { Link } from "./link.js";
import { Recent, agePair, fps, ms, showAnswer, showFigures, showHeld, showModel, showTrouble, toast } from "./panel.js";

const SIDE = 640; // pixels, of what this device's camera sends
const FIGURES_MS = 250; // figures that change faster cannot be read
const $ = (id) => document.getElementById(id);
const canvas = $("picture");
const camera = new Camera();
const draws = new Recent();

/**
 * Watch the server; canSend: it takes this device's pictures. cut: of which its model is shown a part. `onOpen` is told
 * whenever there is a server.
 */
function watch({ camera: canSend, cut }, onOpen) {
  const context = canvas.getContext("2d");
  const sent = new Map(); // id of a picture of ours -> when it was taken
  const trips = new Recent();

  const link = new Link({
    onOpen,
    onTrouble: (text) => showTrouble("link", text),
    onEnd: (ended) => showTrouble("end", ended ? "That was all. edgenet camera has ended." : "", false),
    async onState(state, jpeg) {
      const began = performance.now();
      if (jpeg) await drawJpeg(jpeg, context);
      if (jpeg) draws.add(performance.now() - began);
      const taken = sent.get(state.frame);
      if (taken !== undefined) trips.add(performance.now() - taken);
      sent.delete(state.frame);
      if (camera.running && !cut && state.paused) turn(canvas, context, (state.rotate - shown.rotate + 360) % 360);
      showState(state, camera.running ? [trips.percentile(0.5), trips.percentile(0.95)] : state.age_ms);
      if (state.notice && state.notice.number !== told) toast(state.notice.text);
      told = state.notice?.number ?? told;
      shown = state;
    },
  });
  let told = 0; // number of the notice that was shown last
  let shown = { rotate: 0, paused: false };

  async function send() {
    const still = document.createElement("canvas"); // as the camera sees it: the server turns it
    const paper = still.getContext("2d");
    let held = -Infinity; // when one was last taken, or the way was lost: the server may keep our place for a while
    if (!cut) link.wantPictures(false);
    for await (const taken of camera.pictures()) {
      const began = performance.now();
      camera.draw(still, paper, 0, SIDE);
      if (!cut) {
        if (!shown.paused || !$("empty").hidden) camera.draw(canvas, context, shown.rotate, SIDE);
        $("empty").hidden = true;
        draws.add(performance.now() - began);
      }
      const jpeg = await new Promise((resolve) => still.toBlob(resolve, "image/jpeg", 0.8));
      const reply = await link.sendPicture(jpeg);
      if (reply.taken != null) sent.set(reply.taken, taken);
      if (reply.taken != null || reply.lost) held = performance.now();
      if (reply.busy && performance.now() - held > 4000) throw new Error(`${reply.busy}.`);
      if (reply.busy || reply.lost) await new Promise((resolve) => setTimeout(resolve, 500));
      for (const id of sent.keys()) if (sent.size > 100) sent.delete(id);
    }
  }

  if (canSend) offerCamera(send, () => link.wantPictures(true));
  onButton((wish) => link.say({ do: wish }) || toast("Not connected: press it again later"));
}

async function drawJpeg(jpeg, context) {
  const picture = await createImageBitmap(jpeg);
  if (canvas.width !== picture.width) canvas.width = picture.width;
  if (canvas.height !== picture.height) canvas.height = picture.height;
  context.drawImage(picture, 0, 0);
  picture.close();
  $("empty").hidden = true;
}

function showState({ top, raw, stats, paused, mirror }, age) {
  const [p50, p95] = age[1] ? age : [stats.age_p50_ms, stats.age_p95_ms]; // nothing was drawn: how old is it?
  showAnswer(top, raw);
  showHeld({ paused, mirror });
  showTrouble("source", stats.trouble);
  $("source").textContent = stats.source;
  showFigures({
    "camera rate": fps(stats.camera_fps),
    "inference rate": fps(stats.inference_fps),
    "age p50 / p95": p95 ? agePair(p50, p95) : "–",
    preprocess: stats.preprocess_ms ? ms(stats.preprocess_ms) : "–",
    inference: stats.inference_ms ? ms(stats.inference_ms) : "–",
    draw: draws.empty ? "–" : ms(draws.percentile(0.5)),
    dropped: String(stats.dropped),
    temperature: stats.temperature_c === null ? null : `${stats.temperature_c.toFixed(0)} °C`,
  });
  const threads = stats.threads ? `${stats.threads} thread${stats.threads === 1 ? "" : "s"}` : "";
  showModel(stats.model, stats.precision, stats.runtime, threads);
}

/** Run the model here, on this device's camera. */
async function classifyHere(config) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const held = { paused: false, mirror: config.mirror, rotate: config.rotate };
  showHeld(held);
  const [ages, preprocess, inference, came] = [new Recent(), new Recent(), new Recent(), new Recent()];
  $("source").textContent = "this device’s camera";
  document.querySelector('[data-do="precision"]').hidden = true;
  $("empty").textContent = "Loading the model";
  const { Classifier, RUNTIME } = await import("./classifier.js");
  const classifier = await Classifier.open(config);
  $("empty").textContent = "Start the camera";
  showModel(config.name, config.precision, RUNTIME, "1 thread");

  async function answer() {
    const { top, raw, ...took } = await classifier.classify(canvas, context);
    $("empty").hidden = true;
    preprocess.add(took.preprocess);
    inference.add(took.inference);
    showAnswer(top, raw);
  }

  let turned = held.rotate; // the picture that is shown
  async function run() {
    let missed = camera.missed;
    for await (const taken of camera.pictures()) {
      const skipped = camera.missed - missed;
      missed = camera.missed;
      came.add(0, 1 + skipped);
      if (held.paused && $("empty").hidden) {
        if (turned === held.rotate) continue;
        turn(canvas, context, held.rotate - turned); // the same picture, seen anew
        turned = held.rotate;
        classifier.forget();
        await answer();
        continue;
      }
      const began = performance.now();
      turned = held.rotate;
      camera.draw(canvas, context, turned, SIDE);
      draws.add(performance.now() - began);
      await answer();
      ages.add(performance.now() - taken);
    }
  }

  const took = (recent) => (recent.typical === null ? "–" : ms(recent.typical));
  setInterval(() => {
    const aging = camera.running && !held.paused && !ages.empty;
    showFigures({
      "camera rate": fps(camera.running ? came.perSecond : 0),
      "inference rate": fps(camera.running ? inference.perSecond : 0),
      "age p50 / p95": aging ? agePair(ages.percentile(0.5), ages.percentile(0.95)) : "–",
      preprocess: took(preprocess),
      inference: took(inference),
      draw: took(draws),
      dropped: String(camera.missed),
    });
  }, FIGURES_MS);
  offerCamera(run, () => {});
  onButton((wish) => {
    if (wish === "pause") held.paused = !held.paused;
    else if (wish === "mirror") held.mirror = !held.mirror;
    else if (wish === "rotate") held.rotate = (held.rotate + 90) % 360;
    else if (wish === "save" && $("empty").hidden) download(); // there is a picture
    showHeld(held);
  });
}

/** Turn what a canvas shows by 90, 180 or 270 degrees clockwise. */
function turn(shown, context, degrees) {
  if (!degrees) return;
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [shown.width, shown.height];
  copy.getContext("2d").drawImage(shown, 0, 0);
  if (degrees % 180) [shown.width, shown.height] = [copy.height, copy.width];
  context.setTransform(1, 0, 0, 1, shown.width / 2, shown.height / 2);
  context.rotate((degrees * Math.PI) / 180);
  context.drawImage(copy, -copy.width / 2, -copy.height / 2);
  context.resetTransform();
}

function download() {
  canvas.toBlob((still) => {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(still);
    anchor.download = `edgenet-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.png`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  });
}

/**
 * Offer to start this device's camera. `use` runs as long as it gives pictures, and again when it is back; what it throws
 * ends it. `after` is told when it was stopped.
 */
function offerCamera(use, after) {
  const [button, flip] = [$("camera"), $("flip")];
  let wanted = null; // what the last click began; null while it is stopped
  $("start").hidden = false;
  camera.onSilent = (silent) => showTrouble("camera", silent ? "No picture comes from the camera." : "");

  async function keep(mine) {
    let wait = 500; // ms
    let opened = false;
    while (wanted === mine) {
      try {
        if (await camera.start()) {
          [opened, wait] = [true, 500];
          showTrouble("camera", "");
          cameras().then((found) => (flip.hidden = wanted !== mine || found.length < 2));
          await use();
        }
      } catch (error) {
        if (wanted !== mine) return;
        const again = opened && !camera.running;
        showTrouble("camera", `${error.message}${again ? " Trying again." : ""}`, again);
        if (!again) return show(false);
      }
      if (wanted !== mine) return;
      if (camera.ended) {
        showTrouble("camera", "The camera is gone. Trying again.");
        camera.stop();
      }
      if (!camera.switching) await new Promise((resolve) => setTimeout(resolve, wait));
      camera.switching = false;
      wait = Math.min(5000, wait * 2);
    }
  }

  function show(running) {
    wanted = running ? {} : null;
    button.textContent = running ? "Stop" : "Start this device’s camera";
    button.classList.toggle("primary", !running);
    $("start").classList.toggle("running", running);
    if (running) return;
    flip.hidden = true;
    camera.stop();
    after();
  }

  button.addEventListener("click", () => {
    showTrouble("camera", "");
    show(!wanted);
    if (wanted) keep(wanted);
  });
  flip.addEventListener("click", () => camera.flip());
}

function onButton(press) {
  const keys = { " ": "pause", m: "mirror", r: "rotate", s: "save", p: "precision" };
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => press(button.dataset.do));
  }
  document.addEventListener("keydown", (event) => {
    const wish = keys[event.key.toLowerCase()];
    if (!wish || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button")) return; // that presses the button
    const button = document.querySelector(`[data-do="${wish}"]`);
    if (button.hidden) return;
    event.preventDefault();
    press(wish);
  });
}

// After a click the space bar is the page's again; who walks with the keyboard keeps the focus.
document.addEventListener("click", (event) => event.detail > 0 && event.target.closest("button")?.blur());

const configText = async () => (await fetch("config.json", { cache: "no-store" })).text();

async function start() {
  const began = await configText();
  const config = JSON.parse(began);
  if (config.model) await classifyHere(config.model);
  else watch(config, () => configText().then((now) => now !== began && location.reload()));
}

start().catch((error) => {
  $("empty").hidden = true; // nothing is waited for
  showTrouble("page", error.message);
});
