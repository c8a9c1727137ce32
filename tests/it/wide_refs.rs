//! A neighbour that follows very many refs of a public repository costs another app of the same repository no
//! time: 900 release branches over a directory of 2,000 files, and 45,000 branches at one commit. The other
//! app gets its commits as before, and the neighbour its own.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    isolation::usual,
    support::{
        api::App,
        length,
        patience::{SOON, eventually},
        remote::Host,
        repository::Repository,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Branches, and files of the directory that each of them changes: the trees of all branches together are
/// larger than what a look at one of them may hold.
const BRANCHES: usize = 900;
const FILES: usize = 2_000;
/// Branches that all name one commit, unless `TIDINGS_STORY_REFS` says otherwise.
const REFS: u64 = 45_000;
/// Most refs that a pattern follows.
const FOLLOWED: u64 = 2_000;

/// An app that follows `main` of a repository that others follow, too.
struct Victim {
    server: Server,
    side: Subscriber,
    app: App,
    id: String,
    repository: Repository,
    url: String,
    _host: Host,
}

impl Victim {
    /// Of a repository that `make` fills.
    fn begin(make: impl FnOnce(&Repository)) -> Self {
        let (host, side) = (Host::start(), Subscriber::start());
        let mut server = Server::prepare().with("git.pattern_refs_max", &FOLLOWED.to_string());
        server.run();
        let repository = host.repository("r");
        make(&repository);
        let app = App::onboard(&server, &side);
        let url = host.url("r");
        let id = app.watch_with(&server, &json!({ "url": url, "start": "now" }));
        Self { server, side, app, id, repository, url, _host: host }
    }

    /// How long a commit on `main` takes until the app holds it.
    fn deliver(&self, text: &str) -> Duration {
        let began = Instant::now();
        let head = self.repository.commit("main", &[("own", Some(("100644", text.as_bytes())))]);
        self.app.wait_until_held(&self.server, &self.id, &head.to_string());
        began.elapsed()
    }

    fn turns(&self, what: &str) -> Vec<Duration> {
        (0..5).map(|round| self.deliver(&format!("{what} {round}"))).collect()
    }

    fn slowest(&self, what: &str) -> Duration {
        self.turns(what).into_iter().max().expect("some")
    }

    /// Another app that follows one file of these branches.
    fn neighbour(&self, pattern: &str, file: &str) -> (Subscriber, App, String) {
        let side = Subscriber::start();
        let patterns = json!({ "delivery": { "multi_branch": true } });
        let app = App::onboard_with(&self.server, &side, &patterns);
        // A pattern starts with all files that it sees.
        let watch = json!({ "url": self.url, "branch": pattern, "include": [file] });
        let id = app.watch_with(&self.server, &watch);
        (side, app, id)
    }

    fn assert_undisturbed(&self, alone: Duration) {
        let beside = self.turns("beside");
        println!("{beside:?} beside the neighbour, {alone:?} alone");
        assert!(usual(&beside) < alone * 4 + Duration::from_secs(10), "{beside:?} instead of {alone:?}");
        assert_eq!(self.app.repository(&self.server, &self.id)["last_error"], Value::Null);
        self.side.assert_faultless();
        assert!(self.side.model().notices.is_empty(), "{:?}", self.side.model().notices);
    }
}

/// A file of the wide directory.
fn wide_file(number: usize) -> String {
    format!("wide/file-{number:06}.txt")
}

/// Release branches, each with another content of one file of the wide directory.
fn release_branches(repository: &Repository) {
    let who = "A <a@example.org> 1700000000 +0000";
    let mut stream = format!("commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n");
    for file in 0..FILES {
        write!(stream, "M 644 inline {}\ndata 6\n{file:06}\n", wide_file(file)).expect("a String takes all");
    }
    for branch in 0..BRANCHES {
        write!(
            stream,
            "commit refs/heads/release/{branch:03}\ncommitter {who}\ndata 3\ntwo\nfrom :1\n\
             M 644 inline {}\ndata 5\nr{branch:04}\n",
            wide_file(branch)
        )
        .expect("a String takes all");
    }
    repository.import(stream.as_bytes());
    repository.git(["repack", "-adq"]);
    repository.git(["pack-refs", "--all"]);
}

#[test]
fn a_neighbour_that_follows_900_branches_of_a_wide_directory_costs_nobody_else_time() {
    let victim = Victim::begin(release_branches);
    let alone = victim.slowest("alone");
    let file = wide_file(1);
    let (side, _, id) = victim.neighbour("release/*", &file);
    let moved = victim.repository.commit("release/000", &[(file.as_str(), Some(("100644", b"moved")))]);
    let moved = moved.to_string();
    eventually("the commit of a wide branch", 4 * SOON, || {
        let model = side.model();
        model.applied.iter().any(|change| change.repository == id && change.commit == moved).then_some(())
    });
    victim.assert_undisturbed(alone);
    side.assert_faultless();
}

#[test]
fn a_neighbour_that_follows_very_many_refs_costs_nobody_else_time() {
    let refs = length("TIDINGS_STORY_REFS", REFS, REFS / 5);
    let victim = Victim::begin(|repository| {
        let first = repository.commit("main", &[("own", Some(("100644", b"0")))]);
        repository.many_refs(usize::try_from(refs).expect("small"), first);
    });
    let alone = victim.slowest("alone");
    let (side, app, id) = victim.neighbour("many/*", "b");
    victim.assert_undisturbed(alone);
    // The neighbour is served as well.
    // Where not all of them fit, it follows those with the greatest numbers.
    let last = format!("many/{:06}", refs - 1);
    let moved = victim.repository.commit(&last, &[("b", Some(("100644", b"moved")))]).to_string();
    eventually("the branch that moved", 2 * SOON, || {
        side.model().applied.iter().any(|change| change.commit == moved).then_some(())
    });
    let shown = app.repository(&victim.server, &id);
    let left_out = shown["refs_left_out"].as_u64().unwrap_or(0);
    assert_eq!(left_out, refs - FOLLOWED, "{}", shown["effective_reason"]);
    side.assert_faultless();
}
