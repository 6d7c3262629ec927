// This device's own camera.

const NO_CAMERAS =
  "Browsers open cameras on https and on localhost only: start edgenet camera with --tls-cert and --tls-key, or with --phone.";

const WORDS = {
  NotAllowedError: "The browser may not use the camera: allow it beside the address, then start again.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "Another program uses the camera: close it, then start again.",
  OverconstrainedError: "This camera cannot do what was asked of it.",
};

const ANY = { facingMode: "environment" };
const SILENT_S = 2; // without a picture, until the page says so

/** List this device's cameras. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === "videoinput");
}

export class Camera {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.wanted = ANY;
    this.stream = null;
    this.round = 0; // each start and each stop begins another, and ends what the one before still does
    this.switching = false;
    this.missed = 0; // pictures that came while nobody waited
    this.presented = 0;
    this.onSilent = () => {}; // told true when no picture comes any more, and false when one does again
    document.addEventListener("visibilitychange", () => this.stayAwake());
  }

  get running() {
    return this.stream !== null;
  }

  /** Open it; false where it was stopped meanwhile. Throws an Error in plain words. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(NO_CAMERAS);
    this.stop();
    const { round } = this;
    const video = { ...this.wanted, width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      if (round !== this.round) return false;
      if (error.name === "OverconstrainedError") this.wanted = ANY; // the one chosen is no longer there
      throw new Error(WORDS[error.name] ?? `The camera cannot be used: ${error.message}`, { cause: error });
    }
    if (round !== this.round) {
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    this.stream = stream;
    this.video.srcObject = stream;
    try {
      await Promise.race([this.video.play(), new Promise((resolve) => setTimeout(resolve, 1000))]); // it may give none
    } catch (error) {
      if (round === this.round) throw error;
    }
    if (round !== this.round) return false;
    this.presented = 0;
    this.stayAwake();
    return true;
  }

  stop() {
    this.round++;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
    this.stayAwake();
  }

  /** Keep the screen on while it runs; browsers forget that whenever the page was hidden. */
  async stayAwake() {
    if (this.running && !document.hidden && (this.lock?.released ?? true)) {
      this.lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
    }
    if (!this.running) await this.lock?.release().catch(() => {});
  }

  /** It was unplugged, or taken away. */
  get ended() {
    return this.stream !== null && this.stream.getVideoTracks().every((track) => track.readyState === "ended");
  }

  /** Use the one that looks the other way, or the next where they look nowhere, as soon as it is opened again. */
  async flip() {
    const { round } = this;
    const { facingMode, deviceId } = this.stream?.getVideoTracks()[0].getSettings() ?? {};
    let wanted = { facingMode: facingMode === "environment" ? "user" : "environment" };
    if (!facingMode) {
      const known = (await cameras()).map((one) => one.deviceId);
      wanted = { deviceId: { exact: known[(known.indexOf(deviceId) + 1) % known.length] } };
    }
    if (round !== this.round) return;
    this.wanted = wanted;
    this.switching = true;
    this.stop();
  }

  /** Tell when each picture was taken, one after another, for as long as it runs as it does now. */
  async *pictures() {
    const { round } = this;
    let silent = 0; // s
    let told = false; // that it is
    while (round === this.round && !this.ended) {
      const taken = await this.next();
      if (round !== this.round || this.ended) return;
      silent = taken === null && !document.hidden ? silent + 1 : 0;
      if (told ? taken !== null : silent >= SILENT_S) {
        told = !told;
        this.onSilent(told);
      }
      if (taken !== null) yield taken;
    }
  }

  /** Wait for the next picture; when it was taken, ms of performance.now(), or null where none came for a second. */
  next() {
    return new Promise((resolve) => {
      const late = setTimeout(() => resolve(null), 1000);
      const come = (now, { captureTime, presentedFrames } = {}) => {
        clearTimeout(late);
        if (presentedFrames) {
          this.missed += this.presented ? Math.max(0, presentedFrames - this.presented - 1) : 0;
          this.presented = presentedFrames;
        }
        resolve(Math.min(captureTime ?? now, performance.now()));
      };
      if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(come);
      else requestAnimationFrame(come);
    });
  }

  /** Draw the picture that is there, turned by 0, 90, 180 or 270 degrees clockwise, at most `side` pixels long. */
  draw(canvas, context, rotate, side) {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, side / Math.max(videoWidth, videoHeight));
    const width = Math.max(1, Math.round(videoWidth * scale));
    const height = Math.max(1, Math.round(videoHeight * scale));
    const [across, down] = rotate % 180 ? [height, width] : [width, height];
    if (canvas.width !== across) canvas.width = across;
    if (canvas.height !== down) canvas.height = down;
    context.setTransform(1, 0, 0, 1, across / 2, down / 2);
    context.rotate((rotate * Math.PI) / 180);
    context.drawImage(this.video, -width / 2, -height / 2, width, height);
    context.resetTransform();
  }
}
