//! Schedules, with the real server, kills and a clock that moves: each tick has its task once, and those that
//! were missed have what was declared.

use std::{
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    cluster,
    fleet::Fleet,
    patience::{SOON, eventually},
    server::Server,
    subscriber::Subscriber,
};

/// 00:29:30 UTC of the night in which Rome goes from 03:00 back to 02:00, at 01:00 UTC: for the first time it
/// is 02:29:30 there.
const NIGHT: i64 = 1_792_888_170;
const MINUTE: i64 = 60;
/// 00:21:30 UTC, so that a slow machine is ready before the tick.
const BEFORE: i64 = NIGHT - 8 * MINUTE;

/// How far the clock of the machine must be moved to show this.
#[expect(clippy::disallowed_methods, reason = "the clock of the machine is the one that is moved")]
fn moved_to(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    seconds - i64::try_from(now).expect("a clock of today")
}

fn set(server: &Server, app: &App, name: &str, body: &Value) -> Value {
    let reply = app.ask(server, "PUT", &format!("/api/schedules/{name}"), Some(body));
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

/// The moments of the ticks that have a task, oldest first.
fn ticks(server: &Server, app: &App, command: &str) -> Vec<String> {
    let page = app.ask(server, "GET", &format!("/api/tasks?limit=100&command={command}"), None).json();
    let origin = |task: &Value| task["origin"].as_str().expect("an origin").to_owned();
    let mut ticks: Vec<String> = page["items"].as_array().expect("a list").iter().map(origin).collect();
    ticks.sort_unstable();
    ticks.iter().map(|origin| origin.split_once('/').expect("a tick").1.to_owned()).collect()
}

/// Makes a schedule of every minute, moves the clock, and waits until the clock of tasks was looked at, at
/// this minute or later.
fn wait_for_a_look(server: &Server, app: &App, name: &str, minute: &str, move_clock: impl FnOnce()) {
    set(server, app, name, &json!({ "cron": "* * * * *", "command": name }));
    move_clock();
    eventually("tick of a fresh schedule", SOON, || {
        ticks(server, app, name).last().is_some_and(|tick| tick.as_str() >= minute).then_some(())
    });
}

#[test]
fn a_tick_of_the_night_of_summer_time_fires_once_over_kills_and_moved_clocks() {
    let mut server = Server::prepare().with_clock_of_its_own();
    if !server.move_clock(moved_to(BEFORE)) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    let app = App::onboard(&server, &Subscriber::start());
    let made = set(
        &server,
        &app,
        "night",
        &json!({
            "cron": "30 2 * * *", "zone": "Europe/Rome", "command": "rome", "missed": "each",
        }),
    );
    assert_eq!(made["next"][0], "2026-10-25T00:30:00.000Z", "{made}");
    assert_eq!(
        (&made["next"][1], &made["next"][9]),
        (&json!("2026-10-26T01:30:00.000Z"), &json!("2026-11-03T01:30:00.000Z"))
    );
    server.move_clock(moved_to(NIGHT + MINUTE));
    eventually("task of the tick", SOON, || (ticks(&server, &app, "rome").len() == 1).then_some(()));
    // Killed, and started when it is 02:30 in Rome for the second time.
    server.kill();
    server.move_clock(moved_to(NIGHT + 60 * MINUTE));
    server.run();
    wait_for_a_look(&server, &app, "second", "2026-10-25T01:31", || {
        assert!(server.move_clock(moved_to(NIGHT + 62 * MINUTE)))
    });
    // Back to before the tick, and over it once more.
    server.move_clock(moved_to(BEFORE));
    eventually("clock that was set back", SOON, || {
        let made = set(&server, &app, "probe", &json!({ "cron": "@hourly", "command": "probe" }));
        (made["updated_at"].as_str().expect("a moment") < "2026-10-25T00:30").then_some(())
    });
    wait_for_a_look(&server, &app, "again", "2026-10-25T00:30", || {
        assert!(server.move_clock(moved_to(NIGHT + MINUTE)))
    });
    assert_eq!(ticks(&server, &app, "rome"), ["2026-10-25T00:30:00.000Z"]);
    let task = app.ask(&server, "GET", "/api/tasks?command=rome", None).json();
    assert_eq!(task["items"][0]["origin"], "tick night/2026-10-25T00:30:00.000Z");
}

#[test]
fn ticks_that_a_stopped_server_missed_are_made_up_as_declared() {
    let mut server = Server::prepare().with_clock_of_its_own();
    if !server.move_clock(moved_to(NIGHT)) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    let app = App::onboard(&server, &Subscriber::start());
    for (missed, overlap) in [("one", "allow"), ("each", "allow"), ("each", "wait"), ("one", "skip")] {
        let command = format!("{missed}-{overlap}");
        let body = json!({ "cron": "0 * * * *", "command": command, "missed": missed, "overlap": overlap });
        set(&server, &app, &command, &body);
    }
    assert!(server.terminate().0.success());
    server.move_clock(moved_to(NIGHT + 180 * MINUTE));
    server.run();
    let all = ["01", "02", "03"].map(|hour| format!("2026-10-25T{hour}:00:00.000Z"));
    let expect = |command: &str, expected: &[String]| {
        eventually("tasks of missed ticks", SOON, || {
            (ticks(&server, &app, command) == expected).then_some(())
        });
    };
    expect("one-allow", &all[2..]);
    expect("each-allow", &all);
    expect("one-skip", &all[2..]);
    // One after another: each as soon as the one before has ended.
    for count in 1..=3 {
        expect("each-wait", &all[..count]);
        let claim = json!({ "commands": ["each-wait"], "wait_seconds": 20 });
        let given = app.ask(&server, "POST", "/api/tasks/claim", Some(&claim)).json();
        let task = &given["tasks"][0];
        let path = format!("/api/tasks/{}/complete", task["id"].as_str().expect("an id"));
        assert_eq!(app.ask(&server, "POST", &path, Some(&json!({ "token": task["token"] }))).status, 200);
    }
    let entries = app.ask(&server, "GET", "/api/ledger?type=schedule.missed", None).json();
    let mut missed: Vec<(&Value, &Value)> = entries["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| (&entry["subject"], &entry["data"]["count"]))
        .collect();
    missed.sort_by_key(|(subject, _)| subject.as_str());
    let two = json!(2);
    assert_eq!(missed, [(&json!("one-allow"), &two), (&json!("one-skip"), &two)], "{entries}");
}

#[test]
fn a_tick_fires_once_over_two_replicas_of_which_one_dies() {
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(3)) else { return };
    let app = App::onboard(&fleet.servers[0], &Subscriber::start());
    let body = json!({ "cron": "*/10 * * * *", "command": "ten", "missed": "each" });
    set(&fleet.servers[1], &app, "ten", &body);
    // Replicas go by the clock of the database: instead of that clock, the position of the schedule is moved.
    let back = |fleet: &Fleet, name: &str| {
        let text =
            format!("update schedule set last_tick = last_tick - 1800000, wake_at = 1 where name = '{name}'");
        cluster::run_sql(&fleet.database.url, &text).expect("moved");
    };
    let wait = |fleet: &Fleet, command: &str| {
        eventually("tasks of three ticks", SOON, || {
            (ticks(&fleet.servers[1], &app, command).len() >= 3).then_some(())
        });
    };
    back(&fleet, "ten");
    wait(&fleet, "ten");
    let before = ticks(&fleet.servers[1], &app, "ten");
    fleet.servers[0].kill();
    // Whoever keeps the clock now looks at both, and one of them owes nothing.
    set(
        &fleet.servers[1],
        &app,
        "other",
        &json!({ "cron": "*/10 * * * *", "command": "other", "missed": "each" }),
    );
    cluster::run_sql(&fleet.database.url, "update schedule set wake_at = 1").expect("said");
    back(&fleet, "other");
    wait(&fleet, "other");
    fleet.servers[0].run();
    let mut after = ticks(&fleet.servers[0], &app, "ten");
    after.dedup();
    assert_eq!(after.len(), ticks(&fleet.servers[0], &app, "ten").len(), "none fired twice: {after:?}");
    // A tick may have come meanwhile by itself.
    assert!(after.starts_with(&before) && after.len() <= before.len() + 1, "{before:?} {after:?}");
}

#[test]
fn schedules_are_made_shown_and_removed_on_the_command_line() {
    let server = Server::start();
    let app = App::onboard(&server, &Subscriber::start());
    let address = format!("http://{}", server.address());
    let run = |arguments: &[&str]| {
        let mut command = server.command(&["--json", "schedule"]);
        command.args(arguments).args(["--server", &address]).env("TIDINGS_TOKEN", &app.token);
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.success(), answer, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let line = [
        "add",
        "nightly",
        "--cron",
        "0 3 * * mon-fri",
        "--zone",
        "Europe/Rome",
        "--command",
        "report",
        "--payload",
        "{\"a\": 1.50}",
        "--missed",
        "each",
        "--overlap",
        "skip",
    ];
    let (done, made, said) = run(&line);
    assert!(done, "{said}");
    assert_eq!((&made["missed"], &made["overlap"]), (&json!("each"), &json!("skip")));
    assert_eq!(made["next"].as_array().map(Vec::len), Some(10), "{made}");
    let (done, _, said) = run(&["add", "weekly", "--cron", "0 25 * * *", "--command", "report"]);
    assert!(!done && said.contains("hour"), "{said}");
    let (done, _, said) =
        run(&["add", "weekly", "--cron", "@daily", "--zone", "Rome", "--command", "report"]);
    assert!(!done && said.contains("time zone"), "{said}");
    assert_eq!(run(&["list"]).1[0]["next"].as_array().map(Vec::len), Some(1));
    let paused = run(&["pause", "nightly"]).1;
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &json!([])));
    assert_eq!(run(&["resume", "nightly"]).1["paused"], false);
    assert_eq!(run(&["show", "nightly"]).1["cron"], "0 3 * * mon-fri");
    assert!(run(&["remove", "nightly"]).0);
    let (done, _, said) = run(&["show", "nightly"]);
    assert!(!done && said.contains("not found"), "{said}");
}
