// Keys: sections, filter, rows, help.  Never while typing, never with a modifier.
let going = 0;

export function listen(refresh) {
  const help = document.getElementById("help");
  document.getElementById("help-open")?.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave(event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || help.open) return;
    const key = event.key;
    if (Date.now() - going < 1200) {
      going = 0;
      const link = document.querySelector(`.rail a[data-key="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); link.click(); return; }
    }
    const deed = {
      g: () => { going = Date.now(); },
      "/": () => document.querySelector("[data-slash]")?.focus(),
      "?": () => help.showModal(),
      j: () => move(1),
      k: () => move(-1),
      r: () => refresh(),
      Enter: () => document.querySelector("tr[data-at]")?.querySelector("th a, td a")?.click(),
    }[key];
    if (!deed || (key === "Enter" && event.target !== document.body && event.target.id !== "main")) return;
    event.preventDefault();
    deed();
  });
}

function typing(element) {
  return element.matches?.("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]");
}

function leave(element) {
  for (const open of document.querySelectorAll("details.menu[open],details.ask[open]")) {
    if (open.contains(document.activeElement)) open.querySelector("summary").focus();
    open.open = false;
  }
  if (element.matches?.("[data-slash]")) element.blur();
}

function move(step) {
  const rows = [...document.querySelectorAll("tr[data-row]")];
  const at = rows.findIndex((row) => "at" in row.dataset);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  if (!next) return;
  rows[at]?.removeAttribute("data-at");
  next.dataset.at = "";  // An attribute that swaps leave alone, see morphIgnore.
  next.scrollIntoView({ block: "nearest" });
}
