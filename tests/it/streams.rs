//! Changes as messages of a NATS JetStream stream, of a real server: everything in order and once, over
//! kills of both sides; and what happens where the stream refuses, is missing or does not know us.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tidings::{
    settings::EgressSettings,
    sinks::signature::{SigningKey, check},
};
use tidings_actors::{
    model::round::DeliveryId,
    ownership::shards::Shards,
    ports::{Fence, ItemOutcome, Parcel, SendFailure, Shard, Transport},
};
use tidings_entity::id::RepositoryId;
use tokio::time::Instant;
use ulid::Ulid;

use crate::support::{
    api::App,
    kills,
    patience::{SOON, eventually},
    project::Project,
    sender::{endpoint, parcel, world_with},
    server::Server,
    stream::{Kept, Nats, PREFIX},
    subscriber::KEY,
};

/// Kills of each side, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 10;
/// A kill at the door of a stream is asked of at most twice as many messages as the window has.
const FILES: usize = 600;

/// Registers an app that receives there.
fn onboard(server: &Server, base_url: &str, more: &Value) -> App {
    let reply = try_onboard(server, base_url, more);
    assert_eq!(reply.0, 201, "{}", reply.1);
    let text = |key: &str| reply.1[key].as_str().expect("a text").to_owned();
    App { id: text("app_id"), token: text("token"), onboarded: reply.1.clone() }
}

fn try_onboard(server: &Server, base_url: &str, more: &Value) -> (u16, Value) {
    let mut body = json!({
        "app_name": "stream", "email": "stream@example.org", "base_url": base_url, "client_auth_key": KEY,
    });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
    (reply.status, reply.json())
}

/// Checks all messages of one watch, and gives the files that they make: paths with the hashes of their
/// content.
fn applied(messages: &[Kept], watch: &str) -> BTreeMap<Vec<u8>, String> {
    let (mut files, mut ids, mut last) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for message in messages {
        let (body, data) = (&message.body, &message.body["data"]);
        let id = body["id"].as_str().expect("an id");
        assert_eq!((message.header("Nats-Msg-Id"), data["event"]["id"].as_str()), (id, Some(id)));
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
        assert_eq!(
            (&body["specversion"], body["source"].as_str()),
            (&json!("1.0"), Some(format!("/api/repositories/{watch}").as_str()))
        );
        assert_signed(message);
        assert!(ids.insert(id.to_owned()), "{id} stands twice in the stream");
        let sequence = body["sequence"].as_str().expect("a sequence").to_owned();
        let before = last.insert(body["partitionkey"].to_string(), sequence.clone());
        assert!(before.is_none_or(|before| before < sequence), "out of order: {sequence}");
        let path = data["file"]["path"].as_str().expect("a path").as_bytes().to_vec();
        let kind = match body["type"].as_str().expect("a type") {
            "dev.tidings.file.deleted" => {
                files.remove(&path);
                "delete"
            }
            kind => {
                files.insert(path, data["file"]["sha"].as_str().expect("a hash").to_owned());
                if kind == "dev.tidings.file.created" { "create" } else { "update" }
            }
        };
        assert_eq!(message.subject, format!("{PREFIX}.{watch}.{kind}"));
    }
    files
}

fn assert_signed(message: &Kept) {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let keys = [SigningKey::of_text(KEY)];
    assert!(check(&keys, &headers, &message.bytes, None).is_good(), "{:?}", message.headers);
}

fn tree(project: &Project) -> BTreeMap<Vec<u8>, String> {
    project.tree(&project.head()).into_iter().map(|(path, facts)| (path, facts.sha)).collect()
}

fn many(count: usize) -> Project {
    let project = Project::new();
    for number in 0..count {
        project.write(format!("{number:04}"), format!("one {number}").as_bytes());
    }
    project.commit("many");
    project
}

#[test]
fn changes_stand_in_a_stream_as_signed_events_in_their_order() {
    let Some(nats) = Nats::start() else { return };
    nats.make_stream(&json!({}));
    let server = Server::start();
    // A repository that goes away would be told of.
    let mut projects = Vec::new();
    for (delivery, kept) in [
        (json!({}), 0),
        (json!({ "order": "phased", "max_in_flight": 16 }), 8),
        (json!({ "batch": { "count": 4, "linger_ms": 5 } }), 16),
    ] {
        let app = onboard(&server, &nats.url(), &json!({ "delivery": delivery }));
        let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
        let watch = app.watch(&server, &project);
        app.wait_until_held(&server, &watch, &project.head());
        project.write("a", b"2");
        project.remove("b");
        project.write("e/f", &[0, 159, 146, 150]);
        project.write("g", b"1");
        project.commit("second");
        app.tell(&server, &watch, "scan");
        app.wait_until_held(&server, &watch, &project.head());
        let messages = nats.kept();
        assert_eq!(messages.len(), kept + 8, "{delivery}");
        if delivery["order"] != "phased" {
            assert_eq!(applied(&messages[kept..], &watch), tree(&project), "{delivery}");
        }
        let tested = app.ask(&server, "POST", "/api/app/test", None).json();
        assert_eq!((&tested["accepted"], &tested["url"]), (&json!(true), &json!(format!("{PREFIX}.test"))));
        // The test's own message is no change; the next turn counts without it.
        nats.change_stream(&json!({ "max_msgs": -1 }));
        let test = nats.kept().pop().expect("the test");
        assert_eq!(test.subject, format!("{PREFIX}.test"));
        nats.forget_last();
        projects.push(project);
    }
}

#[test]
fn over_kills_of_both_sides_the_stream_has_every_change_once() {
    let Some(mut nats) = Nats::start() else { return };
    nats.make_stream(&json!({}));
    // A dead server is asked again soon: the story is about what is lost, not about patience.
    let mut server = Server::prepare();
    server.run();
    let app =
        onboard(&server, &nats.url(), &json!({ "delivery": { "retry_base_ms": 10, "retry_cap_ms": 100 } }));
    let project = many(FILES);
    let watch = app.watch(&server, &project);
    for turn in 0..kills(KILLS) {
        let before = nats.kept().len();
        eventually("the stream to grow", SOON, || {
            (nats.kept().len() > before
                || app.repository(&server, &watch)["branches"][0]["held_commit"] == json!(project.head()))
            .then_some(())
        });
        if turn % 2 == 0 {
            server.kill();
            server.run();
        } else {
            nats.kill();
            nats.run();
        }
        for number in (usize::try_from(turn).expect("few") % 7..FILES).step_by(7) {
            project.write(format!("{number:04}"), format!("{turn} {number}").as_bytes());
        }
        project.commit("more");
        app.tell(&server, &watch, "scan");
    }
    app.wait_until_held(&server, &watch, &project.head());
    let messages = nats.kept();
    assert!(messages.len() > FILES, "{}", messages.len());
    assert_eq!(applied(&messages, &watch), tree(&project));
}

#[test]
fn a_stream_that_is_missing_or_full_is_waited_for_and_a_message_that_is_too_large_is_parked() {
    let Some(nats) = Nats::start() else { return };
    let server = Server::start();
    let delivery = json!({ "delivery": { "retry_base_ms": 10, "retry_cap_ms": 100 } });
    let app = onboard(&server, &nats.url(), &delivery);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let watch = app.watch(&server, &project);
    let tested = app.ask(&server, "POST", "/api/app/test", None).json();
    let detail = tested["detail"].as_str().expect("a text");
    assert!(detail.contains("no stream takes the subject") && tested["failure"] == "connection", "{tested}");
    nats.make_stream(&json!({ "max_msgs": 2, "discard": "new" }));
    eventually("the stream to be full", SOON, || (nats.kept().len() == 2).then_some(()));
    let tested = app.ask(&server, "POST", "/api/app/test", None).json();
    let detail = tested["detail"].as_str().expect("a text");
    assert!(detail.contains("10077") && tested["status"] == 503, "{tested}");
    nats.change_stream(&json!({ "max_msgs": -1 }));
    app.wait_until_held(&server, &watch, &project.head());
    assert_eq!(applied(&nats.kept(), &watch), tree(&project));
    assert_eq!(app.dead_letters(&server), Vec::<Value>::new(), "an endpoint's trouble parks nothing");

    project.write("large", "x".repeat(1_200_000).as_bytes());
    project.write("z", b"1");
    project.commit("too large for a message");
    app.tell(&server, &watch, "scan");
    app.wait_until_held(&server, &watch, &project.head());
    let letters = app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["path"], &letters[0]["http_status"]),
        (&json!("large"), &json!(413)),
        "{letters:?}"
    );
    assert_eq!(nats.kept().len(), 4);
}

#[test]
fn credentials_are_shown_to_whom_they_belong_and_to_nobody_else() {
    const WORD: &str = "planted-nats-password";
    let rules = format!("authorization {{ user: teller, password: {WORD} }}");
    let Some(nats) = Nats::start_with(&rules, Some(("teller", WORD))) else { return };
    nats.make_stream(&json!({}));
    let server = Server::start();
    let project = Project::with(&[("a", "1")]);
    let auth =
        |word: &str| json!({ "endpoint_auth": { "basic": { "username": "teller", "password": word } } });
    let good = onboard(&server, &nats.url(), &auth(WORD));
    let watch = good.watch(&server, &project);
    good.wait_until_held(&server, &watch, &project.head());
    assert_eq!(applied(&nats.kept(), &watch), tree(&project));

    for more in [json!({}), auth("a-wrong-password")] {
        let app = onboard(&server, &nats.url(), &more);
        let tested = app.ask(&server, "POST", "/api/app/test", None).json();
        assert_eq!(
            (&tested["accepted"], &tested["failure"]),
            (&json!(false), &json!("connection")),
            "{tested}"
        );
        let detail = tested["detail"].as_str().expect("a text");
        assert!(detail.contains("credentials") && !detail.contains("password"), "{detail}");
    }
    assert!(!server.log().contains(WORD));
}

#[test]
fn an_encrypted_stream_must_prove_its_name() {
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer =
        CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    let folder = tempfile::tempdir().expect("a folder");
    let (chain, private) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    fs::write(&chain, leaf.pem()).expect("written");
    fs::write(&private, key.serialize_pem()).expect("written");
    let rules = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, timeout: 5 }}\nno_auth_user: plain\n\
         accounts {{ A {{ users: [{{ user: plain, password: plain }}], jetstream: enabled }} }}",
        chain, private
    );
    // Stories cannot ask such a server themselves: whether the stream has it is asked by the test delivery.
    let Some(nats) = Nats::start_unasked(&rules, None) else { return };
    let server = Server::start();
    let trusting = json!({ "endpoint_tls": { "ca": issuer.pem() } });
    let tried = |base_url: &str, more: &Value| {
        let app = onboard(&server, base_url, more);
        app.ask(&server, "POST", "/api/app/test", None).json()
    };
    let by_name = format!("tls://localhost:{}/{PREFIX}", nats.port());
    let by_address = format!("tls://127.0.0.1:{}/{PREFIX}", nats.port());
    // Nobody made a stream: to be told so is to be connected.
    let tested = tried(&by_name, &trusting);
    assert!(tested["detail"].as_str().is_some_and(|text| text.contains("no stream takes")), "{tested}");
    for (address, more) in [(&by_name, json!({})), (&by_address, trusting.clone())] {
        let tested = tried(address, &more);
        let detail = tested["detail"].as_str().expect("a text");
        assert!(
            detail.contains("the encrypted connection failed") || detail.contains("certificate"),
            "{tested}"
        );
    }
}

#[test]
fn addresses_that_are_no_streams_are_refused_with_their_reason() {
    let server = Server::start();
    for (base_url, more, field, said) in [
        ("nats://127.0.0.1:4222", json!({}), "base_url", "subject"),
        ("nats://127.0.0.1:4222/a.*", json!({}), "base_url", "subject"),
        ("nats://user:word@127.0.0.1/a", json!({}), "base_url", "endpoint_auth"),
        ("nats://10.1.2.3/a", json!({}), "base_url", "Private IP"),
        ("nats://127.0.0.1:25/a", json!({}), "base_url", "port 25"),
        (
            "nats://127.0.0.1/a",
            json!({ "delivery": { "format": "docora" } }),
            "delivery/format",
            "cloudevents",
        ),
        (
            "nats://127.0.0.1/a",
            json!({ "delivery": { "headers": { "x-a": "b" } } }),
            "delivery/headers",
            "cannot go to a stream",
        ),
        (
            "nats://192.0.2.1/a",
            json!({ "endpoint_auth": { "bearer": { "token": "planted" } } }),
            "base_url",
            "must use HTTPS",
        ),
    ] {
        let (status, problem) = try_onboard(&server, base_url, &more);
        let text = problem.to_string();
        assert_eq!(status, 422, "{base_url}: {text}");
        assert!(text.contains(field) && text.contains(said), "{base_url}: {text}");
    }
    // What resolves to a private address is refused when it is resolved.
    let strict = Server::prepare().with("egress.allow", "192.0.2.0/24");
    let mut strict = strict;
    strict.run();
    let app = onboard(&strict, "nats://localhost:4222/a", &json!({}));
    let tested = app.ask(&strict, "POST", "/api/app/test", None).json();
    assert_eq!(tested["failure"], "refused", "{tested}");
}

#[test]
fn an_app_moves_from_the_web_to_a_stream_in_mid_round_and_goes_on() {
    let Some(nats) = Nats::start() else { return };
    nats.make_stream(&json!({}));
    let server = Server::start();
    // Nobody listens there any more.
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let app = onboard(
        &server,
        &format!("http://{nobody}"),
        &json!({ "delivery": { "retry_base_ms": 10, "retry_cap_ms": 100 } }),
    );
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let watch = app.watch(&server, &project);
    eventually("a round", SOON, || {
        app.repository(&server, &watch)["branches"][0]["round"]["total"].as_u64().filter(|total| *total == 2)
    });
    let reply = app.ask(&server, "PATCH", "/api/app", Some(&json!({ "base_url": nats.url() })));
    assert_eq!(
        (reply.status, &reply.json()["delivery"]["format"]),
        (200, &json!("cloudevents")),
        "{}",
        reply.json()
    );
    app.wait_until_held(&server, &watch, &project.head());
    // Streams carry CloudEvents, also for what is left of a round that began elsewhere.
    let messages = nats.kept();
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
    }
}

#[test]
fn a_detour_over_a_stream_changes_nothing() {
    let server = Server::start();
    let (web, stream) = ("http://127.0.0.1:18081/in", "nats://127.0.0.1/a");
    let app = onboard(&server, "http://127.0.0.1:18080/in", &json!({ "delivery": { "max_in_flight": 7 } }));
    let before = app.ask(&server, "GET", "/api/app", None).json()["delivery"].clone();
    let patched = |body: Value| {
        let reply = app.ask(&server, "PATCH", "/api/app", Some(&body));
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()["delivery"].clone()
    };
    assert_eq!(patched(json!({ "base_url": stream }))["format"], "cloudevents");
    assert_eq!(patched(json!({ "base_url": "http://127.0.0.1:18080/in" })), before);
    // An app that is left without an address came from a stream as well.
    patched(json!({ "base_url": stream }));
    assert_eq!(patched(json!({ "base_url": null })), before);
    // What is named counts, and stays where the kind of the address does.
    patched(json!({ "base_url": stream }));
    let named = json!({ "base_url": "http://127.0.0.1:18080/in", "delivery": { "format": "cloudevents" } });
    assert_eq!(patched(named)["format"], "cloudevents");
    assert_eq!(patched(json!({ "base_url": web }))["format"], "cloudevents");
    assert_eq!(patched(json!({ "base_url": null }))["format"], "cloudevents");
    patched(json!({ "base_url": stream, "delivery": { "max_in_flight": 9 } }));
    let after = patched(json!({ "base_url": web }));
    assert_eq!((&after["format"], &after["max_in_flight"]), (&json!("cloudevents"), &json!(9)));
}

#[tokio::test]
async fn what_is_left_of_a_batch_for_a_stream_when_its_lease_ends_is_anothers_to_send() {
    let Some(nats) = tokio::task::spawn_blocking(Nats::start).await.expect("started") else { return };
    let nats = tokio::task::spawn_blocking(move || {
        nats.make_stream(&json!({}));
        nats
    });
    let settings = EgressSettings {
        allow: vec!["127.0.0.0/8".into()],
        allow_http: true,
        streams: vec!["127.0.0.1".into()],
        ..EgressSettings::default()
    };
    let (nats, world) = (nats.await.expect("made"), world_with(&settings));
    let mut endpoint = endpoint(nats.url());
    endpoint.timeout = SOON;
    let parcels =
        ["dlv_a", "dlv_b"].map(|id| Parcel { id: DeliveryId::from_stored(id.into()), ..parcel("{}") });
    let repository = RepositoryId::new(Ulid::from_parts(1, 1));
    let shards = Shards::leased();
    let fence = Fence { shard: Shard::of(&repository), epoch: 1, owner: Ulid::nil() };
    shards.renewed(&[fence], Instant::now() + SOON);
    let hold = shards.hold(&repository).expect("held");
    shards.leave_all();
    let (outcome, words) = world.webhooks.send_batch(&endpoint, parcels.to_vec(), &hold).await;
    assert!(outcome.is_success(), "{outcome:?}");
    assert_eq!(words, [ItemOutcome::Accepted, ItemOutcome::Accepted], "what is about to be given away ends");
    shards.renewed(&[], Instant::now());
    let parcels =
        ["dlv_c", "dlv_d"].map(|id| Parcel { id: DeliveryId::from_stored(id.into()), ..parcel("{}") });
    let (_, words) = world.webhooks.send_batch(&endpoint, parcels.to_vec(), &hold).await;
    assert_eq!(words, [ItemOutcome::Accepted, ItemOutcome::Untaken]);
    let kept = tokio::task::spawn_blocking(move || nats.kept().len());
    assert_eq!(kept.await.expect("kept"), 3);
}

#[tokio::test]
async fn a_server_that_ends_the_connection_at_a_message_is_told_from_one_that_takes_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // A server that greets, answers pings, and ends the connection as soon as a message comes.
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut writer = stream.try_clone().expect("a second handle");
        let info = json!({ "server_id": "A", "version": "2.10.0", "proto": 1, "max_payload": 1 << 20,
            "headers": true, "jetstream": true });
        write!(writer, "INFO {info}\r\n").expect("written");
        for line in BufReader::new(stream).lines() {
            let line = line.expect("a line");
            if line.starts_with("PING") {
                writer.write_all(b"PONG\r\n").expect("written");
            }
            if line.starts_with("HPUB") {
                return;
            }
        }
    });
    let settings = EgressSettings {
        allow: vec!["127.0.0.0/8".into()],
        allow_http: true,
        streams: vec!["127.0.0.1".into()],
        ..EgressSettings::default()
    };
    let world = world_with(&settings);
    let mut endpoint = endpoint(format!("nats://{address}/{PREFIX}"));
    endpoint.timeout = SOON;
    let outcome = world.send(&endpoint, &parcel("{}")).await;
    assert_eq!(outcome.result, Err(SendFailure::Cut), "the message may be at fault: {outcome:?}");
    served.join().expect("the server ended the connection");
    let outcome = world.send(&endpoint, &parcel("{}")).await;
    assert_eq!(outcome.result, Err(SendFailure::Connection), "nobody listens any more: {outcome:?}");
}
