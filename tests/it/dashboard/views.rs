//! A page is what its address says, and texts of others are texts.

use serde_json::json;

use super::{PLANTED, REPOSITORY, Scene};
use crate::support::{
    api::App,
    browser::Browser,
    patience::{SOON, eventually},
};

#[test]
fn a_reload_and_a_shared_link_lead_to_the_same_view() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "letters");
    browser.write("#q", "path:img/*-2.png");
    browser.click_on("Apply");
    browser.wait_for("img/picture-2.png");
    let is_filtered =
        || browser.text().contains("picture-2.png") && !browser.text().contains("picture-1.png");
    eventually("filter", SOON, || is_filtered().then_some(()));
    let shared = browser.url();
    assert!(shared.contains("q=path"), "{shared}");
    browser.reload();
    browser.wait_for("img/picture-2.png");
    assert!(is_filtered(), "{}", browser.text());
    scene.visit(&browser, "");
    browser.go(&shared);
    browser.wait_for("img/picture-2.png");
    assert!(is_filtered(), "{}", browser.text());
    let field = browser.run("return document.querySelector('#q').value", &[]);
    assert_eq!(field, "path:img/*-2.png", "the field shows the filter in force");
    browser.run("history.back()", &[]);
    browser.wait_for("Behind for longest");
}

/// A branch whose name is such a text, as far as Git lets it be one.
const PLANTED_BRANCH: &str = "<img/src=x/onerror=window.planted=1>";

/// Names an app, tokens and a watched branch so, and returns further pages that show such texts.
fn plant_names(scene: &Scene) -> Vec<(&'static str, String)> {
    let app = App::onboard_with(&scene.server, &scene.receiver, &json!({ "app_name": PLANTED }));
    let admin = scene.admin_token();
    let token = json!({ "name": PLANTED, "role": "viewer" });
    let made = scene.server.ask("POST", "/api/admin/tokens", Some(&admin), Some(&token)).expect("an answer");
    assert_eq!(made.status, 201, "{}", made.json());
    let made = app.ask(&scene.server, "POST", "/api/app/tokens", Some(&json!({ "name": PLANTED })));
    assert_eq!(made.status, 201, "{}", made.json());
    scene.project.git(["branch", PLANTED_BRANCH]);
    scene.host.publish(&scene.project, REPOSITORY);
    let wish = json!({ "url": scene.repository_url(), "branch": PLANTED_BRANCH });
    let watch = app.watch_with(&scene.server, &wish);
    app.wait_until_held(&scene.server, &watch, &scene.project.head());
    let of_watch = |tab: &str| format!("watch?app={}&id={watch}&tab={tab}", app.id);
    vec![
        ("app with a planted name", format!("app?app={}", app.id)),
        ("tokens of that app", format!("app?app={}&tab=tokens", app.id)),
        ("watch of a planted branch", of_watch("")),
        ("rounds of that branch", of_watch("rounds")),
        ("changes of that branch", of_watch("changes")),
        ("a planted filter", "letters?q=%22%3Cimg%20src%3Dx%20onerror%3Dwindow.planted%3D1%3E%22".into()),
    ]
}

#[test]
fn texts_of_others_are_shown_as_they_are_and_run_nothing() {
    let scene = Scene::start().with_work(PLANTED);
    let planted_names = plant_names(&scene);
    // The path of a dead letter is such a text as well.
    scene.project.write("img/<img src=x onerror=window.planted=1>.png", b"planted");
    scene.project.commit("plant a letter");
    scene.host.publish(&scene.project, REPOSITORY);
    eventually("its letter", SOON, || (scene.letters().len() == 4).then_some(()));
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let mut seen = 0;
    let planted =
        "return [window.planted ?? null, document.querySelectorAll('main img, main script').length]";
    for (name, path) in scene.pages().into_iter().chain(planted_names) {
        scene.visit(&browser, &path);
        assert_eq!(browser.run(planted, &[]), json!([null, 0]), "{name}");
        let text = browser.text();
        assert!(name != "watch of a planted branch" || text.contains(PLANTED_BRANCH), "{text}");
        seen += usize::from(text.contains("<img src=x onerror="));
        let complaints: Vec<_> = browser.complaints();
        let is_of_test = |text: &String| name == "not-found" && text.contains("app_none");
        assert!(complaints.iter().all(is_of_test), "{name}: {complaints:?}");
    }
    assert!(seen >= 4, "the planted texts were shown on {seen} pages");
    scene.visit(&browser, "letters");
    assert!(browser.text().contains("img/<img src=x onerror="), "the path of a letter is shown as it is");
    scene.visit(&browser, &format!("app?app={}", scene.app.id));
    assert!(browser.text().contains(PLANTED), "the description of the app is shown as it is");
    for page in ["apps", "system?tab=tokens"] {
        scene.visit(&browser, page);
        assert!(browser.text().contains(PLANTED), "{page} shows a planted name as it is");
    }
}

#[test]
fn the_policy_of_the_pages_lets_no_planted_script_run() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    // As if a page had a hole: even then nothing runs, and nothing leaves.
    let hole = "window.refused = [];
        document.addEventListener('securitypolicyviolation', (event) => window.refused.push(event.violatedDirective));
        const script = document.createElement('script'); script.textContent = 'window.planted = 1';
        document.body.append(script);
        const host = document.createElement('div'); host.innerHTML = arguments[0]; document.body.append(host);
        fetch('http://127.0.0.1:9/').catch(() => {});
        return window.planted ?? null";
    assert_eq!(browser.run(hole, &[json!("<img src=x onerror='window.planted=1'>")]), json!(null));
    eventually("refusals", SOON, || {
        let refused = browser.run("return window.refused", &[]).to_string();
        (refused.contains("script-src") && refused.contains("connect-src")).then_some(())
    });
    assert_eq!(browser.run("return window.planted ?? null", &[]), json!(null));
}

#[test]
fn a_filter_that_is_refused_says_why_and_leaves_no_rows_of_before() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    for (path, row, filter) in [
        ("letters", "img/picture-1.png", "colour:red"),
        ("watches", "handbook", "state:("),
        ("ledger", "letter.parked", "colour:red"),
        ("deliveries", "docs/page-1.md", "colour:red"),
        ("queues", "index", "colour:red"),
    ] {
        let rows = "return document.querySelector('main tbody')?.textContent ?? ''";
        scene.visit(&browser, path);
        eventually("rows", SOON, || browser.run(rows, &[]).as_str()?.contains(row).then_some(()));
        browser.write("#q", filter);
        browser.click_on("Apply");
        let alert = "return document.querySelector('main [role=alert]')?.textContent ?? ''";
        let says = eventually("a fault", SOON, || {
            Some(browser.run(alert, &[]).as_str()?.to_owned()).filter(|text| !text.is_empty())
        });
        assert!(says.contains("This filter cannot be readColumn "), "{path}: {says}");
        assert_eq!(browser.run(rows, &[]), "", "{path} shows rows of another filter");
        let kept = browser.run("return document.querySelector('#q').value", &[]);
        assert_eq!(kept, filter, "{path}: the filter can be corrected");
        // The same from a link, and back from there.
        browser.reload();
        eventually("a fault", SOON, || (browser.run(alert, &[]).as_str()? == says).then_some(()));
        browser.run("const q = document.querySelector('#q'); q.value = ''", &[]);
        browser.click_on("Apply");
        eventually("rows", SOON, || browser.run(rows, &[]).as_str()?.contains(row).then_some(()));
    }
}

#[test]
fn a_filter_of_tasks_that_is_refused_leaves_the_page_of_its_queue() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("queue?app={}&command=index", scene.app.id));
    browser.wait_for("Numbers");
    browser.write("#q", "colour:red");
    browser.click_on("Apply");
    browser.wait_for("This filter cannot be read");
    browser.wait_for("Numbers");
    let kept = browser.run("return document.querySelector('#q').value", &[]);
    assert_eq!(kept, "colour:red", "the filter can be corrected");
    assert!(!browser.text().contains(&scene.task), "a task of another filter is shown");
}

#[test]
fn the_overview_names_a_watch_and_its_state_as_the_list_of_watches_does() {
    let scene = Scene::start();
    let url = json!({ "url": scene.repository_url(), "watch_name": "deploy" });
    scene.away.watch_with(&scene.server, &url);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let states = "const rows = [...document.querySelectorAll('main tbody tr')];
        return rows.filter((row) => row.innerText.includes('docs site'))
            .map((row) => [row.innerText.includes('deploy'), row.querySelector('.badge')?.innerText.trim()])
            .sort((one, other) => one[0] - other[0]);";
    // Both pages are read until they show the same: a try may change the state between the two.
    eventually("the same states on both pages", SOON, || {
        scene.visit(&browser, "");
        let overview = browser.run(states, &[]);
        scene.visit(&browser, "watches");
        let watches = browser.run(states, &[]);
        let names: Vec<_> = overview.as_array()?.iter().map(|row| row[0].clone()).collect();
        (overview == watches && names == [false, true]).then_some(())
    });
}

#[test]
fn tasks_are_on_the_overview_and_in_words_in_the_ledger() {
    let scene = Scene::start();
    let app = &scene.app;
    let task = json!({ "command": "render", "max_attempts": 1 });
    assert_eq!(app.ask(&scene.server, "POST", "/api/tasks", Some(&task)).status, 201);
    let wanted = json!({ "commands": ["render"] });
    let given = app.ask(&scene.server, "POST", "/api/tasks/claim", Some(&wanted)).json();
    let id = given["tasks"][0]["id"].as_str().expect("an id").to_owned();
    let nack = json!({ "token": given["tasks"][0]["token"], "reason": "the printer burns" });
    assert_eq!(app.ask(&scene.server, "POST", &format!("/api/tasks/{id}/nack"), Some(&nack)).status, 200);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "ledger");
    browser.wait_for("task.dead");
    let row = "const rows = [...document.querySelectorAll('main tbody tr')];
        return rows.find((row) => row.innerText.includes('task.dead'))?.innerText ?? null";
    // The words of the page stand in its filters as well.
    let said = eventually("an entry", SOON, || browser.run(row, &[]).as_str().map(str::to_owned));
    assert!(said.contains("render · 1 attempt · the printer burns"), "{said}");
    browser.click_on("render · 1 attempt · the printer burns");
    browser.wait_for("Where it stands");
    assert!(browser.url().contains(&id), "{}", browser.url());

    let figures = "const figures = [...document.querySelectorAll('section[aria-label=Tasks] .figure')];
        const text = (figure, part) => figure.querySelector(part).innerText;
        return Object.fromEntries(figures.map((one) => [text(one, '.label'), text(one, '.value')]))";
    // The numbers are those of the last survey.
    eventually("tasks on the overview", SOON, || {
        scene.visit(&browser, "");
        let figures = browser.run(figures, &[]);
        (figures["dead"] == "1" && figures["failed"] == "1" && figures["task ready"] == "1").then_some(())
    });
    browser.click("section[aria-label=Tasks] .figure.warn");
    let queues =
        "return [...document.querySelectorAll('main tbody tr td:first-child')].map((cell) => cell.innerText)";
    eventually("the queue with the dead task alone", SOON, || {
        (browser.run(queues, &[]) == json!(["render"])).then_some(())
    });
}

#[test]
fn a_queue_shows_the_settings_that_it_has_by_default() {
    let scene = Scene::start();
    let set = json!({ "max_attempts": 9 });
    assert_eq!(scene.app.ask(&scene.server, "PUT", "/api/queues/index", Some(&set)).status, 200);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("queue?app={}&command=index", scene.app.id));
    let settings = "const names = [...document.querySelectorAll('section[aria-label=Settings] dt')];
        return Object.fromEntries(names.map((name) => [name.innerText, name.nextElementSibling.innerText]))";
    let shown = browser.run(settings, &[]);
    for (name, value) in [
        ("Attempts", "9"),
        ("Handed out", "no limit (default)"),
        ("Wait between attempts", "random, at most a bound that doubles each time (default)"),
        ("First wait", "5.0 s (default)"),
        ("Longest claim", "1 h (default)"),
        ("Dead tasks are kept", "30 days (default)"),
        ("Payload", "at most 256 KiB (default)"),
    ] {
        assert_eq!(shown[name], value, "{name}: {shown}");
    }
}

#[test]
fn the_page_of_a_queue_shows_its_rates() {
    let scene = Scene::start();
    for _ in 0..3 {
        let made = scene.app.ask(&scene.server, "POST", "/api/tasks", Some(&json!({ "command": "paced" })));
        assert_eq!(made.status, 201, "{}", made.json());
    }
    eventually("its rates", SOON, || {
        let queue = scene.app.ask(&scene.server, "GET", "/api/queues/paced", None).json();
        queue["rates"]["created_per_min"].as_f64().is_some_and(|rate| rate > 0.0).then_some(())
    });
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("queue?app={}&command=paced", scene.app.id));
    let pictures = "const plots = [...document.querySelectorAll('[data-plot]')];
        return plots.map((one) => [one.getAttribute('aria-label'), one.querySelector('canvas') !== null])";
    eventually("pictures with samples", SOON, || {
        let shown = browser.run(pictures, &[]);
        let words = shown.to_string();
        let has_rates = words.contains("created: now") && words.contains("failed or dead: now");
        (shown.as_array().is_some_and(|all| all.len() == 2) && has_rates && !words.contains("false"))
            .then_some(())
    });
    let table = browser.run("return document.querySelector('details.numbers')?.textContent", &[]).to_string();
    assert!(table.contains("Handed out") && table.contains("Succeeded"), "{table}");
}

#[test]
fn two_lines_of_a_plot_differ_in_colour_and_dash_and_a_single_sample_is_a_dot_with_its_value() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("queue?app={}&command=index", scene.app.id));
    let marks = "return [...document.querySelectorAll('.key')].map((key) => [...key.querySelectorAll('.mark')].map((one) => {
        const { borderTopColor, borderTopStyle } = getComputedStyle(one, '::before');
        return [borderTopColor, borderTopStyle, one.textContent]; }))";
    let legends = browser.run(marks, &[]);
    assert_eq!(legends.as_array().map(Vec::len), Some(2), "{legends}");
    for legend in legends.as_array().expect("legends") {
        for part in 0..3_usize {
            assert_ne!(legend[0][part], legend[1][part], "{legend}");
        }
    }

    let drawn = "const [done] = arguments;
        const main = document.querySelector('script[type=module]').src;
        const load = (file) => import(new URL(file, main));
        Promise.all([load('vendor/lit-html.js'), load('parts/plot.js')]).then(([{ render }, { plot }]) => {
            const host = document.body.appendChild(document.createElement('div'));
            render(plot('single', { at: [Date.now() / 1000], unit: 's', lines: [{ label: 'lag', values: [3] }] }), host);
            done(true);
        });";
    assert_eq!(browser.run_async(drawn, &[]), true);
    // The pixels of the colour of the line: a dot that is as wide as the line has fewer than ten.
    let dot = "const canvas = document.querySelector('[data-plot=single] canvas');
        if (!canvas) return null;
        const accent = getComputedStyle(document.documentElement).getPropertyValue('--accent');
        const [red, green, blue] = accent.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let pixels = 0;
        for (let at = 0; at < data.length; at += 4) if (data[at] === red && data[at + 1] === green && data[at + 2] === blue) pixels += 1;
        return [pixels, document.querySelector('[data-plot=single]').closest('figure').innerText]";
    eventually("a dot with its value", SOON, || {
        let seen = browser.run(dot, &[]);
        (seen[0].as_u64()? > 30 && seen[1].as_str()?.contains("lag: 3 s")).then_some(())
    });
}

#[test]
fn the_figures_of_the_overview_leave_no_place_of_their_grid_empty() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let grid = "const grid = document.querySelector(`section[aria-label=${arguments[0]}] .figures`);
        return grid && [grid.children.length, getComputedStyle(grid).gridTemplateColumns.split(' ').length]";
    for width in [1600, 1280, 1000, 640] {
        browser.resize(width, 900);
        scene.visit(&browser, "");
        for section in ["Now", "Tasks"] {
            eventually(&format!("a grid without a hole, {section} at {width}"), SOON, || {
                let shown = browser.run(grid, &[json!(section)]);
                let (figures, columns) = (shown[0].as_u64()?, shown[1].as_u64()?);
                (columns > 1 && figures % columns == 0).then_some(())
            });
        }
    }
}

#[test]
fn what_is_behind_stands_above_everything_but_the_figures() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "");
    let names =
        "return [...document.querySelectorAll('main section')].map((one) => one.getAttribute('aria-label'))";
    let names = browser.run(names, &[]);
    assert_eq!((&names[0], &names[1]), (&json!("Now"), &json!("Behind for longest")), "{names}");
}

#[test]
fn labels_of_all_pages_use_one_word_for_each_concept() {
    let scene = Scene::told("").with_work("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    // The words are: create, dead letter, state, redrive.
    let others = "const labels = [...document.querySelectorAll('h1, h2, th, dt, label, button, a.button')];
        const other = /\\b(Made|Make|Given up|Letters?|Status|Condition|Claims|Held|Head)\\b|Send .*again/;
        return labels.map((one) => one.textContent.trim()).filter((text) => other.test(text))";
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        assert_eq!(browser.run(others, &[]), json!([]), "{name}");
    }
}
