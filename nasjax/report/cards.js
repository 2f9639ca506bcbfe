// Pointing at a network shows its card; clicking on it keeps that card until another click, or Escape. Cards of the front are
// in the page, those of all other networks are made when they are asked for.
const deck = document.querySelector(".cards");
let kept = null;
let current = null;

function relativeToLargest(metric, value) {
  const { largest, unit, cost, direction } = metric;
  if (largest === null) return "largest: not measured in this run";
  if (value === largest) return "as the largest";
  if (cost && value > 0 && largest > 0) {
    const share = 100 * value / largest;
    return `${share >= 1 ? share.toFixed(0) : share.toPrecision(2)} % of the largest`;
  }
  const gap = Math.abs(value - largest);
  const said = gap >= 100 ? formatNumber(gap) : String(Number(gap.toPrecision(2)));
  const points = unit === "%" ? " points" : direction && unit ? ` ${unit}` : "";
  return `${value > largest ? "+" : "−"}${said}${points} against the largest`;
}

function tile(metric, row) {
  const made = element("div", {}, element("dt", {}, metric.heading), element("dd", {}, formatMetric(metric, row)));
  const value = metric.values[row];
  if (run.has_largest && value !== null) {
    made.append(element("dd", { class: "beside" }, relativeToLargest(metric, value)));
  }
  return made;
}

function choices(row) {
  const chosen = new Map();
  for (const { name, options, values } of run.genes) if (values[row] !== null) chosen.set(name, options[values[row]]);
  return chosen;
}

const isOn = (block, chosen) => !block.gate || Number(chosen.get(block.gate[0]) ?? -Infinity) >= block.gate[1];

function colouredBlock(colour, height, title, above, inside) {
  const made = element("span", { class: `block k${colour}`, style: `--size:${Math.max(0.12, height)}`, title });
  if (above) made.append(element("i", {}, above));
  if (inside && inside.length <= 3) made.append(element("b", {}, inside));
  return made;
}

function layer(block, chosen) {
  if (!isOn(block, chosen)) return element("span", { class: "block off", title: `${block.kind}, switched off` });
  const options = new Map(run.genes.map((gene) => [gene.name, gene.options]));
  const there = block.genes.filter((name) => chosen.has(name));
  const tall = block.heights.filter((name) => chosen.has(name));
  const share = (name) => Number(chosen.get(name)) / Math.max(...options.get(name).map(Number));
  const height = tall.reduce((product, name) => product * share(name), 1);
  const above = tall.length ? chosen.get(tall.at(-1)).replace(/^0\./, ".") : "";
  const option = chosen.get(block.colouring) ?? "";
  const title = [block.kind, ...there.map((name) => `${name}=${chosen.get(name)}`)].join(", ");
  return colouredBlock(run.colours[option] ?? 2, height, title, above, option);
}

function unit(blocks, name) {
  const made = element("span", { class: "unit", style: `--layers:${blocks.length}` });
  made.append(element("span", { class: "layers" }, ...blocks));
  if (name) made.append(element("span", { class: "name", title: name }, name));
  return made;
}

// As report/drawings.py draws the networks of the front.
function drawing(row) {
  const chosen = choices(row);
  const label = [...chosen].map(([name, option]) => `${name}=${option}`).join(", ");
  const made = element("div", { class: run.blocks.length ? "network" : "network strip", role: "img", "aria-label": label });
  if (!run.blocks.length) {
    for (const { name, options, values } of run.genes) {
      const position = values[row];
      const colour = options.length > 1 ? Math.round(4 * position / (options.length - 1)) : 4;
      made.append(unit([
        position === null ? element("span", { class: "block off", title: `${name} does not exist here` })
          : colouredBlock(colour, (position + 1) / options.length, `${name}=${options[position]}`, options[position], ""),
      ], name));
    }
  }
  for (const number of new Set(run.blocks.map((block) => block.unit))) {
    const blocks = run.blocks.filter((block) => block.unit === number);
    const gate = blocks.length > 1 && blocks.find((block) => block.gate)?.gate[0];
    made.append(unit(blocks.map((block) => layer(block, chosen)), gate ? `${gate}=${chosen.get(gate) ?? "–"}` : ""));
  }
  return made;
}

// The networks of the front that are no worse in any objective.
function dominating(row) {
  if (goals.length < 2 || !measured(row)) return [];
  const noWorse = ({ direction, values }, other) => (direction === "max" ? values[other] >= values[row] : values[other] <= values[row]);
  const rows = run.index.map((_, other) => other).filter((other) => run.status[other] === "front");
  return rows.filter((other) => goals.every((goal) => noWorse(goal, other)));
}

function buildCard(index) {
  const row = rowOf.get(index);
  const chosen = choices(row);
  const heading = element("h3", {}, `Network ${index}`);
  const on = run.blocks.filter((block) => isOn(block, chosen)).length;
  if (run.blocks.length) heading.append(element("small", {}, `${on} of ${run.blocks.length} blocks`));
  for (const name of run.undrawn) if (chosen.has(name)) heading.append(element("code", {}, `${name}=${chosen.get(name)}`));
  const better = dominating(row);
  const status = element("p", { class: "status" }, run.status[row]);
  if (better.length) {
    status.append(" by ", ...better.slice(0, 5).flatMap((other, i) => [
      i ? ", " : "", element("a", { href: `#card-${run.index[other]}`, "data-to": run.index[other] }, `${run.index[other]}`),
    ]), better.length > 5 ? ` and ${better.length - 5} more` : "");
  }
  const tiles = run.metrics.filter((metric) => metric.shown).map((metric) => tile(metric, row));
  const all = element("p", {}, ...[...chosen].map(([name, option]) => element("code", {}, `${name}=${option}`)));
  const card = element("article", { class: "card built", id: `card-${index}`, "data-index": index }, heading, status,
    element("dl", { class: "tiles" }, ...tiles),
    element("details", {}, element("summary", {}, "all choices"), all));
  if (run.command) {
    card.append(element("p", { class: "actions" },
      element("code", { id: `command-${index}` }, run.command + index),
      element("button", { type: "button", "data-copy": `command-${index}` }, "copy")));
  }
  card.append(drawing(row));
  if (index === kept) card.classList.add("kept");
  return card;
}

function mark(index, name) {
  for (const marked of document.querySelectorAll(`[data-index].${name}`)) marked.classList.remove(name);
  for (const marked of document.querySelectorAll(`[data-index="${index}"]`)) marked.classList.add(name);
}

function showCard(index) {
  if (!document.getElementById(`card-${index}`)) {
    deck.querySelector(".built")?.remove();
    deck.append(buildCard(index));
  }
  current = index;
  mark(index, "shown");
}

function keep(index) {
  kept = index;
  if (index !== null) showCard(index);
  mark(index, "kept");
}

function pointed(event) {
  const index = Number(event.target.closest?.("[data-index]")?.dataset.index ?? NaN);
  return deck && rowOf.has(index) ? index : null;
}

function show(event) {
  if (event.buttons && event.type === "pointerover") return;  // A rectangle is being drawn.
  const index = pointed(event);
  if (index !== null) showCard(index);
  else if (kept !== null) showCard(kept);
}

// The points of a plot in view, from left to right, for the arrow keys.
function neighbour(point, step) {
  const plot = point.closest(".scatter");
  const box = plot.querySelector(".marks").getBoundingClientRect();
  const middle = (one) => { const { x, y, width, height } = one.getBoundingClientRect(); return [x + width / 2, y + height / 2]; };
  const seen = [...plot.querySelectorAll(".point:not(.out)")].map((one) => [one, ...middle(one)])
    .filter(([one, x, y]) => one === point || (x >= box.left && x <= box.right && y >= box.top && y <= box.bottom))
    .sort((a, b) => a[1] - b[1] || a[2] - b[2]);
  return seen[seen.findIndex(([one]) => one === point) + step]?.[0];
}

document.addEventListener("pointerover", show);
document.addEventListener("focusin", show);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") keep(null);
  const focused = document.activeElement;
  const point = focused?.closest?.(".scatter") && (focused.matches(".point") ? focused : focused.querySelector?.(".point"));
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!point) return;
  if (event.key === "Enter" && focused === point) keep(Number(point.dataset.index));
  const next = step && neighbour(point, step);
  if (!step) return;
  event.preventDefault();
  if (!next) return;
  const target = next.closest("a") ?? next;
  if (target === next) {
    next.setAttribute("tabindex", "-1");
    next.setAttribute("role", "img");
    next.setAttribute("aria-label", `network ${next.dataset.index}`);
  }
  target.focus({ preventScroll: true });
});
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-to]");
  if (!link && event.target.closest?.(".card")) return;
  const index = link ? Number(link.dataset.to) : pointed(event);
  if (index === null) return;
  event.preventDefault();
  keep(index === kept ? null : index);
  document.getElementById(`card-${index}`).scrollIntoView({ block: "nearest" });
});

deck?.classList.add("live");
const linked = Number(location.hash.replace("#card-", "") || NaN);
if (deck && rowOf.has(linked)) keep(linked);
else if (deck) showCard(Number(deck.querySelector(".card").dataset.index));
