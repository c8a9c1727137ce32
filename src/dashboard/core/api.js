// The only place that asks the server. Every answer that is no success becomes a `Problem`.

// How long an answer is waited for: a server that is silent is as far away as one that is gone.
const READ_MS = 15_000;
// Some acts wait for a Git host or a receiver; a check of the audit log reads all of it.
const ACT_MS = 120_000;

// What a page of this server sends with each request; a form of another site cannot. It names the person that the
// page shows: where another tab signed somebody else in, the server does nothing for the page any more.
let person = "1";

export function speakFor(tokenId) {
  person = tokenId ?? "1";
}

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.error || body.title || "The server did not say why.");
    this.status = status;
    this.title = body.title || "";
    this.code = String(body.type || "").split(":").pop();
    this.errors = body.errors || [];
    this.retryAfter = 0;
  }

  // No answer came: the server is away, or the network is.
  get isDisconnected() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

let signedOut = () => {};

// Calls `listener` whenever the server says that nobody is signed in any more, or somebody else.
export function whenSignedOut(listener) {
  signedOut = listener;
}

function search(query) {
  const pairs = Object.entries(query || {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return text ? `?${text}` : "";
}

// `text`: a body that is JSON already. `isText`: the answer is wanted as it was sent.
async function ask(method, path, { query, body, text = body === undefined ? undefined : JSON.stringify(body), signal, isText, isLong } = {}) {
  const headers = { accept: "application/json", "tidings-page": path === "session" ? "1" : person };
  if (text !== undefined) headers["content-type"] = "application/json";
  const isAct = method !== "GET";
  const late = AbortSignal.timeout(isAct || isLong ? ACT_MS : READ_MS);
  let [response, answer] = [null, ""];
  try {
    response = await fetch(`/api/${path}${search(query)}`, { method, headers, body: text, signal: signal ? AbortSignal.any([signal, late]) : late, cache: "no-store" });
    answer = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, { title: isAct && late.aborted ? "The server has not answered for two minutes. It may still do it: look before you do it again." : "The server does not answer." });
  }
  if (response.ok) return isText ? answer : response.status === 204 ? null : parsed(answer);
  const problem = new Problem(response.status, parsed(answer));
  problem.retryAfter = Number(response.headers.get("retry-after")) || 0;
  const isOther = response.status === 401 || problem.code === "other-person";
  if (isOther && path !== "session") signedOut(problem);
  throw problem;
}

// An answer that is no JSON comes from something between the page and the server.
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });
// A question whose answer takes long.
export const getLong = (path) => ask("GET", path, { isLong: true });
export const post = (path, body) => ask("POST", path, { body });
export const patch = (path, body) => ask("PATCH", path, { body });
// JSON as text, for values that must stay as they were written.
export const getText = (path, signal) => ask("GET", path, { signal, isText: true });
export const postText = (path, text) => ask("POST", path, { text });
export const putText = (path, text) => ask("PUT", path, { text });
export const remove = (path) => ask("DELETE", path);

// A part of a path.
export const part = encodeURIComponent;

// Follows a ledger. `onEntry` gets each entry and the id to go on from, `onState` gets "open" or "lost". Returns what ends it.
// The browser connects again by itself, from the last entry that it saw on.
export function follow(path, query, types, onEntry, onState) {
  const source = new EventSource(`/api/${path}${search(query)}`);
  const take = (event) => {
    if (event.data) onEntry(JSON.parse(event.data), event.lastEventId);
  };
  for (const type of types) source.addEventListener(type, take);
  source.addEventListener("open", () => onState("open"));
  source.addEventListener("error", () => onState(source.readyState === EventSource.CLOSED ? "closed" : "lost"));
  return () => source.close();
}
