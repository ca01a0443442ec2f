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
  // What is shown: texts, each of a stream, with its bytes and the place of the first of them.
  let parts = [], held = 0, lanes = [];
  let isAsleep = false, sleep = 0, isCutOff = false;

  const begin = () => {
    pause();
    const chosen = box.querySelector("[name=stream]:checked").value;
    lanes = (chosen ? [chosen] : ["stdout", "stderr"]).map((stream) => ({
      stream, decoder: new TextDecoder(), rest: "", next: null, current: 0, earlier: 0, oldest: false, hasEnded: false,
    }));
    body.replaceChildren();
    parts = [];
    held = 0;
    tellOfCut();
    goOn();
  };

  const hasEnded = () => lanes.every((lane) => lane.hasEnded);

  const goOn = () => { if (!isAsleep && !signal.aborted) lanes.forEach(follow); };

  const follow = (lane) => {
    if (lane.current || lane.hasEnded) return;
    const from = lane.next === null ? { tail: TAIL } : { offset: lane.next };
    lane.current = ask({ execution: box.dataset.execution, stream: lane.stream, ...from }, {
      piece: (...piece) => append(lane, ...piece),
      end({ why, again }) {
        lane.current = 0;
        if (again) { note.textContent = why; setTimeout(goOn, RETRY); return; }
        lane.hasEnded = true;
        if (!hasEnded()) return;
        note.textContent = why || "the stream has ended";
        refresh();
      },
      broke() { lane.current = 0; },
    });
    if (lane.current) note.textContent = "● streaming";
  };

  const pause = () => {
    for (const lane of lanes) {
      giveUp(lane.current);
      giveUp(lane.earlier);
      lane.current = lane.earlier = 0;
    }
  };

  const part = (lane, text, from, bytes, isNote = false) => {
    const node = new Text(text);
    let shown = node;
    if (lanes.length > 1 && lane.stream === "stderr") {
      shown = document.createElement("span");
      shown.className = "log-err";
      shown.append(node);
    }
    held += text.length;
    return { lane, node, shown, from, bytes, isNote };
  };

  const append = (lane, bytes, after, isNote) => {
    if (!box.isConnected) { leave(); return; }
    const last = parts.at(-1), shown = last?.node.data ?? "\n";
    let text, from = after - bytes.length;
    if (isNote) {
      const before = lane.rest + lane.decoder.decode();
      lane.rest = "";
      const said = new TextDecoder().decode(bytes);
      text = before + ((before || shown).endsWith("\n") || said.startsWith("\n") ? "" : "\n") + said;
      from = after;
      bytes = new Uint8Array();
      if (last?.isNote && last.lane !== lane && last.node.data.trim() === text.trim()) text = "";  // Of both.
    } else {
      if (lane.next === null) [bytes, from] = aligned(bytes, from);
      text = lane.rest + lane.decoder.decode(bytes, { stream: true });
      lane.rest = text.match(UNFINISHED)?.[0] ?? "";
      text = plain(text.slice(0, text.length - lane.rest.length));
      if (text && last && last.lane !== lane && !shown.endsWith("\n")) text = `\n${text}`;
    }
    if (after >= 0) lane.next = after;
    if (last && last.lane === lane && !isNote && !last.isNote && last.bytes.length + bytes.length <= SMALL) {
      last.node.appendData(text);
      last.bytes = joined([last.bytes, bytes]);
      held += text.length;
    } else if (text || bytes.length) {
      parts.push(part(lane, text, from, bytes, isNote));
      body.append(parts.at(-1).shown);
    }
    if (held > (following.checked ? MOST : MOST_READ)) shorten();
    if (following.checked) body.scrollTop = body.scrollHeight;
    tellOfCut();
  };

  // Drop the oldest, up to the end of a line where there is one; what is read stays where it is.
  const shorten = () => {
    const before = body.scrollHeight, top = body.scrollTop;
    while (parts.length > 1 && held - parts[0].node.length >= KEPT) {
      const it = parts.shift();
      held -= it.node.length;
      it.lane.oldest = false;
      it.shown.remove();
    }
    const it = parts[0], end = it.bytes.indexOf(NEWLINE, Math.max(0, held - KEPT - 1));
    if (end >= 0 && end < it.bytes.length - 1) {
      it.from += end + 1;
      it.bytes = it.bytes.slice(end + 1);
      held -= it.node.length;
      it.node.data = decoded(it.bytes);
      held += it.node.length;
    }
    it.lane.oldest = false;
    body.scrollTop = top - (before - body.scrollHeight);
  };

  // The place of the first byte that is shown of a stream: what is before it is not.
  const first = (lane) => parts.find((it) => it.lane === lane)?.from ?? lane.next ?? 0;
  const lacking = () => lanes.filter((lane) => first(lane) > 0 && !lane.oldest);

  const fetchEarlier = () => {
    const lane = lacking()[0];
    if (!lane || lanes.some((it) => it.earlier) || held > MOST_READ) return;
    const until = first(lane), offset = Math.max(0, until - EARLIER), found = [];
    let said = "", from = offset;
    lane.earlier = ask({ execution: box.dataset.execution, stream: lane.stream, offset, until }, {
      piece(bytes, after, isNote) {
        if (!isNote) { found.push(bytes); return; }
        said += new TextDecoder().decode(bytes);
        from = after;
      },
      end() {
        lane.earlier = 0;
        if (first(lane) !== until) return;  // It was cut meanwhile.
        prepend(lane, joined(found), Math.min(from, until), said, offset);
      },
      broke() { lane.earlier = 0; },
    });
  };

  const prepend = (lane, bytes, from, said, offset) => {
    const before = body.scrollHeight, top = body.scrollTop;
    lane.oldest = from > offset;
    if (said && !lane.oldest) { note.textContent = said.trim(); if (!bytes.length) return; }
    if (!lane.oldest) [bytes, from] = aligned(bytes, from);
    const text = decoded(bytes), other = text && parts[0] && parts[0].lane !== lane && !text.endsWith("\n");
    parts.unshift(part(lane, other ? `${text}\n` : text, from, bytes));
    body.prepend(parts[0].shown);
    if (lane.oldest) {
      parts.unshift(part(lane, said, from, new Uint8Array(), true));
      body.prepend(parts[0].shown);
    }
    body.scrollTop = top + body.scrollHeight - before;
    tellOfCut();
  };

  const tellOfCut = () => {
    const missing = lacking().map((lane) => `${first(lane).toLocaleString("en")} bytes${lanes.length > 1 ? ` of ${lane.stream}` : ""}`);
    cut.hidden = !isCutOff && !missing.length;
    more.hidden = isCutOff || held > MOST_READ;
    cut.querySelector("span").textContent = isCutOff
      ? "While the socket is down nothing new is shown here."
      : `The first ${missing.join(" and ")} are not shown.`;
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
    if (hasEnded()) return;
    isCutOff = true;
    note.textContent = detail === 4401 ? "signed out: reload to sign in" : detail === 4429 ? "you have too many pages open, trying again" : "the stream broke off, trying again";
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
