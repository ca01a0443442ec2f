// Instants as people read them.  The exact time stays in the title; the server's clock counts.
let skew = 0;

/** Learn how far this clock is off from the Date header of an answer. */
export function learn(response) {
  const theirs = Date.parse(response.headers.get("Date") ?? "");
  if (!theirs) return;
  const off = theirs + 500 - Date.now();
  skew = Math.abs(off) > 2000 ? off : 0;
}

/** Word every <time> below *root*. */
export function paint(root) {
  for (const element of root.querySelectorAll("time[data-when],time[data-since],time[data-until]")) {
    const at = Date.parse(element.dateTime);
    if (!at) continue;
    const text = word(element.dataset, at, Date.now() + skew);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = `${new Date(at).toLocaleString()} (${element.dateTime})`;
  }
}

export function tick() {
  setInterval(() => document.hidden || paint(document), 1000);
}

export function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour12: false });
}

function word(kind, at, now) {
  if ("since" in kind) return span((now - at) / 1000);
  if ("until" in kind) return at > now ? `in ${span((at - now) / 1000)}` : "now";
  const ago = (now - at) / 1000;
  if (ago < -1) return `in ${span(-ago)}`;
  if (ago < 1) return "now";
  if (ago < 86400) return `${rough(ago)} ago`;
  return new Date(at).toLocaleDateString([], { day: "numeric", month: "short" }) + " " + clock(at).slice(0, 5);
}

function rough(s) {
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h`;
}

function span(s) {
  s = Math.max(0, Math.floor(s));
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
