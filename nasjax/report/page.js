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
