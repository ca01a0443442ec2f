// What changed, said politely: at most once in ten seconds, and marked where it happened.
const PAUSE = 10_000;
let spokenAt = 0, due = 0;
const changed = new Map();

/** The state shown in every row, by the row's id. */
export function states() {
  const found = new Map();
  for (const row of document.querySelectorAll("tr[id]")) {
    const badge = row.querySelector(".badge");
    if (badge) found.set(row.id, badge.textContent);
  }
  return found;
}

/** Mark the rows whose state differs from *before*, and say how many there are. */
export function announce(before) {
  for (const [id, state] of states()) {
    if (before.get(id) === state) continue;
    document.getElementById(id).querySelector(".c-state")?.classList.add("fresh");
    changed.set(id, state);
  }
  if (changed.size && !due) due = setTimeout(speak, Math.max(0, spokenAt + PAUSE - Date.now()));
}

function speak() {
  const counts = {};
  for (const state of changed.values()) counts[state] = (counts[state] ?? 0) + 1;
  const said = Object.entries(counts).map(([state, n]) => `${n} ${state}`);
  document.getElementById("spoken").textContent = `Changed: ${said.join(", ")}`;
  changed.clear();
  spokenAt = Date.now();
  due = 0;
}
