// The socket to the server: states and pictures come in, one acknowledgement each goes out; buttons and this device's
// own pictures, too. It opens itself again for as long as the page lives.

const FULL = 1013;

export class Link {
  /** onState(state, jpeg | null) draws, and the next state comes after it; onTrouble(text) says "" when all is well. */
  constructor({ onState, onTrouble }) {
    this.onState = onState;
    this.onTrouble = onTrouble;
    this.wait = 500; // ms
    this.replies = [];
    this.pictures = true;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.wait = 500;
      this.onTrouble("");
      if (!this.pictures) this.say({ do: "pictures", wanted: false });
    };
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.reply(JSON.parse(data)) : this.take(data));
    this.socket.onclose = (event) => this.closed(event);
  }

  async closed({ code, reason }) {
    this.reply({ lost: true });
    const why = code === FULL ? reason : await whyNot();
    this.onTrouble(`${why}: trying again`);
    setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(5000, this.wait * 2);
  }

  async take(data) {
    const socket = this.socket;
    const length = new DataView(data).getUint32(0);
    const state = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const jpeg = data.byteLength > 4 + length ? new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }) : null;
    await visible();
    try {
      await this.onState(state, jpeg);
    } finally {
      if (socket.readyState === WebSocket.OPEN) socket.send('{"do": "ack"}');
    }
  }

  say(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Ask for states alone, where this device sees its own pictures anyway. */
  wantPictures(wanted) {
    this.pictures = wanted;
    this.say({ do: "pictures", wanted });
  }

  /** Send one picture and wait for the answer: {taken: id | null}, {busy: why} or {lost: true}. */
  async sendPicture(jpeg) {
    if (this.socket.readyState !== WebSocket.OPEN) return { lost: true };
    this.socket.send(jpeg);
    return new Promise((resolve) => this.replies.push(resolve));
  }

  reply(message) {
    for (const resolve of this.replies.splice(0)) resolve(message);
  }
}

async function whyNot() {
  try {
    const { status } = await fetch("healthz", { cache: "no-store" });
    return status === 403 ? "The token is missing. Open the address that edgenet printed" : "The connection was lost";
  } catch {
    return "edgenet does not answer";
  }
}

/** Wait until somebody can see the page: until then it costs nobody anything. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
