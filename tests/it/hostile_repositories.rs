//! Repositories that are made to exhaust their readers, all at once, under the settings that a
//! server has by itself: each is refused by name without one event, a neighbour does not notice,
//! and memory stays small.

use serde_json::json;

use crate::support::{
    api::App,
    git_host::Fault,
    length,
    pack::Pack,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    repository::Repository,
    server::Server,
    subscriber::Subscriber,
};

/// What a hostile repository may make of the server, in bytes.
const MEMORY_MAX: u64 = 256 << 20;
/// Size of two files that resemble each other, unless `TIDINGS_STORY_FILE_BYTES` says otherwise.
const FILE_BYTES: u64 = 300_000;
/// Changes of one of these files.
const CHANGES: usize = 5;

#[test]
fn hostile_repositories_cost_little_and_tell_nothing() {
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let (neighbours, project) = (Host::start_apart(), Project::with(&[("a", "1")]));
    neighbours.publish(&project, "o/r");
    let neighbour = app.watch_with(&server, &json!({ "url": neighbours.url("o/r") }));

    let honest = Host::start_apart();
    tree_bomb(&honest.repository("bomb"));
    nested(&honest.repository("nested"));
    let copies = Host::start_apart();
    small(&copies.repository("r"));
    copies.misbehave(Some(Fault::Pack(copied_to(1 << 30))));
    let claims = Host::start_apart();
    small(&claims.repository("r"));
    claims.misbehave(Some(Fault::Pack(claimed(2 << 30))));
    let hostile = [
        // A million entries are looked at, unless the machine needs longer than a minute for them.
        (honest.url("bomb"), &["more than 1200000 entries", "takes longer"][..]),
        (honest.url("nested"), &["directories deeper than 256"]),
        (copies.url("r"), &["a delta of or to an object of 1073741824 bytes"]),
        (claims.url("r"), &["a delta of or to an object of 2147483648 bytes"]),
    ];
    let watched: Vec<_> =
        hostile.map(|(url, texts)| (app.watch_with(&server, &json!({ "url": url })), texts)).into();

    for (id, texts) in &watched {
        let said = eventually(texts[0], 3 * SOON, || {
            let shown = app.repository(&server, id);
            let reason = shown["last_error"].as_str().or(shown["branches"][0]["reason"].as_str());
            reason.filter(|said| texts.iter().any(|text| said.contains(text))).map(ToOwned::to_owned)
        });
        assert!(said.contains("repository too large"), "{said}");
        assert!(texts.iter().any(|text| said.contains(text)), "{said}");
        assert_eq!(subscriber.mirror(id).len(), 0, "no event of {said}");
    }
    project.write("b", b"2");
    let second = project.commit("second");
    neighbours.publish(&project, "o/r");
    app.wait_until_held(&server, &neighbour, &second);
    subscriber.wait_for_tree(&neighbour, &project.tree("HEAD"));
    let most = server.peak_resident();
    println!("hostile repositories: {} MiB at most", most >> 20);
    assert!(most < MEMORY_MAX, "{most} bytes were resident");
    subscriber.assert_straight();
}

#[test]
fn half_a_gigabyte_of_zeros_is_told_without_its_content() {
    let project = Project::new();
    let file = std::fs::File::create(project.path().join("zeros")).expect("a file");
    file.set_len(512 << 20).expect("a sparse file");
    // From this size on git itself streams.
    project.git(["config", "core.bigFileThreshold", "1m"]);
    let head = project.commit("zeros");
    let host = Host::start_apart();
    host.publish(&project, "o/zeros");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/zeros") }));
    app.wait_until_held(&server, &id, &head);
    let most = server.peak_resident();
    println!("512 MiB of zeros: {} MiB at most", most >> 20);
    assert!(most < MEMORY_MAX, "{most} bytes were resident");
    let applied = subscriber.applied();
    assert_eq!(applied.len(), 1, "{applied:?}");
}

fn small(repository: &Repository) {
    repository.commit("main", &[("a", Some(("100644", b"1")))]);
}

/// Ten directories in each of ten directories, ten times: the same one every time.
fn tree_bomb(repository: &Repository) {
    let mut object = repository.write_object("blob", b"x");
    for level in 0..10 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let mut tree = Vec::new();
        for number in 0..10 {
            tree.extend_from_slice(format!("{mode} {number}\0").as_bytes());
            tree.extend_from_slice(object.as_bytes());
        }
        object = repository.write_object("tree", &tree);
    }
    repository.commit_tree("main", object);
}

fn nested(repository: &Repository) {
    repository.commit("main", &[(&format!("{}f", "d/".repeat(1_000)), Some(("100644", b"x")))]);
}

/// A delta that says it makes so much, and does not.
fn claimed(bytes: u64) -> bytes::Bytes {
    let mut pack = Pack::new();
    let base = pack.blob(b"base");
    pack.delta(base, 4, bytes, b"\x01x");
    pack.finish()
}

/// A delta of a few hundred bytes that makes so much: it copies the same 8 MiB again and again.
fn copied_to(bytes: u64) -> bytes::Bytes {
    const PIECE: usize = 8 << 20;
    let mut pack = Pack::new();
    let base = pack.blob(&vec![0; PIECE]);
    // Copy from offset 0 the three bytes of a size, least first.
    let copy = [0xf0, 0x00, 0x00, 0x80];
    let times = usize::try_from(bytes).expect("64 bits") / PIECE;
    pack.delta(base, PIECE as u64, bytes, &copy.repeat(times));
    pack.finish()
}

/// A host packs one of them as a delta of the other, which is larger than what deltas may be made from.
#[test]
fn two_large_files_that_resemble_each_other_hold_no_other_up() {
    let bytes = length("TIDINGS_STORY_FILE_BYTES", FILE_BYTES, FILE_BYTES);
    let mut server = Server::prepare().with("git.delta_max_bytes", &(bytes / 8 * 7).to_string());
    server.run();
    let bytes = usize::try_from(bytes).expect("64 bits");
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let (project, host) = (Project::with(&[("small", "1")]), Host::start_apart());
    // Noise, so that each stays as large in a pack.
    let mut state = 7_u64;
    let mut noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(bytes)
    .collect();
    project.write("big", &noise);
    noise[bytes / 2..bytes / 2 + 10].fill(0);
    project.write("big2", &noise);
    let first = project.commit("two");
    host.publish(&project, "o/r");
    let status =
        crate::support::repository::git_command(&host.path("o/r")).args(["repack", "-adfq"]).status();
    assert!(status.expect("git runs").success());
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "max_size": 1_000 }));
    app.wait_until_held(&server, &id, &first);
    for round in 0..CHANGES {
        project.write("small", format!("{round}").as_bytes());
        noise[round] ^= 1;
        project.write("big", &noise);
        let head = project.commit("next");
        host.push_main(&project, "o/r");
        app.wait_until_held(&server, &id, &head);
    }
    assert!(app.dead_letters(&server).is_empty());
    let applied = subscriber.applied();
    assert_eq!(applied.len(), 3 + CHANGES * 2, "{applied:?}");
    let model = subscriber.model();
    let omitted = model
        .bodies
        .iter()
        .filter(|body| body.contains(r#""path":"big""#) && body.contains(r#""content_omitted":"too_large""#));
    assert_eq!(omitted.count(), 1 + CHANGES, "each says why its content is not there");
}
