// Zoom in the scatter plots: by the wheel, a rectangle drawn with the mouse, buttons and keys. All is drawn from the values.
const CLOSEST = 1e-4;  // The smallest part of the first view that can be looked at.
const ACROSS = 4;  // Pixels that a mouse moves before it draws a rectangle.

const plots = [...document.querySelectorAll(".scatter")].map((svg) => {
  const marks = svg.querySelector(".marks");
  const metric = (name) => run.metrics.find((one) => one.name === name);
  const first = JSON.parse(svg.dataset.view);
  const all = JSON.parse(svg.dataset.all);
  const limit = all.map((value, i) => (i % 2 ? Math.max(value, first[i]) : Math.min(value, first[i])));
  const [left, top, width, height] = marks.getAttribute("viewBox").split(" ").map(Number);
  const found = [...marks.querySelectorAll(".point, .bars")];
  return {
    svg, first, limit, left, top, width, height, view: first, x: metric(svg.dataset.x), y: metric(svg.dataset.y),
    marks: found.map((mark) => [mark, rowOf.get(Number(mark.dataset.index))]), corners: JSON.parse(svg.dataset.corners),
  };
});

const place = ({ x, y }, row) => [x ? x.values[row] : row + 1, y.values[row]];
const inView = ({ view: [x0, x1, y0, y1] }, [x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1;

// Round values within a range with their labels, as report/plots.py has them.
function ticks(low, high, whole) {
  const rough = (high - low) / 6;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const nice = magnitude * [1, 2, 5, 10].find((one) => one * magnitude >= rough * 0.999);
  const step = whole ? Math.max(nice, 1) : nice;
  const values = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step); i += 1) values.push(i * step);
  const largest = Math.max(0, ...values.map(Math.abs));
  const [scale, suffix] = scaleAndSuffix(largest);
  const digits = Math.max(0, -Math.floor(Math.log10(step / scale) + 1e-9));
  const label = (value) => (digits > 6 || largest >= 1e18 ? value.toPrecision(4) : (value / scale).toFixed(digits) + suffix);
  return values.map((value) => [value, value ? label(value) : "0"]);
}

function axes({ left, top, width, height, view: [x0, x1, y0, y1], x }, xOf, yOf) {
  const bottom = top + height;
  const upright = ticks(x0, x1, !x).map(([value, label]) => [xOf(value).toFixed(1), label]).map(([at, label]) =>
    `<path class="grid" d="M${at} ${top}V${bottom}"/><text x="${at}" y="${bottom + 17}" text-anchor="middle">${label}</text>`);
  const level = ticks(y0, y1, false).map(([value, label]) => [yOf(value), label]).map(([at, label]) =>
    `<path class="grid" d="M${left} ${at.toFixed(1)}H${left + width}"/>`
    + `<text x="${left - 7}" y="${(at + 4).toFixed(1)}" text-anchor="end">${label}</text>`);
  return [...upright, ...level].join("");
}

function draw(plot) {
  const { svg, left, top, width, height, view: [x0, x1, y0, y1], x: across, y: up } = plot;
  const xOf = (value) => left + width * (value - x0) / (x1 - x0);
  const yOf = (value) => top + height * (y1 - value) / (y1 - y0);
  for (const [mark, row] of plot.marks) {
    const [x, y] = place(plot, row);
    if (mark.matches(".point")) {
      mark.setAttribute("cx", xOf(x).toFixed(1));
      mark.setAttribute("cy", yOf(y).toFixed(1));
    } else {
      const [dx, dy] = [across?.errors?.[row] ?? 0, up.errors?.[row] ?? 0];
      mark.setAttribute("d", `M${xOf(x - dx)} ${yOf(y)}H${xOf(x + dx)}M${xOf(x)} ${yOf(y - dy)}V${yOf(y + dy)}`);
    }
  }
  const stairs = plot.corners.map(([x, y]) => `${xOf(x).toFixed(1)} ${yOf(y).toFixed(1)}`).join("L");
  svg.querySelector(".stairs")?.setAttribute("d", `M${stairs}`);
  svg.querySelector(".axes").innerHTML = axes(plot, xOf, yOf);
  tellOutside();
}

function tellOutside() {
  const rows = run.index.map((_, row) => row).filter((row) => measured(row));
  const outside = rows.filter((row) => plots.some((plot) => !inView(plot, place(plot, row)))).length;
  document.querySelector(".zoom output").textContent = outside ? `${plural(outside, "network")} outside the view` : "";
}

// A view within the limits; what would go beyond is moved, and never larger than they are.
function look(plot, wanted) {
  const view = [];
  for (const i of [0, 2]) {
    const [low, high] = plot.limit.slice(i, i + 2);
    const least = CLOSEST * (plot.first[i + 1] - plot.first[i]);
    const [from, to] = wanted.slice(i, i + 2);
    const span = Math.min(Math.max(to - from, least), high - low);
    const start = Math.min(Math.max((from + to - span) / 2, low), high - span);
    view.push(...(from >= low && to <= high && to - from >= least ? [from, to] : [start, start + span]));
  }
  const changed = view.some((value, i) => value !== plot.view[i]);
  plot.view = view;
  if (changed) draw(plot);
  return changed;
}

// A factor below 1 looks closer; the point at these shares of the width and the height stays where it is.
function zoom(plot, factor, [right, down] = [0.5, 0.5]) {
  const [x0, x1, y0, y1] = plot.view;
  const [x, y] = [x0 + right * (x1 - x0), y1 - down * (y1 - y0)];
  return look(plot, [x + factor * (x0 - x), x + factor * (x1 - x), y + factor * (y0 - y), y + factor * (y1 - y)]);
}

// Where the mouse is, in shares of the width and the height of the axes.
function shares(plot, event) {
  const box = plot.svg.querySelector(".marks").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

const plotOf = (target) => plots.find(({ svg }) => svg.contains(target)) ?? null;
const within = (share) => share >= 0 && share <= 1;
const ZOOMS = {
  in: (plot) => zoom(plot, 0.6),
  out: (plot) => zoom(plot, 1 / 0.6),
  front: (plot) => look(plot, plot.first),
  all: (plot) => look(plot, plot.limit),
};
const KEYS = { "+": "in", "=": "in", "-": "out", 0: "front" };
const toolbar = document.querySelector(".zoom");
let over = null;
let drawn = null;
let scrolled = { time: -Infinity, plot: null };

if (plots.some((plot) => plot.marks.length)) {
  toolbar.hidden = false;
  tellOutside();
}
for (const button of toolbar.querySelectorAll("button")) {
  button.addEventListener("click", () => plots.forEach(ZOOMS[button.dataset.zoom]));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input") || !KEYS[event.key]) return;
  const one = over ?? plotOf(document.activeElement);
  (one ? [one] : plots).forEach(ZOOMS[KEYS[event.key]]);
});
document.addEventListener("wheel", (event) => {
  const plot = plotOf(event.target);
  // A page that is being scrolled keeps scrolling when a plot comes under the mouse.
  if (event.timeStamp - scrolled.time > 300) scrolled.plot = plot;
  scrolled.time = event.timeStamp;
  if (!plot || plot !== scrolled.plot || !event.deltaY) return;
  if (zoom(plot, event.deltaY < 0 ? 0.8 : 1.25, shares(plot, event))) event.preventDefault();
}, { passive: false });

for (const plot of plots) {
  const { svg, left, top, width, height } = plot;
  const at = ([right, down]) => [left + width * Math.min(Math.max(right, 0), 1), top + height * Math.min(Math.max(down, 0), 1)];
  svg.addEventListener("pointerenter", () => { over = plot; });
  svg.addEventListener("pointerleave", () => { over = null; });
  svg.addEventListener("dragstart", (event) => event.preventDefault());
  svg.addEventListener("dblclick", (event) => { if (!event.target.closest("[data-index]")) ZOOMS.front(plot); });
  svg.addEventListener("pointerdown", (event) => {
    const start = shares(plot, event);
    if (event.button === 0 && event.pointerType !== "touch" && start.every(within)) drawn = { start, event, box: null };
  });
  svg.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) drawn = null;  // Let go of elsewhere.
    if (!drawn) return;
    const moved = Math.hypot(event.clientX - drawn.event.clientX, event.clientY - drawn.event.clientY);
    if (!drawn.box && moved > ACROSS) {
      drawn.box = svg.appendChild(document.createElementNS(svg.namespaceURI, "rect"));
      drawn.box.setAttribute("class", "drawn-box");
      svg.setPointerCapture(event.pointerId);  // The click that follows is the plot's, no network's.
    }
    if (!drawn.box) return;
    const [[ax, ay], [bx, by]] = [at(drawn.start), at(shares(plot, event))];
    const sizes = { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(bx - ax), height: Math.abs(by - ay) };
    for (const [name, value] of Object.entries(sizes)) drawn.box.setAttribute(name, value);
  });
  svg.addEventListener("pointerup", () => {
    if (drawn?.box) {
      const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(drawn.box.getAttribute(name)));
      const [x0, x1, y0, y1] = plot.view;
      const xAt = (pixel) => x0 + (x1 - x0) * (pixel - left) / width;
      const yAt = (pixel) => y1 - (y1 - y0) * (pixel - top) / height;
      if (w > 2 && h > 2) look(plot, [xAt(x), xAt(x + w), yAt(y + h), yAt(y)]);
    }
    drawn?.box?.remove();
    drawn = null;
  });
  svg.addEventListener("pointercancel", () => { drawn?.box?.remove(); drawn = null; });
}
