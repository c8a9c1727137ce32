//! Schedules in the browser: found, made, changed, paused and removed; and the plots of one app.

use serde_json::json;

use super::Scene;
use crate::support::{
    browser::Browser,
    patience::{SOON, eventually},
};

/// Writes into a field in place of what stands there.
fn overwrite(browser: &Browser, selector: &str, text: &str) {
    browser.run("document.querySelector(arguments[0]).value = ''", &[json!(selector)]);
    browser.write(selector, text);
}

#[test]
fn a_person_makes_a_schedule_changes_it_lets_it_rest_and_removes_it() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    browser.click_on("Schedules");
    browser.wait_for("At 02:30 every day");
    browser.wait_for("At 09:00 and 17:00 on Monday to Friday");
    browser.click_on("Create a schedule");
    browser.wait_for("Cron line");
    // What is wrong is said at its field, and nothing is lost.
    browser.write("#field-name", "nightly");
    browser.write("#field-cron", "0 3 * * *");
    browser.wait_for("At 03:00 every day");
    browser.write("#field-command", "index");
    browser.click_on("Create the schedule");
    browser.wait_for("There is a schedule with this name");
    let kept = scene.app.ask(&scene.server, "GET", "/api/schedules/nightly", None).json();
    assert_eq!(kept["cron"], "30 2 * * *", "the one that is there stays");
    overwrite(&browser, "#field-name", "rome");
    overwrite(&browser, "#field-zone", "Europe/Nowhere");
    browser.click_on("Create the schedule");
    browser.wait_for("is no time zone of the IANA database");
    overwrite(&browser, "#field-zone", "Europe/Rome");
    overwrite(&browser, "#field-payload", "{ \"n\": 12345678901234567890, \"a\": 1.50 ");
    browser.click_on("Create the schedule");
    browser.wait_for("This is no JSON");
    overwrite(&browser, "#field-payload", "{ \"n\": 12345678901234567890, \"a\": 1.50 }");
    browser.click_on("Create the schedule");
    browser.wait_for("The next tick is in");
    browser.wait_for("In Europe/Rome");
    let ticks = browser.run("return document.querySelectorAll('tbody tr').length", &[]);
    assert_eq!(ticks, 10);
    // The payload stays as it was written, number by number, when the rest changes.
    browser.click_on("Change");
    browser.wait_for("Change the schedule");
    overwrite(&browser, "#field-cron", "0 4 1 * *");
    browser.click_on("Change the schedule");
    browser.wait_for("At 04:00 on day 1 of the month");
    // The form shows the words of a line before it is saved.
    let kept = eventually("the changed line", SOON, || {
        let reply = scene.app.ask(&scene.server, "GET", "/api/schedules/rome", None);
        (reply.json()["cron"] == "0 4 1 * *").then_some(reply)
    });
    let text = String::from_utf8_lossy(&kept.message.body).into_owned();
    assert!(text.contains("{ \"n\": 12345678901234567890, \"a\": 1.50 }"), "{text}");
    assert_eq!(kept.json()["zone"], "Europe/Rome");
    browser.click_on("Create a task now");
    browser.wait_for("Create a task now?");
    browser.click_on("Create it");
    browser.wait_for("is created. The ticks stay as they are.");
    let tasks = scene.app.ask(&scene.server, "GET", "/api/tasks?limit=1", None).json();
    let id = tasks["items"][0]["id"].as_str().expect("a task");
    let made = scene.app.ask(&scene.server, "GET", &format!("/api/tasks/{id}"), None);
    assert!(
        String::from_utf8_lossy(&made.message.body).contains("12345678901234567890, \"a\": 1.50"),
        "{id}"
    );
    browser.click_on("Pause");
    browser.wait_for("Pause rome?");
    browser.click("dialog button[type=submit]");
    browser.wait_for("The schedule rests");
    browser.click_on("Resume");
    browser.wait_for("The next tick is in");
    browser.click_on("Remove");
    browser.wait_for("Remove rome?");
    browser.click("dialog button[type=submit]");
    browser.wait_for("At 02:30 every day");
    eventually("one schedule less", SOON, || (!browser.text().contains("rome")).then_some(()));
    // The browser notes what the server refused: the zone, and the looks for a name that is free.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|one| one.contains("/api/schedules/rome")), "{complaints:?}");
}

#[test]
fn the_staff_finds_the_schedules_of_all_apps_and_a_viewer_sees_no_button() {
    let scene = Scene::told("");
    let body = json!({ "cron": "@daily", "command": "digest" });
    let made = scene.away.ask(&scene.server, "PUT", "/api/schedules/other", Some(&body));
    assert_eq!(made.status, 200, "{}", made.json());
    let Some(browser) = Browser::start() else { return };
    let (_, viewer) = scene.staff("viewer");
    scene.sign_in(&browser, &viewer);
    scene.visit(&browser, "schedules");
    browser.wait_for("nightly");
    browser.wait_for("docs site");
    browser.write("#q", "command:digest");
    browser.click_on("Apply");
    eventually("filter", SOON, || {
        (browser.text().contains("other") && !browser.text().contains("nightly")).then_some(())
    });
    browser.click_on("other");
    browser.wait_for("At 00:00 every day");
    let buttons =
        "return [...document.querySelectorAll('main .head .buttons button, main .head .buttons a')].length";
    assert_eq!(browser.run(buttons, &[]), 0, "a viewer may change nothing");
    scene.visit(&browser, &format!("schedule?app={}&name=other&tab=change", scene.away.id));
    browser.wait_for("Your token lacks the permission schedules:update.");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_of_an_app_shows_its_own_rates() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let own = "const plots = [...document.querySelectorAll('[data-plot]')];
        return plots.map((one) => [one.getAttribute('aria-label'), one.querySelector('canvas') !== null])";
    scene.visit(&browser, "app");
    eventually("a picture with samples", SOON, || {
        let shown = browser.run(own, &[]);
        let words = shown.to_string();
        (shown.as_array().is_some_and(|all| all.len() == 2)
            && words.contains("acknowledged: now")
            && words.contains("lag: now")
            && !words.contains("false"))
        .then_some(())
    });
    let rates =
        |token: &str, path: &str| scene.server.ask("GET", path, Some(token), None).expect("an answer");
    // The first app took everything but three pictures; the other one's endpoint refuses all.
    let sum = |name: &str, samples: &serde_json::Value| -> f64 {
        samples["items"].as_array().expect("a list").iter().filter_map(|one| one[name].as_f64()).sum()
    };
    eventually("rates of each app", SOON, || {
        let one = rates(&scene.app.token, "/api/app/samples").json();
        let other = rates(&scene.away.token, "/api/app/samples").json();
        (sum("acknowledged_per_s", &one) > 0.0
            && sum("acknowledged_per_s", &other) == 0.0
            && sum("failed_per_s", &other) > 0.0
            && sum("behind", &other) > 0.0)
            .then_some(())
    });
    let of_other = format!("/api/admin/apps/{}/samples", scene.away.id);
    assert_eq!(rates(&scene.app.token, &of_other).status, 401, "an app sees no other one's");
    assert_eq!(rates(&scene.admin_token(), &of_other).status, 200);
}
