// A column's heading sorts the front by it, and once more the other way round.
function valueOf(row, column) {
  const cell = row.cells[column];
  return Number(cell.title || cell.textContent);
}

for (const button of document.querySelectorAll("table.front button.sort")) {
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
