// This device's own camera.

const NO_CAMERAS =
  "Browsers open cameras on https and on localhost only: start edgenet camera with --tls-cert and --tls-key, or with --phone.";

const WORDS = {
  NotAllowedError: "The browser may not use the camera: allow it beside the address, then start again.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "Another program uses the camera: close it, then start again.",
  OverconstrainedError: "This camera cannot do what was asked of it.",
};

export class Camera {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.facing = "environment";
    this.stream = null;
    this.switching = false;
    this.missed = 0; // pictures that came while nobody waited
    this.presented = 0;
  }

  get running() {
    return this.stream !== null;
  }

  /** Open it; throws an Error in plain words. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(NO_CAMERAS);
    const video = { facingMode: this.facing, width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(WORDS[error.name] ?? `The camera cannot be used: ${error.message}`, { cause: error });
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.presented = 0;
    navigator.wakeLock?.request("screen").then((lock) => (this.lock = lock), () => {});
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
    this.lock?.release().catch(() => {});
  }

  /** It was unplugged, or taken away. */
  get ended() {
    return this.stream !== null && this.stream.getVideoTracks().every((track) => track.readyState === "ended");
  }

  /** Use the one that looks the other way, as soon as it is opened again. */
  flip() {
    this.facing = this.facing === "environment" ? "user" : "environment";
    this.switching = true;
    this.stop();
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
