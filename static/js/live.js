// Keeps the page true.  The socket only says "changed"; what changed is looked up, region by
// region, and morphed in place.  Without a socket the page polls, and it always says how it fares.
import { clock, learn, paint } from "./times.js";
import { announce, states } from "./spoken.js";

const TICK = 1000, POLL = 10_000 - TICK / 2, SOON = 2_000, DEAD = 35_000, STALE = 26_000, HIDDEN = 30_000;
const FIRST_DELAY = 500, LONGEST_DELAY = 60_000, JITTER = 0.3;

// Looked at once a tick, so half of one is allowed for.
let pill, socket, cursor = document.body.dataset.cursor;
let heard = 0, fresh = Date.now(), failures = 0, hiddenAt = 0;
let looking = null, wanted = null, gone = "";
let tag = "";  // The ETag of what is shown, wherever it was fetched: a tag names contents.

export function start(element) {
  pill = element;
  if (!cursor) return;
  connect();
  setInterval(watch, TICK);
  pill.addEventListener("click", () => { if (!open()) connect(); refresh(); });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = Date.now();
    else { hiddenAt = 0; refresh(); }
  });
  addEventListener("online", () => { failures = 0; connect(); refresh(); });
  addEventListener("pageshow", (event) => event.persisted && (connect(), refresh()));
}

/** What the socket brings for others: `open`, `closed`, `piece` and `end`. */
export const wire = new EventTarget();

/** Say *message* over the socket; false when there is none. */
export function tell(message) {
  if (socket?.readyState !== 1) return false;
  socket.send(JSON.stringify(message));
  return true;
}

const pass = (name, detail) => wire.dispatchEvent(new CustomEvent(name, { detail }));

/** Look at every region again; *at* is the cursor that the answer must be as new as. */
export function refresh(at = "") {
  if (looking) { wanted = at || wanted || ""; return looking; }
  looking = look(at).finally(() => {
    looking = null;
    if (wanted !== null) { const next = wanted; wanted = null; refresh(next); }
  });
  return looking;
}

async function look(at) {
  const names = [...document.querySelectorAll("[data-region]")].map((e) => e.dataset.region);
  const asked = location.search, url = new URL(location.pathname + asked, location.origin);
  url.searchParams.set("regions", names.join(","));
  if (at) url.searchParams.set("at", at);
  const headers = tag ? { "If-None-Match": tag } : {};
  try {
    const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(15_000) });
    if (answer.status === 401) { gone = "signed out: reload to sign in"; socket?.close(); return; }
    if (answer.status === 404) { gone = "this is no longer there"; return; }
    if (answer.status === 503) { wait = Date.now() + SOON; await show(answer); }
    if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
    gone = "";
    learn(answer);
    if (location.search !== asked) return;  // A filter overtook it: that is looked at next.
    if (answer.status !== 304) await show(answer);
    fresh = Date.now();
  } catch { gone = `stale since ${clock(fresh)}`; }  // Until a look succeeds.
  finally { say(); }
}

async function show(answer) {
  const before = states();
  const all = document.createElement("template");
  all.innerHTML = await answer.text();
  tag = "";  // Until all of it is shown.
  for (const part of all.content.querySelectorAll("template[data-for]")) {
    const target = document.getElementById(`region-${part.dataset.for}`);
    if (!target) continue;
    paint(part.content);
    await htmx.swap({ target, sourceElement: target, text: part.innerHTML, swap: "innerMorph" });
  }
  tag = answer.headers.get("ETag") ?? "";
  document.dispatchEvent(new CustomEvent("muster:shown"));
  announce(before);
}

function connect() {
  if (socket && socket.readyState < 2) return;
  const url = new URL("/ws/live/", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(url));
  mine.binaryType = "arraybuffer";
  heard = Date.now();
  mine.onmessage = (event) => {
    if (socket !== mine) return;
    heard = Date.now();
    failures = 0;
    if (typeof event.data !== "string") { pass("piece", event.data); return; }
    const news = JSON.parse(event.data);
    if (news.type === "end") { pass("end", news); return; }
    if (news.type === "hello") pass("open");
    if (news.cursor !== cursor || gone) {
      cursor = news.cursor;
      if (!(hiddenAt && Date.now() - hiddenAt > HIDDEN)) refresh(cursor);
    } else if (news.type === "hello") fresh = Math.max(fresh, Date.now());
    say();
  };
  mine.onclose = (event) => {
    if (socket !== mine) return;
    pass("closed", event.code);
    if (event.code === 4401) gone = "signed out: reload to sign in";
    if (event.code === 4403) gone = "no role: ask an admin";
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures++);
    setTimeout(connect, delay * (1 - JITTER + 2 * JITTER * Math.random()));
    say();
  };
}

function open() {
  return socket?.readyState === 1 && Date.now() - heard < DEAD;
}

function watch() {
  if (socket?.readyState === 1 && Date.now() - heard > DEAD) { socket.onclose({}); socket.onclose = null; socket.close(); socket = null; }
  const asleep = hiddenAt && Date.now() - hiddenAt > HIDDEN;
  if (!asleep && Date.now() - fresh >= POLL && !looking) {
    if (!wait || Date.now() >= wait) { wait = Date.now() + POLL; refresh(); }
  }
  say();
}
let wait = 0;

function say() {
  const age = Date.now() - fresh;
  const state = gone || age > STALE ? "stale" : open() ? "live" : "polling";
  const text = gone || { live: "live", polling: "polling 10 s", stale: `stale since ${clock(fresh)}` }[state];
  if (pill.dataset.state !== state) pill.dataset.state = state;
  const label = pill.querySelector(".pill-text");
  if (label.textContent !== text) label.textContent = text;
}
