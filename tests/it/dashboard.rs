//! The dashboard in a real browser: what a person sees, by mouse and by keyboard, on narrow and wide screens, and
//! what somebody who means harm does not get.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{
    api::{App, items},
    browser::Browser,
    inbox::Inbox,
    model::Arrival,
    patience::{SOON, eventually, on_page_or},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::{Answer, Subscriber},
};

mod effects;
mod guide;
mod hands;
mod looks;
mod making;
mod memory;
mod persons;
mod schedules;
mod sessions;
mod truths;
mod upkeep;
mod views;
mod walks;
mod workers;

/// What would show that a planted text was taken for a page.
const PLANTED: &str = "<img src=x onerror=\"window.planted=1\"><script>window.planted=1</script>";
/// A file whose name is such a text, as far as a path may be one.
const PLANTED_PATH: &str = "docs/<img src=x onerror=window.planted=1>.md";

/// The repository that both apps watch.
const REPOSITORY: &str = "acme/handbook";

/// A server with two apps: the first takes everything but pictures, the second's endpoint is away.
struct Scene {
    server: Server,
    app: App,
    watch: String,
    /// A task of the first app that failed; another one is ready.
    task: String,
    away: App,
    project: Project,
    receiver: Subscriber,
    _away: Subscriber,
    host: Host,
    _inbox: Inbox,
    work: Option<Work>,
}

/// An app of which a watch fills the queue `render`: a worker has one task and gave another one up.
struct Work {
    app: App,
    watch: String,
    /// The task that a worker has, with its token.
    claimed: Value,
}

/// Two tasks of one queue: one that its worker gave up with these words, and one that is ready.
fn failed_task(server: &Server, app: &App, words: &str) -> String {
    let ask = |path: &str, body: Value| {
        let reply = app.ask(server, "POST", path, Some(&body));
        assert!((200..300).contains(&reply.status), "{path}: {}", reply.json());
        reply.json()
    };
    let title = format!("Getting started {words}");
    let task =
        |page: u8| json!({ "command": "index", "payload": { "page": page, "title": title.trim_end() } });
    ask("/api/tasks", task(1));
    let given = ask("/api/tasks/claim", json!({ "commands": ["index"] }));
    let task_id = given["tasks"][0]["id"].as_str().expect("an id").to_owned();
    let error = format!("the index is full {words}");
    let fault = json!({ "token": given["tasks"][0]["token"], "error": error.trim_end() });
    ask(&format!("/api/tasks/{task_id}/fail"), fault);
    ask("/api/tasks", task(2));
    task_id
}

impl Scene {
    fn start() -> Self {
        Self::told(PLANTED)
    }

    /// The same, in which others say this wherever they can.
    fn told(words: &str) -> Self {
        let server = Server::start();
        let mut files: Vec<(String, String)> =
            (1..=12).map(|number| (format!("docs/page-{number}.md"), format!("page {number}"))).collect();
        files.extend((1..=3).map(|number| (format!("img/picture-{number}.png"), number.to_string())));
        if words == PLANTED {
            files.push((PLANTED_PATH.to_owned(), "planted".to_owned()));
        }
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let project = Project::with(&files);
        project.write("README.md", b"read me");
        project.commit(&format!("add the front page {words}"));
        let host = Host::start();
        host.publish(&project, REPOSITORY);
        let (receiver, broken, inbox) = (Subscriber::start(), Subscriber::start(), Inbox::start());
        let refusal = refusal(words);
        receiver.script(move |arrival| match arrival {
            Arrival::Change(change) if change.body["file"]["path"].to_string().contains("img/") => {
                Answer::Say(refusal.clone())
            }
            _ => Answer::Accept,
        });
        broken.script(|_| Answer::Refuse(503));
        let app = App::onboard_with(
            &server,
            &receiver,
            &json!({ "app_name": "search index", "description": format!("finds pages {words}") }),
        );
        let away = App::onboard_with(&server, &broken, &json!({ "app_name": "docs site" }));
        let sink = json!({ "name": "ops", "filter": "", "sink": { "url": inbox.url() } });
        let made = app.ask(&server, "POST", "/api/subscriptions", Some(&sink));
        assert_eq!(made.status, 201, "{}", made.json());
        let url = json!({ "url": host.url(REPOSITORY) });
        let watch = app.watch_with(&server, &url);
        away.watch_with(&server, &url);
        app.wait_until_held(&server, &watch, &project.head());
        let task = failed_task(&server, &app, words);
        for (name, cron) in [("nightly", "30 2 * * *"), ("weekdays", "0 9,17 * * mon-fri")] {
            let report = format!("links of all pages {words}");
            let payload = json!({ "report": report.trim_end() });
            let body = json!({ "cron": cron, "zone": "Europe/Rome", "command": "index", "payload": payload });
            let made = app.ask(&server, "PUT", &format!("/api/schedules/{name}"), Some(&body));
            assert_eq!(made.status, 200, "{}", made.json());
        }
        let scene = Self {
            server,
            app,
            watch,
            task,
            away,
            project,
            receiver,
            host,
            _away: broken,
            _inbox: inbox,
            work: None,
        };
        eventually("three letters, and a delivery that fails", SOON, || {
            let failed = scene.away.ask(&scene.server, "GET", "/api/deliveries?status=failed", None).json();
            (scene.letters().len() == 3 && !items(&failed).is_empty()).then_some(())
        });
        scene
    }

    /// The same with an app whose changes workers do.
    fn with_work(mut self, words: &str) -> Self {
        let body = json!({ "app_name": "page renderer", "email": "render@example.org" });
        let made = self.server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
        assert_eq!(made.status, 201, "{}", made.json());
        let made = made.json();
        let text = |field: &str| made[field].as_str().expect("a text").to_owned();
        let app = App { id: text("app_id"), token: text("token"), onboarded: made.clone() };
        let once = json!({ "max_attempts": 1 });
        assert_eq!(app.ask(&self.server, "PUT", "/api/queues/render", Some(&once)).status, 200);
        let hook = json!({ "name": "pushes", "provider": "github" });
        let hook = app.ask(&self.server, "POST", "/api/hooks", Some(&hook));
        assert_eq!(hook.status, 201);
        let sink = json!({ "kind": "tasks", "command": "render", "window": 8 });
        let watch = app.watch_with(&self.server, &json!({ "url": self.repository_url(), "sink": sink }));
        self.tell_of_pushes(&hook.json());
        let tasks = claim_tasks(&self.server, &app, "render", 3);
        let say = |task: &Value, verb: &str, mut body: Value| {
            body["token"] = task["token"].clone();
            let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
            let reply = app.ask(&self.server, "POST", &path, Some(&body));
            assert_eq!(reply.status, 200, "{}", reply.json());
        };
        say(&tasks[0], "complete", json!({}));
        say(&tasks[1], "fail", json!({ "error": format!("this page has no title {words}") }));
        let page = format!("3 of 12 {words}");
        say(&tasks[2], "heartbeat", json!({ "progress": { "step": "layout", "page": page.trim_end() } }));
        self.work = Some(Work { app, watch, claimed: tasks[2].clone() });
        self
    }

    /// Two pushes at a hook: to a repository that nobody watches, then to the watched one.
    fn tell_of_pushes(&self, hook: &Value) {
        let text = |field: &str| hook[field].as_str().expect("a text");
        for (repository, name) in [("acme/plans", "first"), (REPOSITORY, "second")] {
            guide::push(self, (text("path"), text("secret")), repository, name);
        }
    }

    fn letters(&self) -> Vec<Value> {
        items(&self.app.ask(&self.server, "GET", "/api/dead-letters?status=open", None).json())
    }

    /// Where the repository lies that both apps watch.
    fn repository_url(&self) -> String {
        self.host.url(REPOSITORY)
    }

    fn admin_token(&self) -> String {
        let file = self.server.data().join("admin-token");
        fs::read_to_string(file).expect("an admin token").trim().to_owned()
    }

    /// A token of the staff with a role; its id and the token.
    fn staff(&self, role: &str) -> (String, String) {
        let body = json!({ "name": role, "role": role });
        let admin = self.admin_token();
        let made =
            self.server.ask("POST", "/api/admin/tokens", Some(&admin), Some(&body)).expect("an answer");
        let made = made.json();
        let text = |field: &str| made[field].as_str().expect("a text").to_owned();
        (text("token_id"), text("token"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/dashboard/{path}", self.server.address())
    }

    /// Signs in on the page that is shown; what is shown then is there.
    fn sign_in(&self, browser: &Browser, token: &str) {
        browser.go(&self.url(""));
        sign_in(browser, token);
    }

    /// Goes to a page, and waits until all of it is there.
    fn visit(&self, browser: &Browser, path: &str) {
        browser.go(&self.url(path));
        wait_until_shown(browser, path);
    }

    /// Every page of the staff, by a name.
    fn pages(&self) -> Vec<(&'static str, String)> {
        let (app, watch) = (&self.app.id, &self.watch);
        let letter = self.letters()[0]["dead_letter_id"].as_str().expect("an id").to_owned();
        // While a try is under way the delivery may be in another state.
        let failed = eventually("a delivery that fails", SOON, || {
            let failed = self.away.ask(&self.server, "GET", "/api/deliveries?status=failed", None).json();
            items(&failed).into_iter().next()
        });
        let delivery = failed["id"].as_str().expect("an id").to_owned();
        let away = &self.away.id;
        let of_watch = |tab: &str| format!("watch?app={app}&id={watch}&tab={tab}");
        vec![
            ("overview", String::new()),
            ("apps", "apps".into()),
            ("app", format!("app?app={app}")),
            ("app-redrives", format!("app?app={app}&tab=redrives")),
            ("app-hooks", format!("app?app={app}&tab=hooks")),
            ("app-tokens", format!("app?app={app}&tab=tokens")),
            ("watches", "watches".into()),
            ("watch", of_watch("")),
            ("watch-rounds", of_watch("rounds")),
            ("watch-changes", of_watch("changes")),
            ("watch-settings", of_watch("settings")),
            ("letters", "letters".into()),
            ("letters-of-app", format!("letters?app={app}")),
            ("letter", format!("letter?app={app}&id={letter}")),
            ("deliveries", format!("deliveries?app={app}&path=docs/**")),
            ("delivery", format!("delivery?app={away}&id={delivery}")),
            ("deliveries-of-all", "deliveries".into()),
            ("start", "start".into()),
            ("start-repository", format!("start?app={app}")),
            ("start-arrivals", format!("start?app={app}&watch={watch}")),
            ("ledger", format!("ledger?app={app}")),
            ("ledger-of-all", "ledger".into()),
            ("subscription", format!("subscription?app={app}&id=ops")),
            ("queues", "queues".into()),
            ("queue", format!("queue?app={app}&command=index")),
            ("task", format!("task?app={app}&id={}", self.task)),
            ("schedules", "schedules".into()),
            ("schedule", format!("schedule?app={app}&name=nightly")),
            ("schedule-form", format!("schedule?app={app}&name=nightly&tab=change")),
            ("schedule-made", format!("schedule?app={app}&tab=make")),
            ("tree", "tree".into()),
            ("breakers", "system".into()),
            ("sources", "system?tab=sources&failing=false".into()),
            ("hooks", "system?tab=hooks".into()),
            ("replicas", "system?tab=replicas".into()),
            ("storage", "system?tab=storage".into()),
            ("settings", "system?tab=settings".into()),
            ("keys", "system?tab=keys".into()),
            ("tokens", "system?tab=tokens".into()),
            ("audit", "audit".into()),
            ("not-found", "letter?app=app_none&id=dead_none".into()),
            ("nothing-matches", "apps?q=name:nothing".into()),
        ]
        .into_iter()
        .chain(self.work.iter().flat_map(|work| work.pages(&self.server)))
        .collect()
    }
}

/// Signs in on the page that is shown.
fn sign_in(browser: &Browser, token: &str) {
    browser.write("#token", token);
    browser.click_on("Sign in");
    browser.wait_for("Sign out");
    // Who is not signed in yet is told so, which the browser notes.
    browser.complaints();
}

/// Signs out, and waits until that is done: a browser that leaves the page at once takes the request back.
fn sign_out(browser: &Browser) {
    browser.click_on("Sign out");
    browser.wait_for("With the token of an app");
}

/// Waits until all of a page is there.
fn wait_until_shown(browser: &Browser, path: &str) {
    let is_shown = "const main = document.querySelector('main[aria-busy]');
        return main?.getAttribute('aria-busy') === 'false' && document.querySelector('h1') !== null
            && !document.body.innerText.includes('Loading …')";
    let look = || (browser.run(is_shown, &[]) == true).then_some(());
    on_page_or(&format!("all of {path}"), look, || browser.shown());
}

impl Work {
    /// The pages about the tasks of a watch, by a name.
    fn pages(&self, server: &Server) -> Vec<(&'static str, String)> {
        let (app, watch) = (&self.app.id, &self.watch);
        let (task, delivery) = (&self.claimed["id"], &self.claimed["payload"]["event"]["id"]);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (task, delivery) = (text(task), text(delivery));
        let letter = text(&self.app.dead_letters(server)[0]["dead_letter_id"]);
        vec![
            ("hooks-of-app", format!("app?app={app}&tab=hooks")),
            ("watch-of-tasks", format!("watch?app={app}&id={watch}")),
            ("watch-of-tasks-settings", format!("watch?app={app}&id={watch}&tab=settings")),
            ("queue-of-watch", format!("queue?app={app}&command=render")),
            ("task-of-watch", format!("task?app={app}&id={task}&delivery={delivery}")),
            ("delivery-of-task", format!("delivery?app={app}&id={delivery}")),
            ("letters-of-tasks", format!("letters?app={app}")),
            ("letter-of-task", format!("letter?app={app}&id={letter}")),
            ("start-for-workers", format!("start?app={app}&goes=tasks")),
            ("start-arrivals-of-tasks", format!("start?app={app}&watch={watch}")),
        ]
    }
}

/// Waits until a worker was given this many tasks of a queue.
fn claim_tasks(server: &Server, app: &App, command: &str, count: usize) -> Vec<Value> {
    let mut tasks = Vec::new();
    eventually("tasks to claim", SOON, || {
        let wanted = json!({ "commands": [command], "count": count - tasks.len(), "claim_seconds": 3600 });
        let reply = app.ask(server, "POST", "/api/tasks/claim", Some(&wanted));
        if reply.status == 200 {
            tasks.extend(reply.json()["tasks"].as_array().cloned().unwrap_or_default());
        }
        (tasks.len() == count).then_some(())
    });
    tasks
}

/// How the receiver refuses: with these words in its answer, and in a header of it.
fn refusal(words: &str) -> Vec<u8> {
    let body = format!("pictures are not indexed {words}");
    format!(
        "HTTP/1.1 422 Unprocessable Content\r\nx-index: pages, read-write {words}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Writes a file of the documentation.
fn write_picture(name: &str, png: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{name}.png")), png).expect("written");
}
