// A picture as the model eats it: edgenet.image.fit, byte for byte (crop on whole pixels, whole blocks averaged, then
// Pillow's bilinear resize in fixed point). What can still differ is how the browser decodes the camera's pictures.

const PRECISION = 22; // bits after the point, in Pillow's 8-bit resize

/** Return {left, top, width, height} of what the resize shall see; crop: "center" or "squash". */
export function cropOf(width, height, outWidth, outHeight, crop) {
  if (crop === "squash") return { left: 0, top: 0, width, height };
  let columns = width;
  let rows = height;
  if (width * outHeight >= height * outWidth) {
    columns = Math.max(1, Math.floor((2 * height * outWidth + outHeight) / (2 * outHeight)));
  } else {
    rows = Math.max(1, Math.floor((2 * width * outHeight + outWidth) / (2 * outWidth)));
  }
  rows = Math.min(rows, height);
  columns = Math.min(columns, width);
  return { left: (width - columns) >> 1, top: (height - rows) >> 1, width: columns, height: rows };
}

/** Resize RGBA pixels to RGB, Uint8Array [outHeight * outWidth * 3]. */
export function resize(rgba, width, height, outWidth, outHeight) {
  let image = { data: rgba, step: 4, width, height };
  if (width === outWidth && height === outHeight) return withoutAlpha(image);
  const factorX = Math.max(1, Math.floor(width / outWidth));
  const factorY = Math.max(1, Math.floor(height / outHeight));
  if (factorX > 1 || factorY > 1) image = reduce(image, factorX, factorY);
  const rows = { from: Math.fround(height / factorY), to: outHeight }; // Pillow keeps these as 32-bit floats
  const columns = { from: Math.fround(width / factorX), to: outWidth };
  const passes = [
    (it) => (it.width !== columns.to || columns.from !== columns.to ? horizontally(it, columns) : it),
    (it) => (it.height !== rows.to || rows.from !== rows.to ? vertically(it, rows) : it),
  ];
  // Each pass rounds, so their order shows: Pillow 13 begins where more is lost, and until 12 always horizontally.
  if (image.height - rows.to > 2 * Math.max(0, image.width - columns.to)) passes.reverse();
  for (const pass of passes) image = pass(image);
  return image.step === 3 ? image.data : withoutAlpha(image);
}

function withoutAlpha({ data, width, height }) {
  const out = new Uint8Array(width * height * 3);
  for (let i = 0, o = 0; o < out.length; i += 4, o += 3) {
    out[o] = data[i];
    out[o + 1] = data[i + 1];
    out[o + 2] = data[i + 2];
  }
  return out;
}

// Pillow divides by the number of pixels in a block with one multiplication; its quotient is a 32-bit float.
const reciprocal = (count) => Math.trunc(Math.fround(2 ** 32 / (256 * count)));

function reduce({ data, step, width, height }, factorX, factorY) {
  const outWidth = Math.ceil(width / factorX);
  const outHeight = Math.ceil(height / factorY);
  const out = new Uint8Array(outWidth * outHeight * 3);
  for (let y = 0, o = 0; y < outHeight; y++) {
    const bottom = Math.min(height, (y + 1) * factorY);
    for (let x = 0; x < outWidth; x++, o += 3) {
      const right = Math.min(width, (x + 1) * factorX);
      const count = (bottom - y * factorY) * (right - x * factorX);
      let red = count >> 1;
      let green = red;
      let blue = red;
      for (let row = y * factorY; row < bottom; row++) {
        const end = (row * width + right) * step;
        for (let i = (row * width + x * factorX) * step; i < end; i += step) {
          red += data[i];
          green += data[i + 1];
          blue += data[i + 2];
        }
      }
      const share = reciprocal(count) / 2 ** 24;
      out[o] = red * share;
      out[o + 1] = green * share;
      out[o + 2] = blue * share;
    }
  }
  return { data: out, step: 3, width: outWidth, height: outHeight };
}

// Which pixels each output pixel is made of, and their weights (Pillow's precompute_coeffs, bilinear, support 1).
function weights(inSize, { from, to }) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const size = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(to);
  const counts = new Int32Array(to);
  const table = new Int32Array(to * size);
  for (let out = 0; out < to; out++) {
    const center = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(inSize, Math.trunc(center + support + 0.5)) - first;
    const shares = Array.from({ length: count }, (_, i) =>
      Math.max(0, 1 - Math.abs((i + first - center + 0.5) * (1 / support))),
    );
    const sum = shares.reduce((total, share) => total + share, 0);
    shares.forEach((share, i) => {
      table[out * size + i] = Math.trunc(0.5 + (sum === 0 ? share : share / sum) * 2 ** PRECISION);
    });
    starts[out] = first;
    counts[out] = count;
  }
  return { starts, counts, table, size };
}

const HALF = 1 << (PRECISION - 1);

function horizontally({ data, step, width, height }, columns) {
  const { starts, counts, table, size } = weights(width, columns);
  const out = new Uint8ClampedArray(columns.to * height * 3);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < columns.to; x++, o += 3) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let i = (y * width + starts[x]) * step;
      const end = x * size + counts[x];
      for (let k = x * size; k < end; k++, i += step) {
        red += data[i] * table[k];
        green += data[i + 1] * table[k];
        blue += data[i + 2] * table[k];
      }
      out[o] = red >> PRECISION;
      out[o + 1] = green >> PRECISION;
      out[o + 2] = blue >> PRECISION;
    }
  }
  return { data: out, step: 3, width: columns.to, height };
}

function vertically({ data, step, width, height }, rows) {
  const { starts, counts, table, size } = weights(height, rows);
  const out = new Uint8Array(width * rows.to * 3);
  const line = width * step;
  for (let y = 0, o = 0; y < rows.to; y++) {
    const end = y * size + counts[y];
    for (let x = 0; x < width; x++, o += 3) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let i = starts[y] * line + x * step;
      for (let k = y * size; k < end; k++, i += line) {
        red += data[i] * table[k];
        green += data[i + 1] * table[k];
        blue += data[i + 2] * table[k];
      }
      out[o] = Math.min(255, red >> PRECISION);
      out[o + 1] = Math.min(255, green >> PRECISION);
      out[o + 2] = Math.min(255, blue >> PRECISION);
    }
  }
  return { data: out, step: 3, width, height: rows.to };
}
