// What is sent for a change: the body, which is kept nowhere and made once more.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part } from "../core/api.js";
import { spaced } from "../core/json.js";
import { mayDo, ofApp } from "../core/session.js";
import { section } from "./table.js";
import { empty } from "./states.js";

const WHY = { too_large: "Its content has more than 256 KiB.", chunked: "A large binary file goes in several requests.",
  unavailable: "A content or tree of it is not in the mirror any more." };

// It never changes: it is asked for once, however often the page refreshes itself.
export async function requestOf(app, delivery, signal, state) {
  if (!mayDo("contents:read")) return null;
  if (state.local.request?.id === delivery) return state.local.request;
  try {
    state.local.request = { id: delivery, ...(await get(ofApp(app, `deliveries/${part(delivery)}/request`), {}, signal)) };
  } catch (problem) {
    if (problem.name === "AbortError" || problem.isDisconnected) throw problem;
    return { why: problem.message };
  }
  return state.local.request;
}

export function requestSection(request, isTask = false) {
  if (!request) return nothing;
  const title = isTask ? "The payload" : "The request";
  const { body, left_out: leftOut, why, action, format } = request;
  if (body === undefined) return section(title, html`<div class="card">${empty("The body is not shown", why ?? WHY[leftOut])}</div>`);
  const said = isTask ? "as its task has it. A payload goes with its task: this one is made once more, spaced for reading."
    : "the same body at each try. Bodies are not kept: this one is made once more, spaced for reading.";
  return section(title, html`<details class="card tries"><summary><span class="try">${isTask ? action : `/${action}`}</span><span class="muted">${format}, ${said}</span></summary>
    <pre class="text" tabindex="0" role="group" aria-label=${isTask ? "Payload of the task" : "Body of the request"}>${spaced(body)}</pre></details>`);
}
