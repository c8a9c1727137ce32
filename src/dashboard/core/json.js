// JSON as it was sent. JSON.parse rounds large numbers and writes some in another form, so people are shown the
// text itself.
import { visible } from "./format.js";

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

const opens = (token) => token === "{" || token === "[";
const closes = (token) => token === "}" || token === "]";

// The members of an object, each as the text that was sent.
export function membersOf(text) {
  const members = new Map();
  let [depth, name, from] = [0, null, -1];
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (depth === 1 && from >= 0 && (token === "," || token === "}")) {
      members.set(name, text.slice(from, index).trim());
      from = -1;
    }
    if (depth === 1 && from < 0 && token.startsWith('"')) name = JSON.parse(token);
    else if (depth === 1 && from < 0 && token === ":") from = index + 1;
    if (opens(token)) depth += 1;
    else if (closes(token)) depth -= 1;
  }
  return members;
}

// The deepest member that gets a line of its own: the indents of 100,000 nested arrays would be 20 GB.
const DEEPEST = 32;

// The same JSON, a member a line: each number and text is spelled as it was, what nobody sees written out.
export function spaced(text) {
  let [out, depth, before] = ["", 0, ""];
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (closes(token)) depth -= 1;
    const isNewLine = depth <= DEEPEST && (closes(token) ? !opens(before) : opens(before) || before === ",");
    out += `${isNewLine ? line() : ""}${token === ":" ? ": " : visible(token)}`;
    if (opens(token)) depth += 1;
    before = token;
  }
  return out;
}
