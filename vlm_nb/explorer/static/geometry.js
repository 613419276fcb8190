// Where things are: pure functions, no DOM. Boxes are [x_min, y_min, x_max, y_max] in 0..1 of the upright image;
// a rect is {x, y, w, h} in CSS pixels of the stage; `view` is the stage's {w, h}, `size` the image's [w, h].

export const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];
export const MAX_ZOOM = 40;
export const MAX_LABELLED = 12;
const LABEL_CHARACTERS = 24;
const LARGEST_UPSCALE = 8;
const SHORT_BOX = 40;

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** The scale at which the whole image is seen. */
export function fitScale(size, view) {
  return Math.min(view.w / size[0], view.h / size[1], LARGEST_UPSCALE);
}

/** The rect of the image on the stage. `zoom` is {z, cx, cy}: factor and the image point at the stage's centre. */
export function placeImage(size, view, zoom) {
  const scale = fitScale(size, view) * zoom.z;
  const w = size[0] * scale;
  const h = size[1] * scale;
  return { x: alongAxis(view.w, w, zoom.cx), y: alongAxis(view.h, h, zoom.cy), w, h };
}

// An axis that fits is centred; a longer one never leaves a gap at either end.
function alongAxis(room, length, centre) {
  if (length <= room) return (room - length) / 2;
  return clamp(room / 2 - centre * length, room - length, 0);
}

/** The point [px, py] of the stage as [x, y] in 0..1 of the image, clipped. */
export function toImage(point, rect) {
  return [clamp((point[0] - rect.x) / rect.w, 0, 1), clamp((point[1] - rect.y) / rect.h, 0, 1)];
}

/** A box as a rect of the stage. */
export function toScreen(box, rect) {
  const x = rect.x + box[0] * rect.w;
  const y = rect.y + box[1] * rect.h;
  return { x, y, w: (box[2] - box[0]) * rect.w, h: (box[3] - box[1]) * rect.h };
}

/** Zoom by `factor` so that the image point under `point` stays there. */
export function zoomAt(zoom, factor, point, size, view) {
  const rect = placeImage(size, view, zoom);
  const z = clamp(zoom.z * factor, 1, MAX_ZOOM);
  if (z === 1) return { z: 1, cx: 0.5, cy: 0.5 };
  const x = (point[0] - rect.x) / rect.w;
  const y = (point[1] - rect.y) / rect.h;
  const scale = fitScale(size, view) * z;
  return settled({
    z,
    cx: x + (view.w / 2 - point[0]) / (size[0] * scale),
    cy: y + (view.h / 2 - point[1]) / (size[1] * scale),
  }, size, view);
}

/** Move the image by (dx, dy) CSS pixels. */
export function panBy(zoom, dx, dy, size, view) {
  const rect = placeImage(size, view, zoom);
  return settled({ z: zoom.z, cx: zoom.cx - dx / rect.w, cy: zoom.cy - dy / rect.h }, size, view);
}

// The centre that is really shown, so that the next pan starts from it.
function settled(zoom, size, view) {
  const rect = placeImage(size, view, zoom);
  const centre = (room, start, length) => (length <= room ? 0.5 : (room / 2 - start) / length);
  return { z: zoom.z, cx: centre(view.w, rect.x, rect.w), cy: centre(view.h, rect.y, rect.h) };
}

/** The part of the image that the stage shows, as a box; null when it shows nothing. */
export function visibleBox(rect, view) {
  const [x0, y0] = toImage([0, 0], rect);
  const [x1, y1] = toImage([view.w, view.h], rect);
  return x1 > x0 && y1 > y0 ? [x0, y0, x1, y1] : null;
}

/** The box between two points of the image, ordered and clipped. */
export function boxBetween(a, b) {
  const unit = (value) => clamp(value, 0, 1);
  return [
    unit(Math.min(a[0], b[0])), unit(Math.min(a[1], b[1])),
    unit(Math.max(a[0], b[0])), unit(Math.max(a[1], b[1])),
  ];
}

export const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);

const inside = (box, p) => p[0] >= box[0] && p[0] <= box[2] && p[1] >= box[1] && p[1] <= box[3];

/** The ids of the boxes under an image point, smallest first. */
export function boxesAt(items, point) {
  return items.filter((item) => inside(item.bbox, point)).sort((a, b) => area(a.bbox) - area(b.bbox)).map((i) => i.id);
}

/** What a click selects: the smallest box, and at the same place again the next larger one, in a circle. */
export function nextAt(ids, selected) {
  if (!ids.length) return null;
  const place = ids.indexOf(selected);
  return ids[(place + 1) % ids.length];
}

/** Move a box by (dx, dy) in 0..1 without leaving the image. */
export function moveBox(box, dx, dy) {
  const x = clamp(dx, -box[0], 1 - box[2]);
  const y = clamp(dy, -box[1], 1 - box[3]);
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

/** Move the sides named by `handle` ("n", "se", …) by (dx, dy); a side does not cross its opposite. */
export function resizeBox(box, handle, dx, dy, smallest = [0.002, 0.002]) {
  const made = [...box];
  if (handle.includes("w")) made[0] = clamp(box[0] + dx, 0, box[2] - smallest[0]);
  if (handle.includes("e")) made[2] = clamp(box[2] + dx, box[0] + smallest[0], 1);
  if (handle.includes("n")) made[1] = clamp(box[1] + dy, 0, box[3] - smallest[1]);
  if (handle.includes("s")) made[3] = clamp(box[3] + dy, box[1] + smallest[1], 1);
  return made;
}

/** The handle of a screen rect under a point: corners and sides resize, the edge between moves; null beside it. */
export function handleAt(rect, point, reach = 8) {
  const [x, y] = point;
  const near = (a, b) => Math.abs(a - b) <= reach;
  const { x: l, y: t, w, h } = rect;
  if (x < l - reach || x > l + w + reach || y < t - reach || y > t + h + reach) return null;
  const middle = (a, start, length) => near(a, start + length / 2);
  const ns = near(y, t) ? "n" : near(y, t + h) ? "s" : "";
  const we = near(x, l) ? "w" : near(x, l + w) ? "e" : "";
  if (ns && we) return ns + we;
  if (ns) return middle(x, l, w) ? ns : "move";
  if (we) return middle(y, t, h) ? we : "move";
  return null;
}

/** Colour, ink and dashes of each distinct phrase, in order of first appearance. */
export function phraseStyles(items) {
  const styles = new Map();
  for (const { phrase } of items) {
    if (styles.has(phrase)) continue;
    const order = styles.size;
    const colour = COLOURS[order % COLOURS.length];
    styles.set(phrase, { order, colour, ink: colour === "#0072B2" ? "#fff" : "#000", dashed: order >= COLOURS.length });
  }
  return styles;
}

/** Boxes with their numbers: 1, 2, … or, where two models are compared, A1, A2, … and B1, B2, … */
export function numbered(items, compared) {
  const counts = [0, 0];
  return items.map((item) => {
    const side = item.side || 0;
    counts[side] += 1;
    const letter = compared ? "AB"[side] : "";
    return { ...item, letter, number: `${letter}${counts[side]}` };
  });
}

export function shorten(text, length = LABEL_CHARACTERS) {
  const characters = [...text];
  return characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…";
}

/**
 * Labels for boxes that are already on the stage. `items` are {id, number, letter, phrase, rect}, `frame` is the rect that
 * labels stay inside, `measure(text)` gives [width, height]. Returns {id, text, x, y, w, h}, largest box first; a
 * box whose number fits nowhere has none (the list names it).
 */
export function layOutLabels(items, frame, measure) {
  const many = items.length > MAX_LABELLED;
  const counted = new Set(items.map((item) => item.phrase)).size > COLOURS.length;
  const placed = [];
  for (const item of [...items].sort((a, b) => b.rect.w * b.rect.h - a.rect.w * a.rect.h)) {
    const number = String(item.number);
    const full = [counted ? number : item.letter, shorten(item.phrase)].filter(Boolean).join(" ");
    for (const text of many ? [number] : [full, number]) {
      const [w, h] = measure(text);
      const free = candidates(item.rect, w, h)
        .map(([x, y]) => clamped(x, y, w, h, frame))
        .find((label) => label && !placed.some((other) => crosses(label, other)));
      if (!free) continue;
      placed.push({ id: item.id, text, ...free });
      break;
    }
  }
  return placed;
}

// Above-left, inside (not in a flat box), below, right.
function candidates(rect, w, h) {
  const above = [rect.x, rect.y - h];
  const within = rect.h >= SHORT_BOX && rect.w >= w ? [[rect.x, rect.y]] : [];
  return [above, ...within, [rect.x, rect.y + rect.h], [rect.x + rect.w, rect.y]];
}

// Shifted sideways into the frame; a label that would have to move up or down covers its box: not a place for it.
function clamped(x, y, w, h, frame) {
  if (w > frame.w || y < frame.y - 0.5 || y + h > frame.y + frame.h + 0.5) return null;
  return { x: clamp(x, frame.x, frame.x + frame.w - w), y, w, h };
}

function crosses(a, b) {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}
