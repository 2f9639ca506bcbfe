// Bounds on the objectives fade out the networks outside them: in plots, tables and parallel coordinates.
const out = new Set();
const filter = document.querySelector(".filter");

function bound(goal) {
  const values = goal.values.filter((value, row) => value !== null && measured(row));
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const least = goal.direction === "max";
  const [loose, label] = [least ? 0 : 100, `${goal.heading} ${least ? "at least" : "at most"}`];
  const slider = element("input", { type: "range", min: 0, max: 100, value: loose, "aria-label": `${label}, as a slider` });
  const field = element("input", { type: "number", step: "any", placeholder: formatNumber(least ? low : high) });
  const within = (value) => field.value === "" || (value !== null && (least ? value >= field.value : value <= field.value));
  const clear = () => { slider.value = loose; field.value = ""; };
  slider.addEventListener("input", () => {
    const value = low + (high - low) * slider.value / 100;
    field.value = Number(slider.value) === loose ? "" : Number(value.toPrecision(4));
    apply();
  });
  field.addEventListener("input", () => {
    slider.value = field.value === "" || high === low ? loose : 100 * (field.value - low) / (high - low);
    apply();
  });
  return { goal, within, clear, shown: element("label", {}, element("span", {}, label), slider, field) };
}

const bounds = run.status.some((_, row) => measured(row)) ? goals.map(bound) : [];

function apply() {
  const left = run.index.filter((_, row) => bounds.every(({ goal, within }) => within(goal.values[row])));
  const kinds = left.map((index) => run.status[rowOf.get(index)]);
  out.clear();
  const within = new Set(left);
  for (const index of run.index) if (!within.has(index)) out.add(index);
  for (const shown of document.querySelectorAll("[data-index]:not(.card)")) {
    shown.classList.toggle("out", out.has(Number(shown.dataset.index)));
  }
  const front = kinds.filter((kind) => kind === "front").length;
  const said = `${left.length.toLocaleString("en")} of ${plural(run.index.length, "network")} left, ${front} of the front`;
  filter.querySelector("output").textContent = out.size ? said : "";
  list();
}

filter.querySelector(".bounds").append(...bounds.map(({ shown }) => shown));
filter.querySelector("button").addEventListener("click", () => {
  for (const { clear } of bounds) clear();
  apply();
});
filter.hidden = bounds.length === 0;
