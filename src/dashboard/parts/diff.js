// What a change did to its file: the lines that differ. Each line says by a sign what it is, not by colour
// alone; its numbers are no part of what can be copied.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part } from "../core/api.js";
import { mayDo, ofApp } from "../core/session.js";
import { bytes, commit, plural } from "../core/format.js";
import { section } from "./table.js";
import { empty } from "./states.js";

const LINES_SHOWN = 1000;

// The content of a change never changes: it is asked for once, however often the page refreshes itself.
export async function contentOf(app, delivery, signal, state) {
  if (!mayDo("contents:read")) return { why: "Your token lacks the permission contents:read." };
  if (state.local.content?.of === delivery) return state.local.content;
  try {
    const content = await get(ofApp(app, `deliveries/${part(delivery)}/content`), {}, signal);
    state.local.content = { of: delivery, content };
  } catch (problem) {
    if (problem.name === "AbortError" || problem.isDisconnected) throw problem;
    return { why: problem.message };
  }
  return state.local.content;
}

// The hunks as lines with their numbers.
function linesOf(diff) {
  const lines = [];
  let [old, fresh] = [0, 0];
  for (const text of diff.split("\n").slice(0, -1)) {
    const head = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/.exec(text);
    if (head) {
      [old, fresh] = [Number(head[1]), Number(head[2])];
      lines.push({ kind: "hunk", text });
    } else if (text.startsWith("+")) lines.push({ kind: "added", text, fresh: fresh++ });
    else if (text.startsWith("-")) lines.push({ kind: "gone", text, old: old++ });
    else if (text.startsWith("\\")) lines.push({ kind: "note", text });
    else lines.push({ kind: "same", text, old: old++, fresh: fresh++ });
  }
  return lines;
}

const line = ({ kind, text, old, fresh }) => html`<span class="line ${kind}"><span class="at" data-at=${old ?? ""}></span><span class="at" data-at=${fresh ?? ""}></span><span class="words">${text}
</span></span>`;

const WHY = { binary: "is no text", too_large: "is larger than 128 KiB", unavailable: "is not available any more: neither the mirror nor the Git host has it" };

const sideWords = (name, side) => (side
  ? `The content ${name} ${side.left_out ? WHY[side.left_out] : "is text"}${side.size_bytes === undefined ? "" : ` (${bytes(side.size_bytes)})`}.` : nothing);

function body({ content, why }) {
  if (why) return html`<div class="card">${empty("The content is not shown", why)}</div>`;
  const { old, new: fresh, diff } = content;
  if (!old && !fresh) return html`<div class="card">${empty("No content on either side", "The app is not known to have had this file, and it is not there after the change.")}</div>`;
  if (diff === undefined) {
    const unknown = !old && fresh && !fresh.left_out ? "It is not known what the app had before." : nothing;
    return html`<div class="card">${empty("No lines to compare", html`${sideWords("before", old)} ${sideWords("after", fresh)} ${unknown}`)}</div>
      ${unknown !== nothing ? html`<pre class="text" tabindex="0" role="group" aria-label="The content after">${fresh.text}</pre>` : nothing}`;
  }
  if (diff === "") return html`<div class="card">${empty("The content is the same", "Its mode changed, or the app is to have its content now.")}</div>`;
  const lines = linesOf(diff);
  const more = lines.length - LINES_SHOWN;
  return html`<div class="card diff-card"><pre class="diff" tabindex="0" role="group" aria-label="Lines that differ">${lines.slice(0, LINES_SHOWN).map(line)}</pre></div>
    ${more > 0 ? html`<p class="muted">${plural(more, "further line is", "further lines are")} not shown here; tidings delivery diff shows all.</p>` : nothing}`;
}

function sizes({ content }) {
  if (!content) return nothing;
  const { old, new: fresh } = content;
  const side = (one) => (one ? html`<code title=${one.blob}>${commit(one.blob)}</code>${one.size_bytes === undefined ? "" : `, ${bytes(one.size_bytes)}`}` : "nothing");
  return html`<span class="muted small">${side(old)} → ${side(fresh)}</span>`;
}

export const contentSection = (shown) => section("What changed in the file", body(shown), sizes(shown));
