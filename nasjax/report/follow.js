"use strict";
// Reloads the page once the server has another version of it: at the same place, with the same network selected. Where a person
// has zoomed, sorted, set bounds or opened a section, which a reload would undo, it offers a button instead.
{
  const version = document.currentScript.dataset.version;
  const line = document.querySelector(".followed span");
  const said = line.textContent;
  let changed = false;
  const CHANGES = {
    input: "*",
    click: "summary, button:not([data-copy], [data-save])",
    wheel: ".scatter",
    pointermove: ".scatter",
    keydown: ".scatter",
  };

  for (const [kind, where] of Object.entries(CHANGES)) {
    document.addEventListener(kind, (event) => {
      const moves = kind === "pointermove" && !(event.buttons & 1);
      const selects = kind === "keydown" && !"+=-0".includes(event.key);
      changed ||= !moves && !selects && Boolean(event.target.closest?.(where));
    }, { passive: true });
  }

  function load() {
    const kept = document.querySelector(".card.kept");
    if (kept) history.replaceState(null, "", `#card-${kept.dataset.index}`);
    location.reload();
  }

  function offer() {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "show newer results";
    button.addEventListener("click", load);
    line.replaceChildren(`${said} · `, button);
  }

  async function look() {
    try {
      const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
      await answer.text();  // Else the request counts as broken off.
      if (answer.headers.get("ETag") !== `"${version}"`) {
        if (changed) offer();
        else load();
        return;
      }
      if (line.textContent !== said) line.textContent = said;
    } catch {
      line.textContent = "nasjax report --watch has ended: this page is not updated";
    }
    setTimeout(look, 1000);
  }

  setTimeout(look, 1000);
}
