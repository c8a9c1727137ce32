//! Telemetry at a real collector: one trace from the hook or the poll to the receiver's header, and
//! numbers and log lines beside it.

use std::time::Instant;

use serde_json::json;

use crate::{
    endpoints::Owner,
    support::{
        collector::{Collector, Span},
        git_host::Fault,
        http,
        patience::{SOON, eventually},
        peer::{Peer, Seen, Word},
        project::Project,
        remote::Host,
        server::Server,
    },
};

const HOOK: &str = "the secret that hosts sign with";
/// The trace and the span of a caller, as it names them in `traceparent`.
const CALLER: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
const ACCESS: &str = "what-opens-the-collector";

/// A server that exports traces, a receiver, a repository at a host, and the first commit delivered.
struct World {
    collector: Collector,
    server: Server,
    peer: Peer,
    owner: Owner,
    host: Host,
    project: Project,
    id: String,
}

impl World {
    fn new(prepare: impl FnOnce(Server) -> Server) -> Self {
        let collector = Collector::start();
        let mut server =
            prepare(Server::prepare()).with("telemetry.otlp_endpoint", &collector.endpoint("traces"));
        server.run();
        let peer = Peer::plain(|_| Word::status(200));
        let owner = Owner::at(&server, Some(&peer.url()));
        let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
        host.publish(&project, "o/r");
        let body = json!({ "url": host.url("o/r"), "branch": "main" });
        let watched = owner.ask(&server, "POST", "/api/repositories", Some(&body)).json();
        let id = watched["repository_id"].as_str().expect("an id").to_owned();
        let world = Self { collector, server, peer, owner, host, project, id };
        world.wait_until_held();
        world
    }

    fn wait_until_held(&self) {
        let head = self.project.head();
        // Of a thousand files, too.
        eventually("held head", 4 * SOON, || {
            let path = format!("/api/repositories/{}", self.id);
            let shown = self.owner.ask(&self.server, "GET", &path, None).json();
            let branch = &shown["branches"][0];
            (branch["held_commit"] == head.as_str() && branch["round"].is_null()).then_some(())
        });
    }

    /// One more commit at the host.
    fn push(&self, path: &str) {
        self.project.write(path, b"content");
        self.project.commit(path);
        self.host.publish(&self.project, "o/r");
    }

    /// The request that told of this file.
    fn told_of(&self, path: &str) -> Seen {
        eventually("delivery", SOON, || {
            let named =
                |seen: &Seen| seen.path.ends_with("/create") && seen.text().contains(&format!("\"{path}\""));
            self.peer.seen().into_iter().find(named)
        })
    }

    /// Stops the server, which exports what is left; the names from the span of this request up.
    fn way_to(&mut self, seen: &Seen) -> Vec<String> {
        let header = seen.header("traceparent").to_owned();
        let parts: Vec<&str> = header.split('-').collect();
        let [version, trace, span, flags] = parts[..] else { panic!("{header:?} is no traceparent") };
        assert_eq!((version, flags), ("00", "01"), "{header}");
        self.server.terminate();
        let spans = self.collector.spans();
        let mut way = Vec::new();
        let mut next = span.to_owned();
        while !next.is_empty() && next != CALLER.1 {
            let found = spans.iter().find(|span| span.id == next);
            let Span { name, trace: of, parent, .. } =
                found.unwrap_or_else(|| panic!("no span {next} of {way:?} among {spans:#?}"));
            assert_eq!(of, trace, "{name} belongs to another trace");
            way.push(name.clone());
            next.clone_from(parent);
        }
        way
    }
}

#[test]
fn one_trace_goes_from_the_poll_to_the_receivers_header() {
    let mut world = World::new(|server| server);
    world.push("polled");
    let seen = world.told_of("polled");
    world.wait_until_held();
    assert_eq!(world.way_to(&seen), ["delivery.attempt", "lane.open", "scan"]);
}

#[test]
fn one_trace_goes_from_the_hook_to_the_receivers_header() {
    let mut world = World::new(|server| {
        server.with("git.poll_min", "1h").with("git.poll_max", "1h").with("hooks.secret", HOOK)
    });
    world.push("hooked");
    let url = world.host.url("o/r");
    let body = json!({
        "object_kind": "push", "ref": "refs/heads/main", "after": world.project.head(),
        "project": { "git_http_url": format!("{url}.git"), "web_url": url },
    })
    .to_string();
    let head = format!(
        "POST /hooks/gitlab HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-gitlab-event: Push Hook\r\n\
         traceparent: 00-{}-{}-01\r\nidempotency-key: 1\r\nx-gitlab-token: {HOOK}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        CALLER.0,
        CALLER.1,
        body.len()
    );
    let reply = http::raw(world.server.address(), head.as_bytes()).expect("an answer");
    assert_eq!(reply.status, 202, "{}", reply.json());
    let seen = world.told_of("hooked");
    world.wait_until_held();
    assert_eq!(world.way_to(&seen), ["delivery.attempt", "lane.open", "scan", "request"]);
    assert!(seen.header("traceparent").contains(CALLER.0), "the trace of the caller goes on");
    let log = world.server.log();
    let answered = log.lines().filter(|line| line.contains("request answered"));
    let of_hook: Vec<&str> = answered.filter(|line| line.contains(CALLER.0)).collect();
    assert!(of_hook.len() == 1 && of_hook[0].contains("INFO"), "{of_hook:?}");
    assert!(of_hook[0].contains("duration_ms=") && of_hook[0].contains("202"), "{of_hook:?}");
}

#[test]
fn a_flood_of_requests_that_are_refused_does_not_fill_the_log() {
    let server = Server::start();
    let ask = |token: &str| server.ask("GET", "/api/app", Some(token), None).expect("an answer").status;
    let began = Instant::now();
    for number in 0..300 {
        assert_eq!(ask(&format!("tid_wrong_{number}")), 401);
    }
    let seconds = began.elapsed().as_secs() + 1;
    let lines = || {
        let log = server.log();
        let of_401 = log.lines().filter(|line| line.contains("401"));
        let (answered, counted): (Vec<_>, Vec<_>) = of_401
            .filter(|line| line.contains("request answered") || line.contains("have no line"))
            // Stories log at debug, where every answer has its line.
            .filter(|line| line.contains("INFO"))
            .map(str::to_owned)
            .partition(|line| line.contains("request answered"));
        (answered, counted)
    };
    let (answered, _) = lines();
    let most = 10 * usize::try_from(seconds).expect("a few");
    assert!((10..=most).contains(&answered.len()), "{} lines in {seconds} seconds", answered.len());
    // Each further one may be the first of another second, and then says how many had none.
    let counted = eventually("the number of those without a line", SOON, || {
        ask("tid_wrong");
        Some(lines().1).filter(|counted| !counted.is_empty())
    });
    assert!(counted[0].contains("more requests were answered with 401"), "{counted:?}");
}

#[test]
fn notices_of_a_source_stand_below_the_scan_that_led_to_them() {
    for recovers in [false, true] {
        let mut world = World::new(|server| server.with("git.poll_min", "50ms"));
        let change = json!({ "delivery": { "sync_recovered": true } });
        world.owner.ask(&world.server, "PATCH", "/api/app", Some(&change));
        let told = |world: &World, kind: &str| {
            eventually(kind, SOON, || world.peer.seen().into_iter().find(|seen| seen.path.ends_with(kind)))
        };
        world.host.misbehave(Some(Fault::Status(500, None)));
        let mut seen = told(&world, "/sync_failed");
        if recovers {
            world.host.misbehave(None);
            world.owner.ask(&world.server, "POST", &format!("/api/repositories/{}/scan", world.id), None);
            seen = told(&world, "/sync_recovered");
        }
        let way = world.way_to(&seen);
        assert_eq!(way[..2], ["delivery.notice", "scan"], "{way:?}");
    }
}

#[test]
fn what_is_not_sampled_is_sent_on_as_such_and_never_exported() {
    let mut world = World::new(|server| server.with("telemetry.trace_ratio", "0"));
    world.push("unseen");
    let seen = world.told_of("unseen");
    assert!(seen.header("traceparent").ends_with("-00"), "{:?}", seen.header("traceparent"));
    world.server.terminate();
    assert_eq!(world.collector.spans(), []);
}

#[test]
fn a_long_round_does_not_make_a_trace_that_nobody_can_read() {
    let mut world = World::new(|server| server);
    for number in 0..1_010 {
        world.project.write(format!("many/{number:04}"), b"content");
    }
    world.project.commit("many");
    world.host.publish(&world.project, "o/r");
    world.wait_until_held();
    let (early, late) = (world.told_of("many/0001"), world.told_of("many/1009"));
    let trace = |seen: &Seen| seen.header("traceparent").split('-').nth(1).expect("a trace").to_owned();
    let (early, late) = (trace(&early), trace(&late));
    assert_ne!(early, late);
    world.server.terminate();
    let spans = world.collector.spans();
    let found = spans.iter().find(|span| span.trace == late).expect("a span of the late one");
    assert_eq!((found.parent.as_str(), found.links.as_slice()), ("", &[early][..]));
}

#[test]
fn numbers_and_lines_arrive_at_the_collector_with_what_opens_it() {
    let collector = Collector::start();
    let mut server = Server::prepare()
        .with("telemetry.otlp_metrics_endpoint", &collector.endpoint("metrics"))
        .with("telemetry.otlp_logs_endpoint", &collector.endpoint("logs"))
        .with("telemetry.otlp_headers", &format!("authorization=Bearer {ACCESS},x-scope-orgid=7"))
        .with("telemetry.otlp_interval", "200ms")
        .with("telemetry.survey_interval", "200ms");
    server.run();
    eventually("numbers", SOON, || {
        let names = collector.metrics();
        let wanted = ["tidings.http.request.duration", "tidings.watch.lag.seconds.bucket", "tidings.apps"];
        wanted.iter().all(|name| names.iter().any(|found| found == name)).then_some(())
    });
    server.terminate();
    let lines = collector.lines();
    assert!(lines.iter().any(|line| line.contains("listening on http://")), "{lines:?}");
    for what in ["metrics", "logs"] {
        for export in collector.exports(what) {
            let header = |name| export.head.header(name).unwrap_or_default().to_owned();
            assert_eq!(header("authorization"), format!("Bearer {ACCESS}"));
            assert_eq!(header("x-scope-orgid"), "7");
        }
    }
    assert!(!server.log().contains(ACCESS));
    assert!(collector.exports("traces").is_empty(), "no address for them was set");
}
