// What is written beside the picture.

const $ = (id) => document.getElementById(id);
const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const rows = new Map(); // place -> elements, made once and filled anew
const figures = new Map();

/** Show the top labels with their bars, and what this frame alone says where that differs. */
export function showAnswer(top, raw) {
  top.forEach(({ label, smoothed, raw: alone }, place) => {
    const row = rows.get(place) ?? addRow(place);
    row.item.hidden = false;
    nameRow(row.name, label);
    set(row.share, `${(smoothed * 100).toFixed(1)} %`);
    row.bar.style.setProperty("--smoothed", smoothed);
    row.bar.style.setProperty("--raw-share", alone);
  });
  for (const [place, row] of rows) row.item.hidden = place >= top.length;
  set($("alone"), raw && top.length && raw.index !== top[0].index ? `: ${raw.label}` : "");
}

// The first synonym stands out: "tench, Tinca tinca".
function nameRow(element, label) {
  if (element.title === label) return;
  const [first] = label.split(",", 1);
  const rest = document.createElement("small");
  rest.textContent = label.slice(first.length);
  element.replaceChildren(first, rest);
  element.title = label;
}

function addRow(place) {
  const item = document.createElement("li");
  const [name, share, bar] = ["name", "share", "bar"].map((kind) => {
    const element = document.createElement(kind === "bar" ? "div" : "span");
    element.className = kind;
    return item.appendChild(element);
  });
  name.dir = "auto"; // of one from right to left, too, the beginning stays
  $("labels").append(item);
  rows.set(place, { item, name, share, bar });
  return rows.get(place);
}

/** Show figures, name -> text; null hides one. */
export function showFigures(values) {
  for (const [name, text] of Object.entries(values)) {
    let entry = figures.get(name);
    if (!entry) {
      const [pair, term, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      term.textContent = name;
      pair.append(term, value);
      $("figures").append(pair);
      entry = { pair, value };
      figures.set(name, entry);
    }
    entry.pair.hidden = text === null;
    if (text !== null) set(entry.value, text);
  }
}

export function showModel(...parts) {
  set($("model"), parts.filter(Boolean).join(" · "));
}

const NONE = { text: "", stale: false };
const troubles = { page: NONE, link: NONE, camera: NONE, source: NONE, end: NONE }; // of several, the first is shown

/** Say why there are no pictures; "" when there are. who: one of the above. stale: what is shown waits for that. */
export function showTrouble(who, text, stale = true) {
  troubles[who] = text ? { text, stale } : NONE;
  const said = Object.values(troubles).filter((one) => one.text);
  set($("banner"), said[0]?.text ?? "");
  $("banner").hidden = !said.length;
  $("frame").classList.toggle("stale", said.some((one) => one.stale));
}

export function showHeld({ paused, mirror }) {
  $("paused").hidden = !paused;
  $("frame").classList.toggle("mirrored", mirror);
  const button = (name) => document.querySelector(`[data-do="${name}"]`);
  set(button("pause").firstChild, paused ? "Resume" : "Pause");
  button("pause").classList.toggle("primary", paused); // its name says it: pressed, too, would say it is not
  button("mirror").setAttribute("aria-pressed", String(mirror));
}

let fading;
export function toast(text) {
  set($("toast"), text);
  $("toast").classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => $("toast").classList.remove("shown"), 1800);
}

/** The values of the last two seconds, or the last few where they come more rarely: percentiles, and how many a second. */
export class Recent {
  #values = [];
  #gap = 0; // ms between the last two
  #last = null;

  /** count: how many it stands for, of which the others have no value. */
  add(value, count = 1) {
    this.#forget();
    const now = performance.now();
    this.#gap = this.#last ? now - this.#last[0] : 0;
    this.#last = [now, value, count];
    this.#values.push(this.#last);
  }

  get empty() {
    this.#forget();
    return this.#values.length === 0;
  }

  /** The median; where nothing came lately, the last value; null where there never was one. */
  get typical() {
    return this.empty ? (this.#last?.[1] ?? null) : this.percentile(0.5);
  }

  percentile(share) {
    this.#forget();
    const sorted = this.#values.map(([, value]) => value).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : 0;
  }

  get perSecond() {
    this.#forget();
    const [first, ...later] = this.#values;
    if (!later.length) return 0;
    return (later.reduce((sum, [, , count]) => sum + count, 0) * 1000) / (later.at(-1)[0] - first[0]);
  }

  #forget() {
    const since = performance.now() - Math.max(2000, 2 * this.#gap);
    while (this.#values.length && this.#values[0][0] < since) this.#values.shift();
  }
}

export const ms = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
export const fps = (value) => `${value.toFixed(1)} fps`;
export const agePair = (p50, p95) => `${Math.round(p50)} / ${Math.round(p95)} ms`;
