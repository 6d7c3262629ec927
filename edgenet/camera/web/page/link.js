// The socket to the server: states and pictures come in, one acknowledgement each goes out; buttons and this device's
// own pictures, too. It opens itself again for as long as the page lives.

const DONE = 1000; // all was shown
const FULL = 1013;
const FIRST_WAIT = 500; // ms
const SILENT = 3000; // ms without a whole message: the server begins one at least every second
const LONGEST = 15_000; // ms that one may take on a slow way
const NO_DOOR = 5000; // ms

export class Link {
  /**
   * onState(state, jpeg | null) draws, and the next state comes after it; onTrouble(text) says "" when all is well.
   * onEnd(whether) is told that all was shown, and that there is more again: another run at this address. onOpen() is
   * told whenever the server is there, which may be another run, of other options.
   */
  constructor({ onState, onTrouble, onEnd, onOpen }) {
    this.onState = onState;
    this.onTrouble = onTrouble;
    this.onEnd = onEnd;
    this.onOpen = onOpen;
    this.ended = false;
    this.wait = FIRST_WAIT;
    this.replies = [];
    this.pictures = true;
    this.busy = 0; // states that are being drawn
    this.asking = false; // whether the server is still there
    this.open();
    setInterval(() => this.listen(), 1000);
    document.addEventListener("visibilitychange", () => (this.begun = performance.now()));
  }

  /** Open it as soon as somebody can see the page: a clip begins then. */
  async open() {
    await visible();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket = socket;
    this.begun = performance.now(); // the silence is counted from here, or from the last message
    this.heard = 0; // when the last message came; 0: none yet
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.onOpen().catch(() => {}); // it is gone already: there will be another time
      if (!this.pictures) this.say({ do: "pictures", wanted: false });
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      if (!this.heard) this.onTrouble("");
      if (this.ended) this.onEnd((this.ended = false));
      [this.heard, this.wait] = [performance.now(), FIRST_WAIT];
      if (typeof data === "string") this.reply(JSON.parse(data));
      else this.take(socket, data);
    };
    socket.onclose = (event) => this.closed(socket, event);
  }

  /** Give up a server that has vanished without a word: one that lost its power, or its network. */
  async listen() {
    const { socket } = this;
    if (!socket || this.asking || this.busy || document.hidden) return;
    const quiet = () => performance.now() - Math.max(this.heard, this.begun);
    if (socket.readyState === WebSocket.CONNECTING) {
      if (quiet() > NO_DOOR) this.closed(socket, {});
    } else if (quiet() > SILENT) {
      this.asking = true;
      this.wantPictures(this.pictures); // nothing new, but a server that knows no such socket any more ends it
      const there = await answers();
      this.asking = false;
      if (quiet() > (there ? LONGEST : SILENT) && !this.busy && !document.hidden) this.closed(socket, {});
    }
  }

  async closed(socket, { code, reason }) {
    if (socket !== this.socket) return; // it was given up before
    this.socket = null;
    this.heard = 0;
    socket.close();
    this.reply({ lost: true });
    setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(5000, this.wait * 2);
    if (code === DONE) this.onEnd((this.ended = true));
    if (this.ended) return this.onTrouble("");
    if (code === FULL) return this.onTrouble(`${reason}: trying again`);
    this.onTrouble("The connection was lost: trying again");
    const why = await whyNot();
    if (!this.heard) this.onTrouble(`${why}: trying again`);
  }

  async take(socket, data) {
    const away = document.hidden;
    const length = new DataView(data).getUint32(0);
    const state = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const jpeg = data.byteLength > 4 + length ? new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }) : null;
    this.busy++;
    try {
      await visible();
      await this.onState(state, jpeg);
    } finally {
      this.busy--;
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: "ack", away }));
    }
  }

  /** Whether it could be said: not while there is no connection. */
  say(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Ask for states alone, where this device sees its own pictures anyway. */
  wantPictures(wanted) {
    this.pictures = wanted;
    this.say({ do: "pictures", wanted });
  }

  /** Send one picture and wait for the answer: {taken: id | null}, {busy: why} or {lost: true}. */
  async sendPicture(jpeg) {
    if (this.socket?.readyState !== WebSocket.OPEN) return { lost: true };
    this.socket.send(jpeg);
    return new Promise((resolve) => this.replies.push(resolve));
  }

  reply(message) {
    for (const resolve of this.replies.splice(0)) resolve(message);
  }
}

async function whyNot() {
  try {
    const { status } = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(2000) });
    return status === 403 ? "The token is missing. Open the address that edgenet printed" : "The connection was lost";
  } catch {
    return "edgenet does not answer";
  }
}

async function answers() {
  try {
    return Boolean(await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(3000) }));
  } catch {
    return false;
  }
}

/** Wait until somebody can see the page: until then it costs nobody anything. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
