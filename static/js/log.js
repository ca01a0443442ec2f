// A task's output as it is printed: the backlog, then the tail, for as long as the stream lasts.
// Orders to a terminal, such as colours, and the beginning of one at the end of a piece.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-Za-z]|[@-Z\\-_])/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?$/;
// Characters of an output that a page holds at most, and what is left when it is cut.
const MOST = 400_000, KEPT = 300_000, RETRY = 4000;

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
  const cut = box.querySelector(".log-cut");
  let current = null, held = 0, missing = 0;

  const begin = async () => {
    current?.abort();
    const mine = (current = new AbortController());
    const stream = box.querySelector("[name=stream]:checked").value;
    empty(stream);
    while (box.isConnected && !mine.signal.aborted) {
      const status = await read(stream, mine.signal).catch(() => 0);
      if (mine.signal.aborted || !box.isConnected) return;
      if (status === 200) { note.textContent = "the stream has ended"; refresh(); return; }
      if (status === 401) { note.textContent = "signed out: reload to sign in"; return; }
      note.textContent = status ? `no stream yet (${status}), trying again` : "the stream broke off, trying again";
      await new Promise((resume) => setTimeout(resume, RETRY));
      empty(stream);
    }
  };

  const read = async (stream, signal) => {
    const answer = await fetch(`${box.dataset.log}?stream=${stream}&follow=1`, { signal, cache: "no-store" });
    if (!answer.ok) return answer.status;
    note.textContent = "● streaming";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const stop = () => reader.cancel().catch(() => {});
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done || !box.isConnected) { if (!done) stop(); return 200; }
      const text = rest + value;
      rest = text.match(UNFINISHED)?.[0] ?? "";
      append(text.slice(0, text.length - rest.length).replace(ESCAPES, ""));
    }
  };

  const empty = (stream) => {
    body.replaceChildren();
    held = missing = 0;
    cut.hidden = true;
    cut.querySelector("a").href = `${box.dataset.log}?stream=${stream}`;
  };

  const append = (text) => {
    body.append(text);
    held += text.length;
    if (held > MOST) shorten();
    if (following.checked) body.scrollTop = body.scrollHeight;
  };

  // Drop the oldest, up to the end of a line where there is one, and say so.
  const shorten = () => {
    while (held > KEPT) {
      const first = body.firstChild, over = held - KEPT;
      const gone = first.length <= over ? first.length : first.data.indexOf("\n", over - 1) + 1 || over;
      if (gone === first.length) first.remove(); else first.deleteData(0, gone);
      held -= gone;
      missing += gone;
    }
    cut.hidden = false;
    cut.querySelector("span").textContent = `The first ${missing.toLocaleString("en")} characters are not shown.`;
  };

  body.addEventListener("wheel", (event) => { if (event.deltaY < 0) following.checked = false; }, { passive: true });
  body.addEventListener("scroll", () => {
    if (body.scrollTop + body.clientHeight >= body.scrollHeight - 4) following.checked = true;
  });
  wrap.addEventListener("change", () => body.classList.toggle("wrap", wrap.checked));
  box.querySelectorAll("[name=stream]").forEach((choice) => choice.addEventListener("change", begin));
  begin();
}
