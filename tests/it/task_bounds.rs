//! Bounds of queues and keys of tasks over crowds, replicas, kills and a clock that moves: a limit of claims
//! and a rate are never exceeded, one key makes one task, and holds for a day after its task ended.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidings_actors::time::Timestamp;

use crate::{
    support::{
        api::App,
        balancer::Balancer,
        dice::Dice,
        fleet::{Fleet, pairs},
        http, kills,
        patience::{SOON, SetAtEnd, eventually},
        server::Server,
        setting,
    },
    tasks::{app, ask, claim, create, say, shown},
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 12;
/// The longest time between two kills.
const LIFE: Duration = Duration::from_millis(900);
/// Creates with one key at once, unless `TIDINGS_STORY_CREATES` says otherwise.
const CREATES: u64 = 100;
/// The bounds: claims at once, and claims in any second.
const CLAIMED_MAX: i64 = 2;
const RATE: usize = 50;
/// How far the clocks of two replicas on one machine may be apart, in milliseconds.
const CLOCKS_APART: i64 = 50;

/// Asks at an address; `None`: there was no answer.
fn ask_at(door: SocketAddr, app: &App, path: &str, body: &Value) -> Option<(u16, Value)> {
    let reply = http::ask(door, "POST", path, Some(&app.token), Some(body)).ok()?;
    let is_empty = reply.message.body.is_empty();
    let answer = if is_empty { Value::Null } else { serde_json::from_slice(&reply.message.body).ok()? };
    Some((reply.status, answer))
}

/// Workers of a queue whose claims are bounded; `held`: tasks that workers have, as far as the workers know.
fn work_on_few(door: SocketAddr, app: &App, is_over: &AtomicBool, held: &AtomicI64) {
    while !is_over.load(Ordering::Relaxed) {
        let wanted = json!({ "commands": ["few"], "count": 3, "wait_seconds": 1, "claim_seconds": 5 });
        let asked = Instant::now();
        let Some((200, given)) = ask_at(door, app, "/api/tasks/claim", &wanted) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        for task in given["tasks"].as_array().expect("a list") {
            if asked.elapsed() > Duration::from_secs(4) {
                // The answer or the servers were away: the claim may be over by now, and is left to run out.
                continue;
            }
            let now = held.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= CLAIMED_MAX, "{now} tasks are with workers");
            thread::sleep(Duration::from_millis(3));
            held.fetch_sub(1, Ordering::SeqCst);
            let path = format!("/api/tasks/{}/complete", task["id"].as_str().expect("an id"));
            let word = json!({ "token": task["token"] });
            // Until it is heard, or came too late because servers were away.
            eventually("word that is heard", SOON, || match ask_at(door, app, &path, &word)? {
                (200 | 409, _) => Some(()),
                (503, _) => None,
                other => panic!("{other:?}"),
            });
        }
    }
}

/// Workers of a queue with a rate.
fn work_on_paced(door: SocketAddr, app: &App, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let wanted = json!({ "commands": ["paced"], "count": 20, "wait_seconds": 1, "claim_seconds": 600 });
        let Some((200, given)) = ask_at(door, app, "/api/tasks/claim", &wanted) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let word = |task: &Value| json!({ "token": task["token"] });
        let items: Vec<Value> = given["tasks"].as_array().expect("a list").iter().map(word).collect();
        // An answer that is lost with its server leaves tasks claimed, which counts for nothing here.
        drop(ask_at(door, app, "/api/tasks/batch/complete", &json!({ "items": items })));
    }
}

/// Keeps both queues full, also where the machine takes long for each batch.
fn produce(door: SocketAddr, app: &App, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let tasks: Vec<Value> = [("few", 15), ("paced", 75)]
            .iter()
            .flat_map(|(command, count)| vec![json!({ "command": command }); *count])
            .collect();
        drop(ask_at(door, app, "/api/tasks/batch", &json!({ "tasks": tasks })));
        thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn a_limit_of_claims_and_a_rate_hold_over_two_replicas_and_kills() {
    // On a busy machine the database may take a second to answer, which a short lease does not bear.
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
    let mut dice = Dice::thrown("killing replicas whose queues are bounded");
    let app = app(&fleet.servers[0]);
    for (queue, bound) in [("few", json!({ "max_claimed": CLAIMED_MAX })), ("paced", json!({ "rate": RATE }))]
    {
        let path = format!("/api/queues/{queue}");
        assert_eq!(app.ask(&fleet.servers[0], "PUT", &path, Some(&bound)).status, 200);
    }
    let addresses = |fleet: &Fleet| fleet.servers.iter().map(Server::address).collect::<Vec<_>>();
    let door = Balancer::to(addresses(&fleet));
    let (is_over, held, most) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    let url = fleet.database.url.clone();
    thread::scope(|scope| {
        let (app, is_over, held, most, at) = (&app, &is_over, &held, &most, door.address());
        scope.spawn(move || produce(at, app, is_over));
        for _ in 0..4 {
            scope.spawn(move || work_on_few(at, app, is_over, held));
            scope.spawn(move || work_on_paced(at, app, is_over));
        }
        scope.spawn(move || {
            let text = "select 'few', count(*) from task t join queue q on q.id = t.queue_id
                        where q.command = 'few' and t.state = 'claimed'";
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(pairs(&url, text)[0].1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _end = SetAtEnd(is_over);
        for _ in 0..kills(KILLS) {
            thread::sleep(dice.up_to(LIFE));
            let victim = usize::try_from(dice.below(2)).expect("one of two");
            fleet.servers[victim].kill();
            door.lead_to(vec![fleet.servers[1 - victim].address()]);
            fleet.servers[victim].run();
            door.lead_to(addresses(&fleet));
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), CLAIMED_MAX, "the bound is used, and not exceeded");
    let moments = claimed_at(&fleet.database.url);
    let most = busiest_second(&moments);
    println!("{} claims of the paced queue, at most {most} in a second", moments.len());
    assert!(most <= RATE, "{most} claims in a second");
    // Workers asked for more than the rate allows, and tasks were there: only the rate held them back.
    assert!(most > RATE / 3, "at most {most} claims in a second: the rate bounded nothing");
    let queue = app.ask(&fleet.servers[0], "GET", "/api/queues/paced", None).json();
    assert!(
        queue["counts"]["ready"].as_u64().is_some_and(|ready| ready > 0),
        "workers lacked tasks: {queue}"
    );
    let whole = moments.last().zip(moments.first()).map_or(0, |(last, first)| last - first);
    let kept = usize::try_from(whole).expect("a time").div_ceil(1_000) * RATE;
    assert!(moments.len() <= kept + RATE, "{} claims in {whole} ms", moments.len());
}

/// When the tasks of the paced queue were claimed, in milliseconds, oldest first.
fn claimed_at(url: &str) -> Vec<i64> {
    let text = "select 'paced', claimed_at from (
                  select c.claimed_at, t.queue_id from task_claim c join task t on t.id = c.task_id
                  union all select t.claimed_at, t.queue_id from task t
                  where t.state in ('claimed', 'succeeded')) claims
                join queue q on q.id = claims.queue_id where q.command = 'paced' order by claimed_at";
    pairs(url, text).into_iter().map(|(_, at)| at).collect()
}

/// The most moments within a second, which is measured with two clocks.
fn busiest_second(moments: &[i64]) -> usize {
    let within = |(first, begin): (usize, &i64)| {
        let end = moments.partition_point(|moment| moment - begin < 1_000 - CLOCKS_APART);
        end - first
    };
    moments.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn the_busiest_second_is_found() {
    assert_eq!(busiest_second(&[]), 0);
    assert_eq!(busiest_second(&[0, 10, 20, 1_500, 1_510]), 3);
    let too_many: Vec<i64> = (0..60).map(|number| 5_000 + number * 15).collect();
    assert!(busiest_second(&too_many) > RATE);
}

/// The answers to many creates with one key at the same moment; the payload of each is `payload(number)`.
fn at_once(
    doors: &[SocketAddr],
    app: &App,
    key: &str,
    payload: impl Fn(u64) -> u64 + Sync,
) -> Vec<(u64, u16, Value)> {
    let count = setting("TIDINGS_STORY_CREATES").unwrap_or(CREATES);
    let (barrier, answers) = (Barrier::new(usize::try_from(count).expect("few")), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 0..count {
            let door = doors[usize::try_from(number).expect("few") % doors.len()];
            let (barrier, answers, payload) = (&barrier, &answers, &payload);
            scope.spawn(move || {
                let body = json!({ "command": "keyed", "payload": payload(number), "key": key });
                barrier.wait();
                let (status, answer) = eventually("answer of a server that is not too busy", SOON, || {
                    let told = ask_at(door, app, "/api/tasks", &body).expect("an answer");
                    (told.0 != 503).then_some(told)
                });
                answers.lock().expect("sound").push((payload(number), status, answer));
            });
        }
    });
    answers.into_inner().expect("sound")
}

/// Creates with one key at once make one task; of two bodies one wins, and the other is refused.
fn keys_make_one_task(servers: &[&Server], app: &App) {
    let doors: Vec<SocketAddr> = servers.iter().map(|server| server.address()).collect();
    let answers = at_once(&doors, app, "same", |_| 7);
    let ids: BTreeSet<&str> =
        answers.iter().map(|(_, _, answer)| answer["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, status, _)| *status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, status, answer)| *status == 201 || answer["created"] == false));
    let other = json!({ "command": "keyed", "payload": 8, "key": "same" });
    let refused = app.ask(servers[0], "POST", "/api/tasks", Some(&other));
    assert_eq!(refused.status, 409, "{}", refused.json());

    let answers = at_once(&doors, app, "two bodies", |number| number % 2);
    let made: Vec<_> = answers.iter().filter(|(_, status, _)| *status == 201).collect();
    let [(winner, _, first)] = made[..] else { panic!("one is created: {answers:?}") };
    for (payload, status, answer) in &answers {
        match payload == winner {
            true => assert_eq!((&answer["id"], *status == 409), (&first["id"], false), "{answers:?}"),
            false => assert_eq!(*status, 409, "{answers:?}"),
        }
    }
    let queue = app.ask(servers[0], "GET", "/api/queues/keyed", None).json();
    assert_eq!(queue["counts"]["ready"], 2, "two keys are two tasks: {queue}");
}

#[test]
fn many_creates_with_one_key_make_one_task() {
    let mut server = Server::prepare().with("server.connections_per_address_max", "2000");
    server.run();
    keys_make_one_task(&[&server], &app(&server));
}

#[test]
fn many_creates_with_one_key_over_two_replicas_make_one_task() {
    let wide = |server: Server| server.with("server.connections_per_address_max", "2000");
    let Some(fleet) = Fleet::dressed(2, Duration::from_secs(10), wide) else { return };
    keys_make_one_task(&[&fleet.servers[0], &fleet.servers[1]], &app(&fleet.servers[0]));
}

/// Days and minutes, in seconds.
const DAY: i64 = 24 * 3_600;
const TEN_MINUTES: i64 = 600;

#[test]
fn a_key_holds_for_a_day_after_its_task_has_ended() {
    let mut server = Server::prepare().with_clock_of_its_own().with("housekeeping.interval", "1s");
    if !server.move_clock(0) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    let app = app(&server);
    let settings = json!({ "retention_seconds": 0 });
    assert_eq!(app.ask(&server, "PUT", "/api/queues/daily", Some(&settings)).status, 200);
    let keyed = json!({ "command": "daily", "payload": 1, "key": "k" });
    let (id, without) =
        (create(&server, &app, &keyed), create(&server, &app, &json!({ "command": "daily" })));
    for task in claim(&server, &app, &json!({ "commands": ["daily"], "count": 2 })) {
        assert_eq!(say(&server, &app, &task, "complete", json!({})).0, 200);
    }
    let is_gone =
        |id: &str| (app.ask(&server, "GET", &format!("/api/tasks/{id}"), None).status == 404).then_some(());
    eventually("end of the task without a key", SOON, || is_gone(&without));
    let created = |id: &str| {
        let task = shown(&server, &app, id);
        Timestamp::parsed(task["created_at"].as_str().expect("a text")).expect("RFC 3339")
    };
    server.move_clock(DAY - TEN_MINUTES);
    eventually("clock that was moved", SOON, || {
        let probe = create(&server, &app, &json!({ "command": "probe" }));
        (created(&probe).since(created(&id)) > Duration::from_secs(20 * 3_600)).then_some(())
    });
    // A task that ends now and goes at once shows that retention has looked at this moment.
    let later = create(&server, &app, &json!({ "command": "daily", "payload": 2 }));
    let task = claim(&server, &app, &json!({ "commands": ["daily"] })).remove(0);
    assert_eq!(say(&server, &app, &task, "complete", json!({})).0, 200);
    eventually("end of a later task", SOON, || is_gone(&later));
    assert_eq!(shown(&server, &app, &id)["state"], "succeeded", "its key holds");
    let (status, again) = ask(&server, &app, "/api/tasks", &keyed).expect("an answer");
    assert_eq!((status, &again["id"], &again["created"]), (200, &json!(id), &json!(false)), "{again}");
    let other = json!({ "command": "daily", "payload": 3, "key": "k" });
    assert_eq!(ask(&server, &app, "/api/tasks", &other).expect("an answer").0, 409);
    server.move_clock(DAY + TEN_MINUTES);
    eventually("end of the task with a key", SOON, || is_gone(&id));
    let (status, next) = ask(&server, &app, "/api/tasks", &keyed).expect("an answer");
    assert!(status == 201 && next["id"] != json!(id), "{next}");
}
