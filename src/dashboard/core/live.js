// Entries of a ledger as they come, the newest first. At most `ENTRIES_MAX` are kept, however long a tab stays
// open.
import { follow } from "./api.js";

const ENTRIES_MAX = 200;

export const TYPES = ["source.failing", "source.recovered", "watch.blocked", "watch.recovered", "watch.paused",
  "watch.resumed", "letter.parked", "sink.disabled", "sink.enabled", "sink.opened", "sink.closed", "round.began",
  "round.ended", "subscription.blocked", "subscription.recovered", "subscription.skipped", "subscription.gap",
  "mail.sent", "mail.failed", "status.ended", "task.dead", "task.ended", "schedule.missed",
  "ledger.restored", "gap"];

const AGAIN_MS = 3000;

// `local.entries` and `local.stream` of a page are kept up to date; returns what ends it. However many entries come,
// the page is drawn once for each picture of the screen, and not at all while nobody sees it. A tab that nobody
// sees holds no stream: a browser opens six connections to a server, and a few tabs would take them all.
export function followLedger(local, path, query, redraw) {
  let frame = 0;
  const draw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      redraw();
    });
  };
  local.entries ??= [];
  local.stream = "opening";
  let stop = null;
  let timer = 0;
  const begin = () => {
    if (document.hidden || stop) return;
    const after = local.last ? { after: local.last } : {};
    stop = follow(path, { ...query, ...after }, TYPES, take, (now) => {
      local.stream = now;
      draw();
      // A server that refuses ends the stream for good; one that restarts does too where it answers early.
      if (now !== "closed") return;
      stop = null;
      timer = setTimeout(begin, AGAIN_MS);
    });
  };
  const take = (entry, id) => {
    local.last = id || local.last;
    if (local.entries.some((known) => known.entry_id === entry.entry_id)) return;
    local.entries = [{ ...entry, isFresh: true }, ...local.entries].slice(0, ENTRIES_MAX);
    draw();
  };
  const end = () => {
    clearTimeout(timer);
    stop?.();
    stop = null;
  };
  const seen = () => (document.hidden ? end() : begin());
  document.addEventListener("visibilitychange", seen);
  begin();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    cancelAnimationFrame(frame);
    end();
  };
}
