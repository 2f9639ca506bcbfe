// A column's heading sorts the front by it, and once more the other way round.
function valueOf(row, column) {
  const cell = row.cells[column];
  return Number(cell.title || cell.textContent);
}

function markSorted(head, down) {
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}

for (const button of document.querySelectorAll("table.front button.sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const down = head.getAttribute("aria-sort") !== "descending";
    markSorted(head, down);
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const rows = [...body.rows].sort((a, b) => valueOf(b, column) - valueOf(a, column) || 0);
    body.append(...(down ? rows : rows.reverse()));
  });
}

// All evaluations, a page of them at a time. What the filter has put out comes last.
const AT_ONCE = 20;
const rows = run.index.map((_, row) => row);
const COLUMNS = [
  { heading: "index", value: (row) => run.index[row] },
  { heading: "status", value: (row) => run.status[row] },
  { heading: "step", value: (row) => run.step[row] },
  ...run.metrics.map((metric) => ({
    heading: metric.heading, value: (row) => metric.values[row], text: (row) => formatMetric(metric, row),
  })),
];
const everything = document.querySelector(".everything");
let sorted = { column: COLUMNS[0], down: false };
let from = 0;

function compare(a, b) {
  const [x, y] = [sorted.column.value(a), sorted.column.value(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  return (x < y ? -1 : x > y ? 1 : 0) * (sorted.down ? -1 : 1);
}

function listed(row) {
  const index = run.index[row];
  const cells = COLUMNS.map(({ heading, value, text }) => element("td", { title: text && value(row) },
    heading === "index" ? element("a", { href: `#card-${index}` }, `${index}`) : text?.(row) ?? `${value(row) ?? "–"}`));
  const classes = [["shown", index === current], ["kept", index === kept], ["out", out.has(index)]];
  const names = classes.filter(([, is]) => is).map(([name]) => name).join(" ");
  return element("tr", { "data-index": index, class: names || null }, ...cells);
}

function list() {
  rows.sort((a, b) => out.has(run.index[a]) - out.has(run.index[b]) || compare(a, b) || a - b);
  from = Math.max(0, Math.min(from, AT_ONCE * Math.floor((rows.length - 1) / AT_ONCE)));
  const to = Math.min(from + AT_ONCE, rows.length);
  everything.querySelector("tbody").replaceChildren(...rows.slice(from, to).map(listed));
  const count = rows.length.toLocaleString("en");
  everything.querySelector("output").textContent = rows.length > AT_ONCE ? `${from + 1} to ${to} of ${count}` : "";
  const [back, on] = everything.querySelectorAll(".turn");
  [back.disabled, on.disabled] = [from === 0, to === rows.length];
  back.hidden = on.hidden = rows.length <= AT_ONCE;
}

function headings() {
  return COLUMNS.map((column) => {
    const button = element("button", { type: "button", class: "sort" }, column.heading);
    const head = element("th", {}, button);
    button.addEventListener("click", () => {
      sorted = { column, down: head.getAttribute("aria-sort") !== "descending" };
      markSorted(head, sorted.down);
      from = 0;
      list();
    });
    return head;
  });
}

everything.querySelector("thead").append(element("tr", {}, ...headings()));
for (const [i, button] of everything.querySelectorAll(".turn").entries()) {
  button.addEventListener("click", () => { from += i ? AT_ONCE : -AT_ONCE; list(); });
}
everything.hidden = false;
list();
