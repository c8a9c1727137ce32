// One dead letter: why it became one, each try with the receiver's words, and what may be done.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { section } from "../parts/table.js";
import { button } from "../parts/dialog.js";
import { changeWords, code, letterBadge, moment, pairs, reasonOf, told } from "../parts/words.js";
import { tries } from "../parts/tries.js";
import { contentOf, contentSection } from "../parts/diff.js";

const pathOf = (query) => ofApp(appOf(query), `dead-letters/${part(query.id ?? "")}`);

async function load(query, signal, state) {
  const [letter, app] = await Promise.all([get(pathOf(query), {}, signal), appSeen(appOf(query), signal)]);
  const [content, watch] = await Promise.all([contentOf(appOf(query), letter.delivery_id, signal, state), watchOf(query, letter, signal)]);
  return { letter, app, content, watch };
}

// The watch of a letter; null where it was removed, or may not be seen.
async function watchOf(query, letter, signal) {
  try {
    return await get(ofApp(appOf(query), `repositories/${part(letter.repository_id)}`), {}, signal);
  } catch (problem) {
    if (![403, 404].includes(problem.status)) throw problem;
    return null;
  }
}

function view({ data, query }) {
  const { letter, app, watch } = data;
  const isTask = Boolean(letter.command);
  const staff = isStaff() ? app.app_id : undefined;
  const path = pathOf(query);
  const isOpen = letter.status === "open";
  const buttons = isOpen ? html`
    ${mayDo("dead-letters:redrive") ? button("Redrive", { tone: "first", work: () => post(`${path}/redrive`, {}), done: isTask ? "It becomes a task again, as its branch is now." : "Its redrive was asked for: it is sent as its branch is now." }) : nothing}
    ${mayDo("dead-letters:dismiss") ? button("Dismiss", { tone: "danger", work: () => post(`${path}/dismiss`, {}), done: "The dead letter is dismissed.",
      question: { title: "Dismiss this dead letter?", text: "It is closed by hand and not redriven. The app gets the path as soon as it changes.", yes: "Dismiss", isDanger: true } }) : nothing}` : nothing;
  const crumbs = html`<a href=${link("app", { app: staff })}>${app.app_name}</a> / <a href=${link("letters", { app: staff })}>Dead letters</a> /`;
  return html`${heading(letter.path || "A round", { crumbs, buttons, text: letterBadge(letter.status) })}
    <div class="sections">
      ${section("Why it is a dead letter", html`<div class="card padded">${pairs([
        ["Because", reasonOf(letter.reason, isTask)], isTask ? ["Last word", letter.excerpt || "none"] : ["Last answer", letter.http_status ?? "none"], ["Change", changeWords(letter.operation)],
        ["Since", moment(letter.created_at)], ["Dead letter", code(letter.dead_letter_id)],
        ["Delivery", html`<a href=${link("delivery", { app: staff, id: letter.delivery_id })}>${code(letter.delivery_id)}</a>`],
        ["Watch", html`<a href=${link("watch", { app: staff, id: letter.repository_id })}>${watch ? told(watch.repository) : code(letter.repository_id)}</a>`],
        isTask && ["Queue", html`<a href=${link("queue", { app: staff, command: letter.command })}>${letter.command}</a>`],
        letter.redrive_id && ["Redrive", code(letter.redrive_id)]])}</div>`)}
      ${contentSection(data.content)}
      ${isTask ? nothing : section("Tries", tries(letter.attempts, "What a receiver answered is kept for some time only."))}
    </div>`;
}

export default { title: (data) => data.letter.path || "A round", load, view };
