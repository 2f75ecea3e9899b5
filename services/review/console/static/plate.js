// One plate: a picture drawn in a frame of reference that both faces share.
//
// The frame is centred on the face. One unit fills the smaller side of the pane at zoom 1. Where both eyes are known and
// alignment is on, the eyes lie level at EYE_DISTANCE from each other, so that the same feature of two pictures falls
// on the same place; else the whole picture fills the pane.

export const EYE_DISTANCE = 0.28;
const EYE_LINE = -0.08;

export class Picture {
  constructor(image, landmarks) {
    this.image = image;
    // name -> {x, y} in the picture's own pixels
    this.landmarks = landmarks;
    this.measures = [];
  }

  get width() { return this.image.naturalWidth || 1; }

  get height() { return this.image.naturalHeight || 1; }

  hasEyes() { return Boolean(this.landmarks["right eye"] && this.landmarks["left eye"]); }

  // [a, b, c, d, e, f] that takes the picture's pixels into the frame
  base(aligned) {
    if (aligned && this.hasEyes()) {
      const right = this.landmarks["right eye"];
      const left = this.landmarks["left eye"];
      // the subject's right eye is on the left of an unmirrored picture
      const dx = left.x - right.x;
      const dy = left.y - right.y;
      const distance = Math.hypot(dx, dy) || 1;
      const cos = (dx / distance) * (EYE_DISTANCE / distance);
      const sin = (dy / distance) * (EYE_DISTANCE / distance);
      const mx = (left.x + right.x) / 2;
      const my = (left.y + right.y) / 2;
      return [cos, -sin, sin, cos, -(cos * mx + sin * my), sin * mx - cos * my + EYE_LINE];
    }
    const scale = 1 / Math.max(this.width, this.height);
    return [scale, 0, 0, scale, (-this.width * scale) / 2, (-this.height * scale) / 2];
  }

  eyeDistance() {
    if (!this.hasEyes()) return null;
    const { "right eye": r, "left eye": l } = this.landmarks;
    return Math.hypot(l.x - r.x, l.y - r.y);
  }
}

export function apply(m, p) {
  return { x: m[0] * p.x + m[2] * p.y + m[4], y: m[1] * p.x + m[3] * p.y + m[5] };
}

export function invert(m) {
  const det = m[0] * m[3] - m[1] * m[2] || 1e-12;
  const [a, b, c, d] = [m[3] / det, -m[1] / det, -m[2] / det, m[0] / det];
  return [a, b, c, d, -(a * m[4] + c * m[5]), -(b * m[4] + d * m[5])];
}

export function multiply(m, n) {
  return [
    m[0] * n[0] + m[2] * n[1], m[1] * n[0] + m[3] * n[1],
    m[0] * n[2] + m[2] * n[3], m[1] * n[2] + m[3] * n[3],
    m[0] * n[4] + m[2] * n[5] + m[4], m[1] * n[4] + m[3] * n[5] + m[5],
  ];
}

// What a pane looks at, in the frame.
export class View {
  constructor() { this.reset(); }

  reset() { this.zoom = 1; this.x = 0; this.y = 0; }

  copy(other) { this.zoom = other.zoom; this.x = other.x; this.y = other.y; }

  // the frame into the pane's CSS pixels
  matrix(pane) {
    const unit = Math.min(pane.clientWidth, pane.clientHeight) * this.zoom;
    return [unit, 0, 0, unit, pane.clientWidth / 2 - this.x * unit, pane.clientHeight / 2 - this.y * unit];
  }

  pan(pane, dx, dy) {
    const unit = Math.min(pane.clientWidth, pane.clientHeight) * this.zoom;
    this.x = clamp(this.x - dx / unit, -1.5, 1.5);
    this.y = clamp(this.y - dy / unit, -1.5, 1.5);
  }

  zoomAt(pane, factor, px, py) {
    const before = apply(invert(this.matrix(pane)), { x: px, y: py });
    this.zoom = clamp(this.zoom * factor, 0.4, 24);
    const after = apply(invert(this.matrix(pane)), { x: px, y: py });
    this.x += before.x - after.x;
    this.y += before.y - after.y;
  }
}

export function clamp(value, low, high) { return Math.min(high, Math.max(low, value)); }

// Draw layers ({picture, opacity, from, to}) as the view has them; `from` and `to` are parts of the pane's width.
export function draw(canvas, view, layers, aligned, cursor) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const onPane = view.matrix(canvas);
  for (const layer of layers) {
    if (!layer.picture.image.naturalWidth) continue; // not here yet, or no picture is kept
    const matrix = multiply(onPane, layer.picture.base(aligned));
    context.save();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.beginPath();
    context.rect(canvas.clientWidth * layer.from, 0, canvas.clientWidth * (layer.to - layer.from), canvas.clientHeight);
    context.clip();
    context.globalAlpha = layer.opacity;
    context.setTransform(...multiply([ratio, 0, 0, ratio, 0, 0], matrix));
    context.drawImage(layer.picture.image, 0, 0);
    context.restore();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (layer.opacity > 0) marks(context, matrix, layer.picture);
  }
  for (const layer of layers.slice(1)) {
    if (layer.from > 0) line(context, { x: canvas.clientWidth * layer.from, y: 0 }, { x: canvas.clientWidth * layer.from, y: canvas.clientHeight });
  }
  if (cursor) crosshair(context, apply(onPane, cursor));
}

function marks(context, matrix, picture) {
  context.font = "600 12px system-ui, sans-serif";
  for (const [name, point] of Object.entries(picture.landmarks)) {
    if (!point.shown) continue;
    const at = apply(matrix, point);
    crosshair(context, at, 6);
    text(context, name, at.x + 8, at.y - 6);
  }
  picture.measures.forEach((measure, index) => {
    const from = apply(matrix, measure.from);
    const to = measure.to ? apply(matrix, measure.to) : from;
    line(context, from, to);
    crosshair(context, from, 5);
    if (measure.to) crosshair(context, to, 5);
    text(context, String(index + 1), (from.x + to.x) / 2 + 6, (from.y + to.y) / 2 - 6);
  });
}

function line(context, from, to) {
  for (const [colour, width] of [["rgb(0 0 0 / 65%)", 3.5], ["#ffb347", 1.6]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }
}

function crosshair(context, at, arm = 11) {
  line(context, { x: at.x - arm, y: at.y }, { x: at.x + arm, y: at.y });
  line(context, { x: at.x, y: at.y - arm }, { x: at.x, y: at.y + arm });
}

function text(context, words, x, y) {
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 75%)";
  context.strokeText(words, x, y);
  context.fillStyle = "#ffd9a3";
  context.fillText(words, x, y);
}
