"use strict";
// Pointing at a network of the front shows its card; clicking on it keeps that card until another click, or Escape.
const cards = new Set([...document.querySelectorAll(".card")].map((card) => card.dataset.index));
let kept = null;

function mark(index, name) {
  for (const element of document.querySelectorAll(`[data-index].${name}`)) element.classList.remove(name);
  for (const element of document.querySelectorAll(`[data-index="${index}"]`)) element.classList.add(name);
}

function keep(index) {
  kept = index;
  mark(index, "kept");
  if (index !== null) mark(index, "shown");
}

function pointed(event) {
  const index = event.target.closest?.("[data-index]")?.dataset.index;
  return cards.has(index) ? index : null;
}

function show(event) {
  const index = pointed(event);
  if (index !== null) mark(index, "shown");
  else if (kept !== null) mark(kept, "shown");
}

document.addEventListener("pointerover", show);
document.addEventListener("focusin", show);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") keep(null); });
document.addEventListener("click", (event) => {
  const index = pointed(event);
  if (index === null || event.target.closest(".card")) return;
  event.preventDefault();
  keep(index === kept ? null : index);
  document.getElementById(`card-${index}`).scrollIntoView({ block: "nearest" });
});

document.querySelector(".cards")?.classList.add("live");
const linked = location.hash.replace("#card-", "");
if (cards.has(linked)) keep(linked);
else if (cards.size) mark(document.querySelector(".card").dataset.index, "shown");

// Commands and tables are copied or saved; a column's heading sorts by it, and once more the other way round.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

for (const button of document.querySelectorAll("[data-copy], [data-save]")) {
  button.addEventListener("click", async () => {
    const { copy: copied, save: saved } = button.dataset;
    const said = button.textContent;
    if (saved) save(saved, document.getElementById(saved).textContent);
    else await copy(document.getElementById(copied).textContent);
    button.textContent = saved ? "saved" : "copied";
    setTimeout(() => { button.textContent = said; }, 1500);
  });
}

function valueOf(row, column) {
  const cell = row.cells[column];
  return Number(cell.title || cell.textContent);
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const rows = [...body.rows].sort((a, b) => valueOf(b, column) - valueOf(a, column) || 0);
    body.append(...(down ? rows : rows.reverse()));
  });
}
