//! A table of hosts that lie, drip, flood, cut, redirect and stall, all at once against one server: meanwhile
//! an app whose host is honest is served as before, memory, disk and processor time stay small, and SIGTERM
//! ends the server in time. When the hosts are well again, every app has what git says, and nobody was told
//! anything wrong. Some of their misdeeds alone are in `git_hosts` and `hostile_hosts`, eighty of them at
//! once in `slow_hosts`.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    isolation::usual,
    support::{
        api::App,
        dice::Dice,
        git_host::Fault,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::Subscriber,
    },
};

mod answers;

/// How long the others misbehave at least.
const LASTS: Duration = Duration::from_secs(8);
/// Commits of the neighbour meanwhile, at least.
const TURNS: u64 = 5;
/// How much more memory may ever be resident than before.
const MEMORY: u64 = 96 << 20;
/// How much more may lie in the data directory.
const DISK: u64 = 48 << 20;
/// `drain_deadline` of the API and of deliveries.
const DRAIN: Duration = Duration::from_secs(5);
/// What a stop may take besides, on a busy machine.
const MARGIN: Duration = Duration::from_secs(20);
/// Largest fetch and largest listing of the server, in bytes.
const FETCH_MAX: usize = 14 << 20;
const LISTING_MAX: usize = 1 << 20;

/// This many requests a host misbehaves at that is well again by itself.
const CUT: u64 = 3;

/// What a host does from now on, and what its app is told then; empty: it goes on by itself after [`CUT`]
/// requests.
#[derive(Clone)]
struct Misdeed {
    what: &'static str,
    fault: Fault,
    word: &'static str,
}

/// All of them. One cuts its answers at this place, in 256ths of them.
fn misdeeds(place: u8) -> Vec<Misdeed> {
    let says = |bytes: Vec<u8>| Fault::Says(&[], bytes.into());
    let zipped = Fault::Says(&[("content-encoding", "gzip")], answers::bomb());
    let elsewhere = Fault::Moved("http://127.0.0.1:9/o/r.git".to_owned());
    [
        ("lists by the byte", Fault::Drip(10), "took too long"),
        ("lists without end", Fault::FloodOfRefs(4 * LISTING_MAX), "the answer has more than"),
        ("packs without end", Fault::Pack(answers::flood()), "the answer has more than"),
        ("tells its progress for ever", Fault::ProgressAlone, "took too long"),
        ("redirects", elsewhere, "redirect"),
        ("answers with a bomb of gzip", zipped, "not made of packets"),
        (
            "sends the pack of another repository",
            Fault::Pack(answers::another()),
            "neither in the mirror nor at the Git host",
        ),
        ("answers version 2 with version 0", says(answers::advertisement()), "not a ref"),
        ("answers with nothing", says(Vec::new()), "ends early"),
        ("asks for patience", Fault::Status(503, Some("1")), "asks to wait"),
        ("hangs", Fault::Hang, "took too long"),
        ("answers after the deadline", Fault::Late(Duration::from_secs(12)), "took too long"),
        (
            "floods with shallow lines",
            Fault::SaysToFetch(answers::shallow_lines()),
            "at the edge of the history",
        ),
        ("sends a delta of what nobody has", Fault::Pack(answers::thin()), "bad pack"),
        ("answers HTML as Git", Fault::Html, "not made of packets"),
        ("stalls in its answer", Fault::Stall, "took too long"),
        ("cuts some answers", Fault::CutAt(place), ""),
    ]
    .map(|(what, fault, word)| Misdeed { what, fault, word })
    .into()
}

/// What lies in a folder, in bytes; files that go meanwhile count as nothing.
fn bytes_in(folder: &Path) -> u64 {
    let entries =
        fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let size = |entry: &fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => bytes_in(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    };
    entries.iter().map(size).sum()
}

/// A host that will misbehave, and the watch of its repository.
struct Odd {
    misdeed: Misdeed,
    host: Host,
    project: Project,
    id: String,
}

impl Odd {
    fn publish(&self) {
        self.host.publish(&self.project, "o/r");
    }

    /// Misbehaves from now on, and has something new.
    fn begin(&self) {
        self.project.write("b", &Dice::of(2).bytes(100_000));
        self.project.commit("second");
        match self.misdeed.word {
            "" => self.host.misbehave_for(self.misdeed.fault.clone(), CUT),
            _ => self.host.misbehave(Some(self.misdeed.fault.clone())),
        }
        self.publish();
    }

    /// Waits until its watch says why it does not go on, or goes on.
    fn wait_for_word(&self, server: &Server, app: &App) {
        let Misdeed { what, word, .. } = self.misdeed;
        if word.is_empty() {
            app.wait_until_held(server, &self.id, &self.project.head());
            return;
        }
        // On a busy machine an answer may be late before it is wrong, and a probe comes once a minute at least.
        let mut last = String::new();
        eventually(&format!("{word:?} of a host that {what}"), 3 * SOON, || {
            let said = reason(app, server, &self.id)?;
            if said != last {
                println!("{what}: {said}");
                last.clone_from(&said);
            }
            said.contains(word).then_some(())
        });
    }
}

/// Deadlines and limits short enough for a story.
fn impatient() -> Server {
    let (drain, fetch, listing) =
        (format!("{}s", DRAIN.as_secs()), FETCH_MAX.to_string(), LISTING_MAX.to_string());
    let mut server = Server::prepare()
        .with("git.poll_min", "300ms")
        .with("git.poll_max", "600ms")
        .with("git.read_timeout", "4s")
        .with("git.poll_timeout", "6s")
        .with("git.fetch_timeout", "10s")
        .with("git.least_rate_window", "2s")
        .with("git.fetch_max_bytes", &fetch)
        .with("git.listing_max_bytes", &listing)
        .with("server.drain_deadline", &drain)
        .with("delivery.drain_deadline", &drain);
    server.run();
    server
}

#[test]
fn odd_hosts_all_at_once_cost_little_and_hold_up_neither_a_neighbour_nor_the_end() {
    let began = Instant::now();
    let stage = |what: &str| println!("{what}: {:?} after the beginning", began.elapsed());
    let mut server = impatient();
    let side = Subscriber::start();
    let app = App::onboard(&server, &side);
    let neighbour = Neighbour::begin(&server);
    let odd = begin(&server, &app);
    let alone =
        (0..3).map(|round| neighbour.deliver(&server, &format!("alone {round}"))).max().expect("three");
    let (memory, disk) = (server.resident(), bytes_in(&server.data()));
    stage("everything is watched");

    let (work, beginning) = (server.processor_time(), Instant::now());
    odd.iter().for_each(Odd::begin);
    stage("the hosts misbehave");
    let until = Instant::now() + LASTS;
    let mut beside = Vec::new();
    for round in (0..).take_while(|round| *round < TURNS || Instant::now() < until) {
        beside.push(neighbour.deliver(&server, &format!("beside {round}")));
        let added = bytes_in(&server.data()).saturating_sub(disk);
        assert!(added < DISK, "{added} bytes were added to the data directory");
    }
    assert!(
        usual(&beside) < alone * 4 + Duration::from_secs(10),
        "{beside:?} beside odd hosts, {alone:?} alone"
    );
    odd.iter().for_each(|odd| odd.wait_for_word(&server, &app));
    stage("every host was met");
    let grown = server.peak_resident().saturating_sub(memory);
    let added = bytes_in(&server.data()).saturating_sub(disk);
    let (worked, span) = (server.processor_time() - work, beginning.elapsed());
    println!("{} KiB of memory and {} KiB of disk more", grown >> 10, added >> 10);
    println!("{worked:?} of processor time in {span:?}");
    assert!(worked < span, "{worked:?} of processor time in {span:?} are more than one core");
    assert!(grown < MEMORY, "{grown} bytes more than before were resident");
    assert!(added < DISK, "{added} bytes were added to the data directory");

    let (status, took) = server.terminate();
    stage("the server ended");
    assert!(status.success(), "{status}");
    assert!(took < DRAIN + MARGIN, "the end took {took:?}");
    heal(&mut server, &app, &odd);
    odd.iter().for_each(|odd| side.wait_for_tree(&odd.id, &odd.project.tree("HEAD")));
    side.assert_straight();
    neighbour.side.assert_straight();
    stage("every host is well");
}

/// Somebody whose host is honest.
struct Neighbour {
    app: App,
    side: Subscriber,
    host: Host,
    project: Project,
    id: String,
}

impl Neighbour {
    fn begin(server: &Server) -> Self {
        let (side, host, project) = (Subscriber::start(), Host::start_apart(), Project::with(&[("a", "0")]));
        let app = App::onboard(server, &side);
        host.publish(&project, "o/r");
        let id = app.watch_with(server, &json!({ "url": host.url("o/r") }));
        app.wait_until_held(server, &id, &project.head());
        Self { app, side, host, project, id }
    }

    /// How long a commit takes until it is delivered.
    fn deliver(&self, server: &Server, text: &str) -> Duration {
        let began = Instant::now();
        self.project.write("a", text.as_bytes());
        let head = self.project.commit(text);
        self.host.push_main(&self.project, "o/r");
        self.app.wait_until_held(server, &self.id, &head);
        began.elapsed()
    }
}

/// Every host with its repository, watched while it is still well.
fn begin(server: &Server, app: &App) -> Vec<Odd> {
    let place = u8::try_from(Dice::thrown("odd hosts").below(256)).expect("below 256");
    let hosts = misdeeds(place).into_iter().map(|misdeed| {
        let (host, project) = (Host::start_apart(), Project::with(&[("a", "1")]));
        host.publish(&project, "o/r");
        let id = app.watch_with(server, &json!({ "url": host.url("o/r") }));
        Odd { misdeed, host, project, id }
    });
    let odd: Vec<Odd> = hosts.collect();
    odd.iter().for_each(|odd| drop(app.wait_until_held(server, &odd.id, &odd.project.head())));
    odd
}

/// Why a watch does not go on, if somebody said so.
fn reason(app: &App, server: &Server, id: &str) -> Option<String> {
    let shown = app.repository(server, id);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(&shown["last_error"]).or_else(|| text(&shown["branches"][0]["reason"]))
}

/// The hosts are well, and a server that starts finds everything. Its breakers would wait for a minute.
fn heal(server: &mut Server, app: &App, odd: &[Odd]) {
    odd.iter().for_each(|odd| odd.host.misbehave(None));
    server.run();
    let breakers = server.ask_as_admin("GET", "/api/admin/breakers").json();
    for breaker in
        breakers["items"].as_array().expect("breakers").iter().filter(|breaker| breaker["kind"] == "source")
    {
        let id = breaker["id"].as_str().expect("an id");
        let reply = server.ask_as_admin("POST", &format!("/api/admin/breakers/source/{id}/reset"));
        // 404: it has closed by itself meanwhile.
        assert!(matches!(reply.status, 202 | 404), "{}", reply.json());
    }
    odd.iter().for_each(|odd| app.tell(server, &odd.id, "scan"));
    odd.iter().for_each(|odd| drop(app.wait_until_held(server, &odd.id, &odd.project.head())));
}
