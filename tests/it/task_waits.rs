//! Claims that wait: first come, first served, nobody twice; clients that leave take their place along, and
//! those that leave while they are answered lose nothing.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    support::{
        api::App,
        dice::Dice,
        patience::{SOON, eventually},
        server::Server,
        setting,
    },
    tasks::{app, ask, claim, create, say},
};

/// Waiting claims, unless `TIDINGS_STORY_WAITING` says otherwise.
const WAITING: u64 = 100;
/// How long claims may take to get in line: they wait for a minute, in which the last one must be answered. A
/// slow machine makes the line shorter.
const IN_LINE_WITHIN: Duration = Duration::from_secs(20);
/// The shortest line that says something.
const WAITING_MIN: usize = 15;

/// A server to which one address may hold very many connections.
fn crowded() -> Server {
    let mut server = Server::prepare()
        .with("server.connections_per_address_max", "4000")
        .with("server.connections_max", "4000");
    server.run();
    server
}

/// The answer to a waiting claim, which has tasks.
fn answered(stream: &mut TcpStream) -> String {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    while !text.ends_with(b"}]}") && !text.ends_with(b"0\r\n\r\n") {
        let count = stream.read(&mut part).expect("an answer");
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The payload of the one task that a waiting claim was given, and its attempt.
fn answer(stream: &mut TcpStream) -> (u64, u64) {
    let text = answered(stream);
    assert!(text.starts_with("HTTP/1.1 200") && text.matches("\"payload\"").count() == 1, "{text}");
    let number = |name: &str| {
        let (_, rest) = text.split_once(&format!("\"{name}\":")).expect("the field");
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).expect("more");
        rest[..end].parse().expect("a number")
    };
    (number("payload"), number("attempt"))
}

#[test]
fn waiting_claims_are_served_in_order_and_nobody_twice() {
    let waiting = usize::try_from(setting("TIDINGS_STORY_WAITING").unwrap_or(WAITING)).expect("a number");
    let server = crowded();
    let app = app(&server);
    let began = Instant::now();
    let mut line: Vec<Option<TcpStream>> = Vec::new();
    for place in 0..waiting {
        if place >= WAITING_MIN && began.elapsed() > IN_LINE_WITHIN {
            println!("a line of {place} claims: this machine is slow");
            break;
        }
        line.push(Some(waiting_claim(&server, &app, "line")));
        // In line before the next one comes.
        eventually("claim that waits", SOON, || in_line(&server, place + 1).then_some(()));
    }
    // Each seventh leaves, wherever it stands.
    line.iter_mut().step_by(7).for_each(|stream| *stream = None);
    let mut left: Vec<TcpStream> = line.into_iter().flatten().collect();
    eventually("line without those that left", SOON, || in_line(&server, left.len()).then_some(()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(50), "claims wait for a minute, and the line took {took:?}");
    for (number, stream) in left.iter_mut().enumerate() {
        create(&server, &app, &json!({ "command": "line", "payload": number }));
        assert_eq!(answer(stream), (number as u64, 1), "the oldest claim, and the first attempt");
    }
    let queue = app.ask(&server, "GET", "/api/queues/line", None).json();
    assert_eq!((&queue["counts"]["claimed"], &queue["counts"]["ready"]), (&json!(left.len()), &json!(0)));
}

#[test]
fn who_leaves_while_the_claim_is_answered_loses_no_task() {
    let waiting = setting("TIDINGS_STORY_WAITING").unwrap_or(WAITING) / 2;
    let server = crowded();
    let app = app(&server);
    let begin = || {
        claim_that_waits(
            &server,
            &app,
            &json!({ "commands": ["race"], "wait_seconds": 60,
        "claim_seconds": 2 }),
        )
    };
    let mut line: Vec<TcpStream> = (0..waiting).map(|_| begin()).collect();
    eventually("claims that wait", SOON, || {
        in_line(&server, usize::try_from(waiting).expect("a number")).then_some(())
    });
    // Each create is answered to a client that leaves at this moment.
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..waiting {
                create(&server, &app, &json!({ "command": "race", "payload": number }));
            }
        });
        for stream in line.drain(..) {
            thread::sleep(Duration::from_millis(2));
            drop(stream);
        }
    });
    let mut seen = BTreeSet::new();
    eventually("every task with a worker that is there", SOON, || {
        for task in claim(&server, &app, &json!({ "commands": ["race"], "count": 100, "wait_seconds": 1 })) {
            // Given to the one that left, and run out; or given back, or never given.
            assert!((1..=2).contains(&task["attempt"].as_u64().expect("a number")), "{task}");
            let number = task["payload"].as_u64().expect("a number");
            assert_eq!(say(&server, &app, &task, "complete", json!({})).0, 200);
            assert!(seen.insert(number), "{number} came twice");
        }
        (seen.len() as u64 == waiting).then_some(())
    });
}

/// Whether this many claims wait, as the supervision tree tells.
fn in_line(server: &Server, count: usize) -> bool {
    let token = std::fs::read_to_string(server.data().join("admin-token")).expect("a token");
    let tree = server.ask("GET", "/api/admin/tree", Some(token.trim()), None).expect("an answer");
    String::from_utf8_lossy(&tree.message.body).contains(&format!("\"{count} wait\""))
}

#[test]
fn a_token_that_ends_while_it_waits_gets_nothing_and_one_of_other_commands_changes_nothing() {
    let server = Server::start();
    let app = app(&server);
    let narrowed = |commands: Value| {
        let body = json!({ "name": "w", "permissions": ["tasks:claim", "tasks:read"], "commands": commands });
        let made = app.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
        (
            made["token_id"].as_str().expect("an id").to_owned(),
            made["token"].as_str().expect("one").to_owned(),
        )
    };
    let (id, token) = narrowed(json!(["mail"]));
    let wanted = json!({ "commands": ["mail"], "wait_seconds": 30 });
    let answer = thread::scope(|scope| {
        let ask = || server.ask("POST", "/api/tasks/claim", Some(&token), Some(&wanted)).expect("an answer");
        let waiting = scope.spawn(ask);
        eventually("the claim waits", SOON, || in_line(&server, 1).then_some(()));
        assert_eq!(app.ask(&server, "DELETE", &format!("/api/app/tokens/{id}"), None).status, 204);
        create(&server, &app, &json!({ "command": "mail", "payload": "after the end" }));
        waiting.join().expect("an answer")
    });
    assert_eq!(answer.status, 401, "{}", answer.json());
    let given = claim(&server, &app, &json!({ "commands": ["mail"], "wait_seconds": 20 }));
    assert_eq!((&given[0]["payload"], &given[0]["attempt"]), (&json!("after the end"), &json!(1)));

    let (_, other) = narrowed(json!(["pictures"]));
    let body = json!({ "token": given[0]["token"] });
    for verb in ["heartbeat", "complete", "nack", "abandon"] {
        let path = format!("/api/tasks/{}/{verb}", given[0]["id"].as_str().expect("an id"));
        let answer = server.ask("POST", &path, Some(&other), Some(&body)).expect("an answer");
        assert_eq!(answer.status, 404, "{verb}: {}", answer.json());
    }
    let items = json!({ "items": [body] });
    let answer = server.ask("POST", "/api/tasks/batch/complete", Some(&other), Some(&items));
    assert_eq!(answer.expect("an answer").json()["items"][0]["status"], 404);
    assert_eq!(say(&server, &app, &given[0], "complete", json!({})).0, 200);
}

/// A connection whose claim waits for a task of this command.
fn waiting_claim(server: &Server, app: &App, command: &str) -> TcpStream {
    claim_that_waits(server, app, &json!({ "commands": [command], "wait_seconds": 60 }))
}

fn claim_that_waits(server: &Server, app: &App, wanted: &Value) -> TcpStream {
    let wanted = wanted.to_string();
    let head = format!(
        "POST /api/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        app.token,
        wanted.len()
    );
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

#[test]
fn claims_that_wait_take_no_connection_from_anybody() {
    let mut server = Server::prepare()
        .with("server.connections_max", "8")
        .with("server.connections_per_address_max", "16")
        .with("server.waiting_connections_max", "20");
    server.run();
    let app = app(&server);
    let mut waiting: Vec<_> = (0..20)
        .map(|place| {
            let stream = waiting_claim(&server, &app, "few");
            // One of them is never too many for its address, if the server looks at it before the next one.
            eventually("claim that waits", SOON, || in_line(&server, place + 1).then_some(()));
            stream
        })
        .collect();
    let patient = json!({ "commands": ["other"], "wait_seconds": 1 });
    let refused = eventually("no claim may wait any more", SOON, || {
        let (status, told) = ask(&server, &app, "/api/tasks/claim", &patient)?;
        (status == 429).then_some(told)
    });
    assert!(refused.to_string().contains("server.waiting_connections_max"), "{refused}");
    let (status, told) =
        ask(&server, &app, "/api/tasks/claim", &json!({ "commands": ["other"] })).expect("an answer");
    assert_eq!(status, 204, "a claim that does not wait needs no place: {told}");
    for number in 0..20 {
        create(&server, &app, &json!({ "command": "few", "payload": number }));
    }
    let given: Vec<String> = waiting.iter_mut().map(answered).collect();
    assert!(given.iter().all(|text| text.starts_with("HTTP/1.1 200") && text.contains("\"payload\"")));
    let closed = given.iter().filter(|text| text.to_lowercase().contains("connection: close")).count();
    assert!(closed > 0, "those that found no ordinary place end with their answer: {given:?}");
    assert!((0..20).all(|number| given.iter().any(|text| text.contains(&format!("\"payload\":{number},")))));
}

/// Claims one task after another until the server is gone. Returns the number of tasks; `all` counts those of
/// all workers.
fn claimed_until_the_end(server: &Server, app: &App, wanted: &Value, all: &AtomicU64) -> u64 {
    let mut count = 0;
    while let Some((status, given)) = ask(server, app, "/api/tasks/claim", wanted) {
        match status {
            200 => {
                let given = given["tasks"].as_array().expect("a list").len() as u64;
                all.fetch_add(given, Ordering::Relaxed);
                count += given;
            }
            // Nothing is ready, or the server stops.
            204 | 503 => {}
            status => panic!("{status}: {given}"),
        }
    }
    count
}

#[test]
fn a_server_that_stops_leaves_no_task_claimed_for_nobody() {
    const ROUNDS: u64 = 6;
    const TASKS: usize = 1_000;
    let mut server = Server::start();
    let app = app(&server);
    let mut dice = Dice::thrown("stopping a server that hands out tasks");
    let mut with_workers = 0;
    for round in 1..=ROUNDS {
        for _ in 0..TASKS / 100 {
            let tasks = vec![json!({ "command": "busy" }); 100];
            let made = ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("an answer");
            assert_eq!(made.0, 201);
        }
        let all = AtomicU64::new(0);
        let work = |worker: u64| {
            let wanted = json!({ "commands": ["busy"], "claim_seconds": 3_600, "wait_seconds": worker % 2 });
            claimed_until_the_end(&server, &app, &wanted, &all)
        };
        let work = &work;
        with_workers += thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || work(worker))).collect();
            // In the middle of the work, whenever that begins. Workers end with the server alone: no panic here.
            let until = Instant::now() + SOON;
            while all.load(Ordering::Relaxed) < 2 && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(dice.up_to(Duration::from_millis(100)));
            server.signal(Signal::TERM);
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum::<u64>()
        });
        assert!(server.ended().success());
        server.run();
        let queue = app.ask(&server, "GET", "/api/queues/busy", None).json();
        assert_eq!(queue["counts"]["claimed"], with_workers, "round {round}: {queue}");
    }
    assert!(with_workers > ROUNDS, "so few claims prove nothing");
}

#[test]
fn who_hangs_up_while_tasks_are_written_to_it_loses_nothing() {
    const TASKS: usize = 96;
    let server = Server::start();
    let app = app(&server);
    // More than sockets hold: the answer is on its way until it is read.
    let large = "x".repeat(250 << 10);
    for _ in 0..TASKS / 12 {
        let tasks = vec![json!({ "command": "large", "payload": large }); 12];
        let made = ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": tasks })).expect("an answer");
        assert_eq!(made.0, 201);
    }
    let wanted = json!({ "commands": ["large"], "count": TASKS, "claim_seconds": 3_600 }).to_string();
    let head = format!(
        "POST /api/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{wanted}",
        app.token,
        wanted.len()
    );
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut begun = [0; 16];
    stream.read_exact(&mut begun).expect("the answer begins");
    assert!(begun.starts_with(b"HTTP/1.1 200"), "{begun:?}");
    drop(stream);
    let queue = eventually("tasks that are given back", SOON, || {
        let queue = app.ask(&server, "GET", "/api/queues/large", None).json();
        (queue["counts"]["ready"] == TASKS).then_some(queue)
    });
    assert_eq!(queue["counts"]["claimed"], 0);
    let given = claim(&server, &app, &json!({ "commands": ["large"] }));
    assert_eq!(given[0]["attempt"], 1, "no attempt is counted");
}
