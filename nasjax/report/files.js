// Commands and tables are copied or saved.
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

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy], [data-save]");
  if (!button) return;
  const { copy: copied, save: saved } = button.dataset;
  const said = saved ? "save" : "copy";
  if (saved) save(saved, document.getElementById(saved).textContent);
  else await copy(document.getElementById(copied).textContent);
  button.textContent = saved ? "saved" : "copied";
  setTimeout(() => { button.textContent = said; }, 1500);
});
