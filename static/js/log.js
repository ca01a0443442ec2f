// A task's output as it is printed: its end, then what comes, over the socket of the page; the
// beginning when it is scrolled to.  Places are bytes of the log, so that nothing is lost or shown
// twice where the socket breaks.
import { tell, wire } from "./live.js";

// Orders to a terminal, such as colours, and the beginning of one at the end of a piece.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-Za-z]|[@-Z\\-_])/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?$/;
// Characters that a page holds at most while it follows, what is left when it is cut, and what it
// holds at most while somebody reads further up.
const MOST = 400_000, KEPT = 300_000, MOST_READ = 4_000_000;
// Bytes that are asked for at first, and each time that the beginning is scrolled to.
const TAIL = 64 * 1024, EARLIER = 128 * 1024;
const SMALL = 8 * 1024, HEADER = 13, RETRY = 4000, HIDDEN = 30_000, NEWLINE = 10;

const follows = new Map();
let ids = 0;

wire.addEventListener("piece", ({ detail }) => {
  const head = new DataView(detail), id = head.getUint32(0), bytes = new Uint8Array(detail, HEADER);
  if (!follows.has(id)) return;
  follows.get(id).piece(bytes, Number(head.getBigInt64(5)), head.getUint8(4) === 1);
  tell({ type: "taken", id, bytes: bytes.length });
});
wire.addEventListener("end", ({ detail }) => {
  const it = follows.get(detail.id);
  follows.delete(detail.id);
  it?.end(detail);
});
wire.addEventListener("closed", () => {
  const all = [...follows.values()];
  follows.clear();
  for (const it of all) it.broke();
});

/** Ask for a log; *it* is told of each `piece`, then of the `end` or that it `broke`.  0: no socket. */
function ask(what, it) {
  const id = ++ids;
  if (!tell({ type: "follow", id, ...what })) return 0;
  follows.set(id, it);
  return id;
}

function giveUp(id) {
  if (follows.delete(id)) tell({ type: "unfollow", id });
}

export function openLogs(refresh) {
  const begin = () => {
    for (const box of document.querySelectorAll("[data-log]:not([data-opened])")) view(box, refresh);
  };
  begin();
  document.addEventListener("muster:shown", begin);
}

function view(box, refresh) {
  box.dataset.opened = "";
  const body = box.querySelector(".log-body"), note = box.querySelector(".log-note");
  const following = box.querySelector("[data-log-follow]"), wrap = box.querySelector("[data-log-wrap]");
  const cut = box.querySelector(".log-cut"), more = box.querySelector("[data-log-earlier]");
  const left = new AbortController(), { signal } = left;
  // What is shown: text nodes, each with its bytes and the place of the first of them.
  let parts = [], held = 0, next = null, oldest = false;
  let stream, decoder, rest, current = 0, earlier = 0, hasEnded = false, isAsleep = false, sleep = 0, isCutOff = false;

  const begin = () => {
    pause();
    stream = box.querySelector("[name=stream]:checked").value;
    cut.querySelector("a").href = `${box.dataset.log}?stream=${stream}`;
    body.replaceChildren();
    parts = [];
    held = 0;
    next = null;
    oldest = hasEnded = false;
    decoder = new TextDecoder();
    rest = "";
    tellOfCut();
    goOn();
  };

  const goOn = () => {
    if (current || hasEnded || isAsleep || signal.aborted) return;
    const from = next === null ? { tail: TAIL } : { offset: next };
    current = ask({ execution: box.dataset.execution, stream, ...from }, {
      piece: append,
      end({ why, again }) {
        current = 0;
        note.textContent = why || "the stream has ended";
        if (again) { setTimeout(goOn, RETRY); return; }
        hasEnded = true;
        refresh();
      },
      broke() { current = 0; },
    });
    if (current) note.textContent = "● streaming";
  };

  const pause = () => {
    giveUp(current);
    giveUp(earlier);
    current = earlier = 0;
  };

  const append = (bytes, after, isNote) => {
    if (!box.isConnected) { leave(); return; }
    let text, from = after - bytes.length;
    if (isNote) {
      const before = rest + decoder.decode();
      rest = "";
      const tail = before || body.lastChild?.data || "\n";
      const said = new TextDecoder().decode(bytes);
      text = before + (tail.endsWith("\n") || said.startsWith("\n") ? "" : "\n") + said;
      from = after;
      bytes = new Uint8Array();
    } else {
      if (next === null) [bytes, from] = aligned(bytes, from);
      text = rest + decoder.decode(bytes, { stream: true });
      rest = text.match(UNFINISHED)?.[0] ?? "";
      text = plain(text.slice(0, text.length - rest.length));
    }
    if (after >= 0) next = after;
    const last = parts.at(-1);
    if (last && !isNote && !last.isNote && last.bytes.length + bytes.length <= SMALL) {
      last.node.appendData(text);
      last.bytes = joined([last.bytes, bytes]);
    } else if (text || bytes.length) {
      parts.push({ node: new Text(text), from, bytes, isNote });
      body.append(parts.at(-1).node);
    }
    held += text.length;
    if (held > (following.checked ? MOST : MOST_READ)) shorten();
    if (following.checked) body.scrollTop = body.scrollHeight;
    tellOfCut();
  };

  // Drop the oldest, up to the end of a line where there is one; what is read stays where it is.
  const shorten = () => {
    const before = body.scrollHeight, top = body.scrollTop;
    while (parts.length > 1 && held - parts[0].node.length >= KEPT) {
      held -= parts[0].node.length;
      parts.shift().node.remove();
    }
    const it = parts[0], end = it.bytes.indexOf(NEWLINE, Math.max(0, held - KEPT - 1));
    if (end >= 0 && end < it.bytes.length - 1) {
      it.from += end + 1;
      it.bytes = it.bytes.slice(end + 1);
      held -= it.node.length;
      it.node.data = decoded(it.bytes);
      held += it.node.length;
    }
    oldest = false;
    body.scrollTop = top - (before - body.scrollHeight);
  };

  const fetchEarlier = () => {
    const until = parts[0]?.from ?? 0;
    if (earlier || oldest || !until || held > MOST_READ) return;
    const offset = Math.max(0, until - EARLIER), found = [];
    let said = "", from = offset;
    earlier = ask({ execution: box.dataset.execution, stream, offset, until }, {
      piece(bytes, after, isNote) {
        if (!isNote) { found.push(bytes); return; }
        said += new TextDecoder().decode(bytes);
        from = after;
      },
      end() {
        earlier = 0;
        if (parts[0]?.from !== until) return;  // It was cut meanwhile.
        prepend(joined(found), Math.min(from, until), said, offset);
      },
      broke() { earlier = 0; },
    });
  };

  const prepend = (bytes, from, said, offset) => {
    const before = body.scrollHeight, top = body.scrollTop;
    oldest = from > offset;
    if (said && !oldest) { note.textContent = said.trim(); if (!bytes.length) return; }
    if (!oldest) [bytes, from] = aligned(bytes, from);
    const text = decoded(bytes);
    parts.unshift({ node: new Text(text), from, bytes, isNote: false });
    body.prepend(parts[0].node);
    held += text.length;
    if (oldest) { body.prepend(said); held += said.length; parts.unshift({ node: body.firstChild, from, bytes: new Uint8Array(), isNote: true }); }
    body.scrollTop = top + body.scrollHeight - before;
    tellOfCut();
  };

  const tellOfCut = () => {
    const missing = parts[0]?.from ?? 0;
    cut.hidden = !isCutOff && (!missing || oldest);
    more.hidden = isCutOff || held > MOST_READ;
    cut.querySelector("span").textContent = isCutOff
      ? "While the socket is down nothing new is shown here."
      : `The first ${missing.toLocaleString("en")} bytes are not shown.`;
  };

  const leave = () => { pause(); clearTimeout(sleep); left.abort(); };

  const isAtEnd = () => body.scrollTop + body.clientHeight >= body.scrollHeight - 4;
  body.addEventListener("wheel", (event) => { if (event.deltaY < 0) following.checked = false; }, { passive: true });
  body.addEventListener("scroll", () => {
    following.checked = isAtEnd();
    if (!following.checked && body.scrollTop < body.clientHeight / 4) fetchEarlier();
  });
  following.addEventListener("change", () => { if (following.checked) body.scrollTop = body.scrollHeight; });
  more.addEventListener("click", () => { following.checked = false; body.scrollTop = 0; fetchEarlier(); });
  wrap.addEventListener("change", () => body.classList.toggle("wrap", wrap.checked));
  box.querySelectorAll("[name=stream]").forEach((choice) => choice.addEventListener("change", begin));
  wire.addEventListener("open", () => { isCutOff = false; tellOfCut(); goOn(); }, { signal });
  wire.addEventListener("closed", ({ detail }) => {
    if (hasEnded) return;
    isCutOff = true;
    note.textContent = detail === 4401 ? "signed out: reload to sign in" : "the stream broke off, trying again";
    tellOfCut();
  }, { signal });
  document.addEventListener("muster:shown", () => { if (!box.isConnected) leave(); }, { signal });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(sleep);
    if (document.hidden) sleep = setTimeout(() => { isAsleep = true; pause(); }, HIDDEN);
    else { isAsleep = false; goOn(); }
  }, { signal });
  begin();
}

const plain = (text) => text.replace(ESCAPES, "");

// Whole characters and whole orders to a terminal: what is cut at the end belongs to what follows.
function decoded(bytes) {
  const text = new TextDecoder().decode(bytes, { stream: true });
  return plain(text.replace(UNFINISHED, ""));
}

// From the first line that begins in it, or at least from the first character.
function aligned(bytes, from) {
  if (from <= 0) return [bytes, Math.max(0, from)];
  let skip = bytes.indexOf(NEWLINE) + 1;
  if (!skip || skip === bytes.length) for (skip = 0; skip < 3 && (bytes[skip] & 0xc0) === 0x80;) skip++;
  return [bytes.subarray(skip), from + skip];
}

function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, it) => sum + it.length, 0));
  let at = 0;
  for (const it of pieces) { all.set(it, at); at += it.length; }
  return all;
}
