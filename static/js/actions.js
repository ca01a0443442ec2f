// Forms without a reload: the answer is a sentence, and the page looks again.  They work without
// this script too.  A filter and the address say the same at any time.

export function follow(refresh) {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("form[data-act]")) { event.preventDefault(); act(form, event.submitter, refresh); }
    if (form.matches("form[data-filter]")) { event.preventDefault(); filter(form, refresh); }
  });
  document.addEventListener("change", (event) => event.target.closest("form[data-choose]")?.requestSubmit());
  let pause;
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-filter]");
    if (!form) return;
    clearTimeout(pause);
    pause = setTimeout(() => filter(form, refresh), event.target.type === "search" ? 180 : 0);
  });
  for (const form of filters()) if (differs(form)) filter(form, refresh);  // Typed before this ran.
  addEventListener("popstate", () => {
    const query = new URLSearchParams(location.search);
    for (const form of filters().filter(differs)) for (const it of form.elements) {
      const asked = query.get(it.name) ?? "";
      if (it.type === "radio") it.checked = it.value === asked;
      else it.value = asked;
    }
    refresh();
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.menu[open],details.ask[open]"))
      if (!open.contains(event.target)) open.open = false;
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.ask[open]")) event.target.querySelector("input:not([type=hidden])")?.focus();
  }, true);
}

async function act(form, button, refresh) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  try {
    const answer = await fetch(form.action, {
      method: "POST", body: new FormData(form, button), headers: { "X-Requested-With": "muster" }, redirect: "manual",
    });
    const known = answer.headers.get("Content-Type")?.includes("json");
    const left = answer.type === "opaqueredirect";  // To where one signs in.
    const said = left ? "You are signed out: sign in and try again." : known ? (await answer.json()).message : `The server answered ${answer.status}. Reload and try again.`;
    toast(said, answer.ok ? "ok" : "failed");
    if (answer.ok) { form.reset(); const sheet = form.closest("details"); if (sheet) sheet.open = false; }
  } catch {
    toast("The server cannot be reached; nothing was done.", "failed");
  } finally {
    form.ariaBusy = "false";
  }
  refresh();
}

const filters = () => [...document.querySelectorAll("form[data-filter]")];

function differs(form) {
  const query = new URLSearchParams(location.search);
  return [...new FormData(form)].some(([name, value]) => (query.get(name) ?? "") !== value);
}

function filter(form, refresh) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  refresh();
}

export function toast(text, look) {
  const box = document.createElement("p");
  box.className = `toast is-${look}`;
  box.textContent = text;
  const all = document.getElementById("toasts");
  all.append(box);
  while (all.children.length > 3) all.firstChild.remove();
  setTimeout(() => box.remove(), look === "ok" ? 6000 : 15_000);
}
