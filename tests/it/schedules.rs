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
    project::Project,
    puller::Puller,
    server::Server,
    subscriber::Subscriber,
};

const MINUTE: i64 = 60;
/// How long before a tick the clock stands at the start, so that a slow machine is ready before the tick.
const AHEAD: i64 = 8 * MINUTE + 30;
/// 00:29:30 UTC of the night in which Rome goes back from 03:00 to 02:00.
const NIGHT: i64 = NIGHTS[0].at - 30;

/// A night in which a zone changes between its two times, with a tick that this night concerns.
struct Night {
    zone: &'static str,
    cron: &'static str,
    /// The moment of the tick, in seconds and as schedules show it.
    at: i64,
    tick: &'static str,
    /// The tick of the next night.
    next: &'static str,
    /// 61 minutes after the tick: the local time of the tick was there for a second time, if it comes twice.
    later: &'static str,
}

const NIGHTS: [Night; 4] = [
    // 02:30 comes twice: the first one counts.
    Night {
        zone: "Europe/Rome",
        cron: "30 2 * * *",
        at: 1_792_888_200,
        tick: "2026-10-25T00:30:00.000Z",
        next: "2026-10-26T01:30:00.000Z",
        later: "2026-10-25T01:31",
    },
    // 02:30 does not exist: 03:00 is the end of the gap.
    Night {
        zone: "Europe/Rome",
        cron: "30 2 * * *",
        at: 1_774_746_000,
        tick: "2026-03-29T01:00:00.000Z",
        next: "2026-03-30T00:30:00.000Z",
        later: "2026-03-29T02:01",
    },
    // The clock goes back by half an hour: 01:45 comes twice.
    Night {
        zone: "Australia/Lord_Howe",
        cron: "45 1 * * *",
        at: 1_775_313_900,
        tick: "2026-04-04T14:45:00.000Z",
        next: "2026-04-05T15:15:00.000Z",
        later: "2026-04-04T15:46",
    },
    // The clock goes ahead by half an hour: 02:15 does not exist, 02:30 is the end of the gap.
    Night {
        zone: "Australia/Lord_Howe",
        cron: "15 2 * * *",
        at: 1_791_041_400,
        tick: "2026-10-03T15:30:00.000Z",
        next: "2026-10-04T15:15:00.000Z",
        later: "2026-10-03T16:31",
    },
];

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
fn a_tick_of_each_night_of_summer_time_fires_once_over_kills_and_moved_clocks() {
    for night in &NIGHTS {
        fires_once(night);
    }
}

/// The clock goes over the tick, over its local time again, back, and over the tick once more.
fn fires_once(night: &Night) {
    let mut server = Server::prepare().with_clock_of_its_own();
    let before = night.at - AHEAD;
    if !server.move_clock(moved_to(before)) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    let app = App::onboard(&server, &Subscriber::start());
    let body = json!({ "cron": night.cron, "zone": night.zone, "command": "night", "missed": "each" });
    let made = set(&server, &app, "night", &body);
    assert_eq!((&made["next"][0], &made["next"][1]), (&json!(night.tick), &json!(night.next)), "{made}");
    server.move_clock(moved_to(night.at + MINUTE / 2));
    eventually("task of the tick", SOON, || (ticks(&server, &app, "night").len() == 1).then_some(()));
    // Killed, and started shortly before the local time of the tick comes again.
    server.kill();
    server.move_clock(moved_to(night.at + 29 * MINUTE));
    server.run();
    wait_for_a_look(&server, &app, "second", night.later, || {
        assert!(server.move_clock(moved_to(night.at + 61 * MINUTE + MINUTE / 2)))
    });
    // Back to before the tick, and over it once more.
    server.move_clock(moved_to(before));
    eventually("clock that was set back", SOON, || {
        let made = set(&server, &app, "probe", &json!({ "cron": "@hourly", "command": "probe" }));
        (made["updated_at"].as_str().expect("a moment") < night.tick).then_some(())
    });
    wait_for_a_look(&server, &app, "again", &night.tick[.."2026-10-25T00:30".len()], || {
        assert!(server.move_clock(moved_to(night.at + MINUTE / 2)))
    });
    assert_eq!(ticks(&server, &app, "night"), [night.tick], "{} in {}", night.cron, night.zone);
    let task = app.ask(&server, "GET", "/api/tasks?command=night", None).json();
    assert_eq!(task["items"][0]["origin"], format!("tick night/{}", night.tick));
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
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
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
    // The replica that keeps the clock now looks at both, and one of them owes nothing.
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

/// The kinds of the rounds of a watch that have ended, newest first.
fn rounds(server: &Server, app: &App, watch: &str) -> Vec<String> {
    let page = app.ask(server, "GET", &format!("/api/repositories/{watch}/rounds"), None).json();
    let ended = page["items"].as_array().expect("a list").iter().filter(|round| round["state"] == "finished");
    ended.map(|round| round["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn a_tick_resyncs_a_repository_once_although_its_head_stands_still() {
    let mut server = Server::prepare().with_clock_of_its_own();
    if !server.move_clock(moved_to(NIGHT - 8 * MINUTE)) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    // An endpoint would refuse what a server with a moved clock signs.
    let mut puller = Puller::onboard(&server);
    let app = puller.app.clone();
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    let watch = app.watch(&server, &project);
    let mut wait_for_rounds = |server: &Server, kinds: &[&str]| {
        eventually("rounds", SOON, || {
            puller.drain(server, &watch);
            (rounds(server, &app, &watch) == kinds).then_some(())
        });
    };
    wait_for_rounds(&server, &["sync"]);
    let nightly = json!({ "cron": "30 2 * * *", "zone": "Europe/Rome", "repository_id": watch });
    let made = set(&server, &app, "night", &nightly);
    assert_eq!(
        (&made["repository_id"], &made["command"], &made["next"][0]),
        (&json!(watch), &Value::Null, &json!("2026-10-25T00:30:00.000Z")),
        "{made}"
    );
    server.move_clock(moved_to(NIGHT + MINUTE));
    wait_for_rounds(&server, &["resync", "sync"]);
    server.kill();
    server.run();
    wait_for_a_look(&server, &app, "after", "2026-10-25T00:31", || {
        server.move_clock(moved_to(NIGHT + 3 * MINUTE));
    });
    wait_for_rounds(&server, &["resync", "sync"]);
    for (body, field) in [
        (json!({ "cron": "@daily", "repository_id": "repo_x" }), "/repository_id"),
        (json!({ "cron": "@daily", "repository_id": "repo_01M885YA56B8G3NA53GZJECSD6" }), "/repository_id"),
        (json!({ "cron": "@daily", "repository_id": watch, "command": "x" }), "/command"),
        (json!({ "cron": "@daily", "repository_id": watch, "payload": 1 }), "/payload"),
        (json!({ "cron": "@daily", "repository_id": watch, "missed": "each" }), "/missed"),
        (json!({ "cron": "@daily" }), "/command"),
    ] {
        let reply = app.ask(&server, "PUT", "/api/schedules/other", Some(&body));
        let problem = reply.json();
        assert_eq!((reply.status, &problem["errors"][0]["pointer"]), (422, &json!(field)), "{problem}");
        let faults = problem["errors"].as_array().expect("faults");
        assert_eq!(faults.len(), 1, "a refused field is not told as an unknown one too: {problem}");
    }
    let body = json!({ "name": "clock", "permissions": ["schedules:update"] });
    let token = app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
    let narrowed = App { token: token["token"].as_str().expect("a token").to_owned(), ..app.clone() };
    let reply = narrowed.ask(&server, "PUT", "/api/schedules/night", Some(&nightly));
    assert_eq!(reply.status, 403, "it may not resync by hand either: {}", reply.json());
    let permissions = ["schedules:update", "watches:resync"];
    let body = json!({ "name": "mails", "permissions": permissions, "commands": ["mail.*"] });
    let token = app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
    let narrowed = App { token: token["token"].as_str().expect("a token").to_owned(), ..app.clone() };
    let reply = narrowed.ask(&server, "PUT", "/api/schedules/night", Some(&nightly));
    let problem = reply.json();
    let detail = "the token is for some commands only, and a schedule that resyncs is of no command";
    assert_eq!((reply.status, &problem["detail"]), (403, &json!(detail)), "{problem}");
    app.unwatch(&server, &watch);
    assert_eq!(app.ask(&server, "GET", "/api/schedules/night", None).status, 404, "it went with its watch");
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
    let watch = app.watch(&server, &Project::with(&[("a", "1")]));
    let resync = ["add", "weekly", "--cron", "@weekly", "--resync", &watch];
    let (done, made, said) = run(&resync);
    assert!(done && made["repository_id"] == watch, "{said} {made}");
    let (done, _, said) = run(&[&resync[..], &["--replace", "--command", "x"]].concat());
    assert!(!done && said.contains("--command"), "{said}");
    let (done, _, said) = run(&["add", "none", "--cron", "@weekly"]);
    assert!(!done && said.contains("--command"), "{said}");
    let paused = run(&["pause", "nightly"]).1;
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &json!([])));
    assert_eq!(run(&["resume", "nightly"]).1["paused"], false);
    assert_eq!(run(&["show", "nightly"]).1["cron"], "0 3 * * mon-fri");
    assert!(run(&["remove", "nightly"]).0);
    let (done, _, said) = run(&["show", "nightly"]);
    assert!(!done && said.contains("not found"), "{said}");
}
