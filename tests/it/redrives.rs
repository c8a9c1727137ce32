//! Dead letters by the thousand: searched, counted, sent again over a kill. How many is a dial,
//! `TIDINGS_STORY_LETTERS`: with a million this is the acceptance of redrives without a cap.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    database, length,
    patience::eventually,
    project::Project,
    server::Server,
    subscriber::{KEY, Subscriber},
};

/// Letters where nobody says how many: three steps of marking, six rounds.
const LETTERS: u64 = 6_000;
/// Changes that a kill may repeat.
const REPEATS_MAX: u64 = 64;

/// One letter of a path that the branch has, all others of paths that it lacks, as if their deletes
/// had been given up. The blob is that of the text `old`.
const PARKED: &str = "with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < ?)
    insert into dead_letter (id, app_id, watch_id, cursor_id, round, position, path, operation, delivery_id,
      reason, status, before_mode, before_blob, http_status, excerpt, created_at)
    select 'dead_' || printf('%026d', i), w.app_id, w.id, c.id, c.last_round, i,
      case i when 0 then cast('kept' as blob) else cast(printf('gone/%07d', i) as blob) end,
      case i when 0 then 'create' else 'delete' end, 'dlv_' || printf('%052d', i), 'failing', 'open',
      case i when 0 then null else 33188 end, case i when 0 then null else '489ce0f857e7634a0eb9f328265a3e91fad49f61' end, 500, 'no', c.created_at
    from n, cursor c join watch w on w.id = c.watch_id";

/// What arrived of redrives, by the number of the letter: memory for a million of them.
#[derive(Default)]
struct Seen {
    /// The event of each letter.
    events: HashMap<u64, String>,
    /// Arrivals of an event that was there before.
    repeats: u64,
    /// Letters that came under a second event.
    again: Vec<u64>,
    /// The content of the path that the branch has.
    kept: Vec<String>,
}

/// A receiver that takes everything and keeps little of it.
struct Counter {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Counter {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let notes = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                thread::spawn(move || serve(stream, &notes));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("unpoisoned")
    }
}

/// Until the other side ends the connection.
fn serve(stream: TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        note(&mut seen.lock().expect("unpoisoned"), &serde_json::from_slice(&body).expect("JSON"));
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

fn note(seen: &mut Seen, body: &Value) {
    let event = &body["event"];
    let Some(letter) = event["replay_of"].as_str() else { return };
    let letter: u64 = letter.trim_start_matches("dlv_").parse().expect("a number");
    let id = event["id"].as_str().expect("an id").to_owned();
    if letter == 0 {
        seen.kept.push(body["file"]["content"].as_str().unwrap_or_default().to_owned());
    }
    match seen.events.get(&letter) {
        None => drop(seen.events.insert(letter, id)),
        Some(known) if *known == id => seen.repeats += 1,
        Some(_) => seen.again.push(letter),
    }
}

#[test]
fn dead_letters_without_a_cap_are_each_sent_once_more_over_a_kill() {
    let letters = length("TIDINGS_STORY_LETTERS", LETTERS, LETTERS / 3);
    let patience = Duration::from_secs(120 + letters / 100);
    let project = Project::with(&[("kept", "old")]);
    let counter = Counter::start();
    let mut server = Server::prepare().with("telemetry.log_filter", "info");
    server.run();
    let more = json!({ "base_url": format!("http://{}", counter.address), "client_auth_key": KEY });
    let app = App::onboard_with(&server, &Subscriber::start(), &more);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    project.write("kept", b"new");
    app.wait_until_held(&server, &id, &project.commit("newer than what was given up"));
    server.terminate();
    database::change_with(&server, PARKED, &[i64::try_from(letters).expect("small")]);
    server.run();

    let began = Instant::now();
    let path = "/api/dead-letters/redrive";
    let dry = app.ask(&server, "POST", path, Some(&json!({ "dry_run": true, "path_glob": "gone/*1" })));
    assert_eq!((dry.status, &dry.json()["dry_run"]), (200, &json!(true)));
    assert!(dry.json()["at_least"] == true || dry.json()["would_request"] == letters.div_ceil(10));
    assert_eq!(app.ask(&server, "GET", "/api/dead-letters/redrives", None).json()["items"], json!([]));
    let asked = app.ask(&server, "POST", path, None);
    assert_eq!(asked.status, 202, "{}", asked.json());
    let progress =
        format!("/api/dead-letters/redrives/{}", asked.json()["redrive_id"].as_str().expect("an id"));
    let shown = |server: &Server| {
        let shown = app.ask(server, "GET", &progress, None).json();
        let of = |name: &str| shown[name].as_u64().expect("a number");
        assert_eq!(of("asked"), of("sent") + of("left"), "{shown}");
        (shown["state"] == "done").then_some(shown)
    };
    eventually("half of the letters", patience, || {
        (counter.seen().events.len() as u64 > letters / 2).then_some(())
    });
    let resident = server.resident();
    server.kill();
    server.run();
    let done = eventually("end of the redrive", patience, || shown(&server));

    assert_eq!((&done["asked"], &done["sent"], &done["left"]), (&json!(letters), &json!(letters), &json!(0)));
    let seen = counter.seen();
    assert_eq!((seen.events.len() as u64, seen.again.len()), (letters, 0));
    assert!(seen.repeats <= REPEATS_MAX, "a kill repeated {}", seen.repeats);
    assert!(
        seen.kept.iter().all(|content| content == "new"),
        "older content went over newer: {:?}",
        seen.kept
    );
    assert!(!seen.kept.is_empty());
    let grown = server.resident().max(resident) >> 20;
    println!("{letters} letters in {:?}, {} repeats, {grown} MiB resident", began.elapsed(), seen.repeats);
}
