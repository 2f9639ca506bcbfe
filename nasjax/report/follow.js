"use strict";
// Loads the page anew once the server has another version of it: at the same place, with the same network selected.
{
  const version = document.currentScript.dataset.version;
  const line = document.querySelector(".followed span");
  const said = line.textContent;

  async function look() {
    try {
      const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
      await answer.text();  // Else the request counts as broken off.
      if (answer.headers.get("ETag") !== `"${version}"`) {
        const kept = document.querySelector(".card.kept");
        if (kept) history.replaceState(null, "", `#card-${kept.dataset.index}`);
        location.reload();
        return;
      }
      if (line.textContent !== said) line.textContent = said;
    } catch {
      line.textContent = "nasjax report --watch has ended: this page is not renewed";
    }
    setTimeout(look, 1000);
  }

  setTimeout(look, 1000);
}
