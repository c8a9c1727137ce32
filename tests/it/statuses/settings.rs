//! Statuses are switched on and off, shown, and refused where no host can be told.

use super::*;

#[test]
fn a_repository_that_no_host_can_be_told_of_is_refused_with_what_helps() {
    let (mut server, subscriber) = (prepared(), Subscriber::start());
    server.run();
    let forge = Forge::start(StatusHost::Gitea);
    let project = Project::with(&[("a", "1")]);
    forge.publish(&project);
    let app = App::onboard(&server, &subscriber);
    for (body, part) in [
        (json!({ "url": project.url(), "status": "github" }), "has no host that shows statuses"),
        (json!({ "url": forge.url(), "status": "gitea" }), "needs a credential"),
        (json!({ "url": forge.url(), "token": TOKEN, "status": "auto" }), "give github, gitlab or gitea"),
        (json!({ "url": forge.url(), "token": TOKEN, "status": "svn" }), "must be one of: off, auto, github"),
    ] {
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
        assert_eq!(reply.status, 422, "{body}");
        let problem = reply.json();
        assert_eq!(problem["errors"][0]["pointer"], "/status", "{problem}");
        assert!(problem["errors"][0]["detail"].as_str().is_some_and(|text| text.contains(part)), "{problem}");
    }
    let plain = app.watch_with(&server, &json!({ "url": forge.url() }));
    let path = format!("/api/repositories/{plain}");
    let reply = app.ask(&server, "PATCH", &path, Some(&json!({ "status": "gitea" })));
    assert_eq!(reply.status, 422, "{}", reply.json());
    app.wait_until_held(&server, &plain, &project.head());
    assert!(app.repository(&server, &plain).get("status").is_none(), "off is not shown");
    assert!(forge.told().is_empty());
}

#[test]
fn what_is_switched_on_later_shows_at_once_where_it_stands_and_off_takes_back_what_is_pending() {
    let scene = Scene::start(StatusHost::Gitea);
    let first = scene.project.head();
    scene.forge.wait_for(&first, "success");
    let off = scene.app.patch(&scene.server, &scene.watch, &json!({ "status": "off" }));
    assert!(off.get("status").is_none(), "{off}");
    let second = scene.push(2);
    scene.wait_until_held(&second);
    assert!(scene.forge.words(&second).is_empty(), "nothing is told while it is off");

    let on = scene.app.patch(&scene.server, &scene.watch, &json!({ "status": "gitea" }));
    assert_eq!(on["status"], json!({ "host": "gitea", "context": "tidings/docs/two" }));
    assert_eq!(scene.forge.wait_for(&second, "success"), "docs: 2 of 2 delivered");

    let gate = scene.subscriber.hold_after(0);
    let third = scene.push(3);
    scene.forge.wait_for(&third, "pending");
    scene.app.patch(&scene.server, &scene.watch, &json!({ "status": "off" }));
    assert_eq!(scene.forge.wait_for(&third, "error"), "statuses were switched off");
    gate.open();
    scene.wait_until_held(&third);
    scene.end();
}

#[test]
fn the_end_of_a_commit_of_which_the_host_never_heard_is_neither_told_nor_listed() {
    let scene = Scene::start(StatusHost::Github);
    let first = scene.project.head();
    scene.forge.wait_for(&first, "success");
    scene.forge.script(|_| Verdict::Refuse(429, "retry-after: 300\r\n", "{}"));
    let gate = scene.subscriber.hold_after(0);
    let head = scene.push(2);
    let path = format!("/api/repositories/{}/statuses", scene.watch);
    let listed = || items(&scene.app.ask(&scene.server, "GET", &path, None).json());
    eventually("a try", SOON, || {
        let is_tried = |status: &Value| status["commit"] == head.as_str() && status["tries"] == 1;
        listed().iter().any(is_tried).then_some(())
    });
    scene.app.patch(&scene.server, &scene.watch, &json!({ "status": "off" }));
    let commits: Vec<Value> = listed().iter().map(|status| status["commit"].clone()).collect();
    assert_eq!(commits, [json!(first)]);
    scene.forge.take_all();
    gate.open();
    scene.wait_until_held(&head);
    assert!(scene.forge.words(&head).is_empty());
    scene.end();
}

#[test]
fn watches_of_one_repository_have_names_of_their_own() {
    let scene = Scene::start(StatusHost::Github);
    let head = scene.project.head();
    scene.project.git(["branch", "next"]);
    scene.forge.publish(&scene.project);
    let body = |more: Value| {
        let mut body = json!({ "url": scene.forge.url(), "token": TOKEN, "status": "github" });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        body
    };
    let named = scene.app.watch_with(&scene.server, &body(json!({ "watch_name": "site" })));
    let other = scene.app.watch_with(&scene.server, &body(json!({ "branch": "next" })));
    let name = |id: &str| scene.app.repository(&scene.server, id)["status"]["context"].clone();
    assert_eq!(name(&scene.watch), "tidings/docs/two");
    assert_eq!(name(&named), "tidings/docs/site");
    let end = other[other.len() - 8..].to_ascii_lowercase();
    assert_eq!(name(&other), format!("tidings/docs/two-{end}"));
    eventually("three successes of one commit", SOON, || {
        let told = scene.forge.told();
        let done = told.iter().filter(|told| told.commit == head && told.state == "success");
        let names: std::collections::BTreeSet<_> = done.map(|told| told.context.clone()).collect();
        (names.len() == 3).then_some(())
    });
    scene.forge.assert_straight();
}

#[test]
fn the_command_line_switches_statuses_and_shows_them() {
    let scene = Scene::start(StatusHost::Gitea);
    scene.forge.wait_for(&scene.project.head(), "success");
    // That the host took a word is written down after it did.
    let path = format!("/api/repositories/{}/statuses", scene.watch);
    eventually("a word that is written down", SOON, || {
        let listed = items(&scene.app.ask(&scene.server, "GET", &path, None).json());
        (listed.first()?["told"] == "success").then_some(())
    });
    let run = |arguments: &[&str]| {
        let server = format!("http://{}", scene.server.address());
        let mut command = scene.server.command(arguments);
        command.args(["--server", &server]).env("TIDINGS_TOKEN", &scene.app.token);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = run(&["repository", "show", &scene.watch]);
    assert!(shown.contains("status.host") && shown.contains("tidings/docs/two"), "{shown}");
    let head = scene.project.head();
    assert!(shown.contains(&head) && shown.contains("docs: 2 of 2 delivered"), "{shown}");
    let listed = run(&["repository", "statuses", &scene.watch, "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let status = &listed[0];
    assert_eq!((&status["commit"], &status["context"]), (&json!(head), &json!("tidings/docs/two")));
    assert_eq!((&status["wanted"], &status["told"]), (&json!("success"), &json!("success")), "{status}");
    let shown = run(&["repository", "update", &scene.watch, "--status=off"]);
    assert!(!shown.contains("status.host"), "{shown}");
    let shown = run(&["repository", "update", &scene.watch, "--status=gitea"]);
    assert!(shown.contains("status.context"), "{shown}");
}

#[test]
fn the_statuses_of_a_watch_are_a_list_of_its_own_app_with_what_was_told_and_why_it_ended() {
    let scene = Scene::start(StatusHost::Github);
    let mut heads = vec![scene.project.head()];
    scene.forge.wait_for(&heads[0], "success");
    for files in 1..=3 {
        heads.push(scene.push(files));
        scene.forge.wait_for(heads.last().expect("a head"), "success");
    }
    scene.forge.script(|_| Verdict::Refuse(403, "", "{}"));
    heads.push(scene.push(4));
    eventually("its end", SOON, || scene.entries().pop());
    scene.wait_until_held(&heads[4]);
    let path = format!("/api/repositories/{}/statuses", scene.watch);
    let page = |query: &str| {
        let reply = scene.app.ask(&scene.server, "GET", &format!("{path}{query}"), None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    };
    // That the host took a word is written down after it did.
    let all = eventually("words that are written down", SOON, || {
        let all = items(&page(""));
        all.iter().skip(1).all(|status| status["told"] == "success").then_some(all)
    });
    assert_eq!(all.len(), heads.len(), "{all:?}");
    assert_eq!(all[0]["commit"], json!(heads[4]), "what changed last comes first");
    assert!(all[0]["ended"].as_str().is_some_and(|reason| reason.contains("403")), "{}", all[0]);
    assert_eq!(all[0]["told"], Value::Null);
    for status in &all[1..] {
        assert_eq!((&status["wanted"], &status["told"]), (&json!("success"), &json!("success")));
        assert!(status.get("ended").is_none() && status.get("next_attempt_at").is_none(), "{status}");
    }
    let (mut walked, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = page(&query);
        walked.extend(items(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(walked, all, "page by page it is the same list");

    let stranger = Subscriber::start();
    let other = App::onboard(&scene.server, &stranger);
    assert_eq!(other.ask(&scene.server, "GET", &path, None).status, 404);
    scene.forge.take_all();
}
