// The only place that asks the server. Every answer that is no success becomes a `Problem`.

// What a page of this server sends with each request; a form of another site cannot.
const PAGE = { "tidings-page": "1" };

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

// Calls `listener` whenever the server says that nobody is signed in (any more).
export function whenSignedOut(listener) {
  signedOut = listener;
}

function search(query) {
  const pairs = Object.entries(query || {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return text ? `?${text}` : "";
}

// `text`: a body that is JSON already. `isText`: the answer is wanted as it was sent.
async function ask(method, path, { query, body, text = body === undefined ? undefined : JSON.stringify(body), signal, isText } = {}) {
  const headers = { accept: "application/json", ...PAGE };
  if (text !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(`/api/${path}${search(query)}`, { method, headers, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The server does not answer." });
  }
  if (response.status === 204) return null;
  if (response.ok && isText) return response.text();
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const problem = new Problem(response.status, answer);
  problem.retryAfter = Number(response.headers.get("retry-after")) || 0;
  if (response.status === 401 && path !== "session") signedOut(problem);
  throw problem;
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });
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
