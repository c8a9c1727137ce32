//! SIGKILLs inside what is done to a mirror: polls, fetches, indexing, promotion, rebuilding. The
//! next run loses nothing, leaves nothing behind and needs no hand.
//!
//! A kill is aimed by what the story sees on disk, and counted by what it finds there afterwards.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    api::App,
    git_host::Fault,
    length,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    repository::git_command,
    server::Server,
    subscriber::Subscriber,
};

/// Kills over all five phases, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 100;
/// The same of a short story: some for each phase.
const KILLS_SHORT: u64 = 25;
/// Folders, in each of which every commit changes a file, so that its trees take time to check.
const FOLDERS: usize = 60;
/// A life that does not reach its phase gets another commit after this.
const AGAIN: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The host was asked and has not answered.
    Poll,
    /// A pack is arriving.
    Fetch,
    /// It is being indexed and checked, and not visible yet.
    Index,
    /// Its commit is listed and its files are being moved.
    Promotion,
    /// The mirror is being rebuilt.
    Rebuilding,
}

struct Story {
    phase: Phase,
    server: Server,
    host: Host,
    project: Project,
    commits: usize,
    /// The newest commit of the project.
    head: String,
    /// Quarantines that the life before left. Their names come again.
    left: BTreeSet<(PathBuf, SystemTime)>,
}

fn kill_in(phase: Phase) {
    let host = Host::start();
    let project = Project::new();
    let subscriber = Subscriber::start();
    let server = Server::prepare().with("git.packs_max", "5").with("housekeeping.interval", "1h");
    let (head, left) = (String::new(), BTreeSet::new());
    let mut story = Story { phase, server, host, project, commits: 0, head, left };
    story.commit();
    story.server.run();
    let app = App::onboard(&story.server, &subscriber);
    let watch = json!({ "url": story.host.url("r.git"), "include": ["d0/**"] });
    let id = app.watch_with(&story.server, &watch);
    app.wait_until_held(&story.server, &id, &story.head);
    let kills = length("TIDINGS_STORY_KILLS", KILLS, KILLS_SHORT).div_ceil(5);
    story.server.kill();
    subscriber.model().note_kill();
    let (mut hits, mut kill) = (0, 0);
    // A phase that is over in a moment may take more tries.
    while kill < kills || hits == 0 && kill < 10 * kills {
        story.live();
        story.server.kill();
        subscriber.model().note_kill();
        kill += 1;
        story.promote_by_half(kill);
        hits += u64::from(story.was_hit());
        story.host.misbehave(None);
        let left = quarantines(&story.mirror()).len();
        assert!(left <= 1, "{left} quarantines pile up");
    }
    println!("{hits} of {kill} kills hit {phase:?}");
    assert!(hits > 0, "no kill hit {phase:?}");

    story.host.misbehave(None);
    story.server.run();
    story.commit();
    let head = &story.head;
    app.wait_until_held(&story.server, &id, head);
    let tree = story.project.tree(head).into_iter().filter(|(path, _)| path.starts_with(b"d0/")).collect();
    subscriber.wait_for_tree(&id, &tree);
    subscriber.assert_straight();
    eventually("mirror without leftovers", SOON, || leftovers(&story.mirror()).is_empty().then_some(()));
    let checked = git_command(&story.mirror()).args(["fsck", "--connectivity-only", head]).output();
    let checked = checked.expect("git runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

impl Story {
    /// Starts the server and waits until it is in its phase.
    fn live(&mut self) {
        let before = self.host.requests();
        match self.phase {
            Phase::Poll => self.host.misbehave(Some(Fault::Hang)),
            Phase::Fetch => self.host.misbehave(Some(Fault::Drip(40_000))),
            _ => {}
        }
        self.commit();
        let (mirror, until) = (self.mirror(), Instant::now() + 3 * SOON);
        self.left = quarantines(&mirror).iter().filter_map(|place| dated(place)).collect();
        self.server.spawn();
        let mut again = Instant::now() + AGAIN;
        let is_there = |story: &Self| match story.phase {
            Phase::Poll => story.host.requests() > before,
            // It lasts too short a time to be aimed at: see `promote_by_half`.
            Phase::Promotion => story.quarantines(&mirror).iter().any(|place| pack_of(place).is_some()),
            phase => story.is_in(&mirror, phase),
        };
        loop {
            if is_there(self) {
                // What is seen of one that is stopped still holds when the kill arrives.
                self.server.signal(Signal::STOP);
                if is_there(self) {
                    return;
                }
                self.server.signal(Signal::CONT);
            }
            assert!(Instant::now() < until, "{:?} was never reached", self.phase);
            if self.phase != Phase::Poll && Instant::now() > again {
                self.commit();
                again = Instant::now() + AGAIN;
            }
            std::thread::yield_now();
        }
    }

    /// Whether the last kill hit its phase, by what it left.
    fn was_hit(&self) -> bool {
        match self.phase {
            Phase::Poll => quarantines(&self.mirror()).is_empty(),
            phase => self.is_in(&self.mirror(), phase),
        }
    }

    /// What a kill between two steps of a promotion leaves: the list is written, then the pack is
    /// moved, then its index. Only for a pack that holds the newest commit, as a promoted one does.
    fn promote_by_half(&self, steps: u64) {
        let (mirror, head) = (self.mirror(), &self.head);
        if self.phase != Phase::Promotion || self.is_listed(&mirror) {
            return;
        }
        for quarantine in self.quarantines(&mirror) {
            let Some(files) = pack_of(&quarantine) else { continue };
            let objects = git_command(&mirror).args(["verify-pack", "-v"]).arg(&files[1]).output();
            if !String::from_utf8_lossy(&objects.expect("git runs").stdout).contains(head.as_str()) {
                continue;
            }
            let mut list = fs::read_to_string(mirror.join("shallow")).unwrap_or_default();
            list.push_str(&format!("{head}\n"));
            fs::write(mirror.join("shallow"), list).expect("writable");
            for file in files.iter().take(usize::try_from(steps % 3).expect("small")) {
                fs::rename(file, mirror.join("objects/pack").join(named(file))).expect("one disk");
            }
        }
    }

    fn is_in(&self, mirror: &Path, phase: Phase) -> bool {
        self.quarantines(mirror).iter().any(|quarantine| {
            let is_fetch = named(quarantine).starts_with("quarantine-fetch-");
            let files: Vec<String> = paths(&quarantine.join("pack")).iter().map(|path| named(path)).collect();
            let is_indexed = files.iter().any(|file| file.ends_with(".idx") || file.ends_with(".pack"));
            match phase {
                Phase::Poll => false,
                Phase::Fetch => is_fetch && !is_indexed,
                Phase::Index => is_fetch && is_indexed && !self.is_listed(mirror),
                Phase::Promotion => is_fetch && self.is_listed(mirror),
                Phase::Rebuilding => !is_fetch,
            }
        })
    }

    /// Those of this life.
    fn quarantines(&self, mirror: &Path) -> Vec<PathBuf> {
        let is_new = |place: &PathBuf| dated(place).is_some_and(|place| !self.left.contains(&place));
        quarantines(mirror).into_iter().filter(is_new).collect()
    }

    /// Whether the newest commit is on the list of those without parents, which is written first.
    fn is_listed(&self, mirror: &Path) -> bool {
        fs::read_to_string(mirror.join("shallow")).is_ok_and(|list| list.contains(&self.head))
    }

    /// Changes a file in every folder, at the host as well.
    fn commit(&mut self) {
        self.commits += 1;
        for folder in 0..FOLDERS {
            let text = format!("{} {folder}\n", self.commits).repeat(20);
            self.project.write(format!("d{folder}/f{}", self.commits % 7), text.as_bytes());
        }
        self.head = self.project.commit("another");
        self.host.publish(&self.project, "r.git");
    }

    fn mirror(&self) -> PathBuf {
        let mirrors = paths(&self.server.data().join("mirrors"));
        mirrors.into_iter().find(|path| !named(path).contains('.')).unwrap_or_default()
    }
}

fn named(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lies in a folder; nothing where it has gone meanwhile.
fn paths(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

fn quarantines(mirror: &Path) -> Vec<PathBuf> {
    paths(mirror).into_iter().filter(|path| named(path).starts_with("quarantine-")).collect()
}

/// A quarantine and when it was made: nothing comes into it but into its folder of packs.
fn dated(quarantine: &Path) -> Option<(PathBuf, SystemTime)> {
    let made_at = fs::metadata(quarantine).and_then(|facts| facts.modified()).ok()?;
    Some((quarantine.to_owned(), made_at))
}

/// The pack in a quarantine and its index, where both are whole.
fn pack_of(quarantine: &Path) -> Option<[PathBuf; 2]> {
    let files = paths(&quarantine.join("pack"));
    let with = |kind| files.iter().find(|path| path.extension().is_some_and(|found| found == kind)).cloned();
    Some([with("pack")?, with("idx")?])
}

/// What no run may leave behind for good.
fn leftovers(mirror: &Path) -> Vec<PathBuf> {
    let in_packs = paths(&mirror.join("objects/pack")).into_iter().filter(|path| {
        let twin = if path.extension().is_some_and(|found| found == "pack") { "idx" } else { "pack" };
        !named(path).starts_with("pack-") || !path.with_extension(twin).exists()
    });
    let in_mirror = paths(mirror).into_iter().filter(|path| {
        let name = named(path);
        name.starts_with("quarantine-") || name.ends_with(".lock") || name.ends_with(".new")
    });
    let aside =
        paths(mirror.parent().expect("a folder")).into_iter().filter(|path| named(path).contains('.'));
    in_packs.chain(in_mirror).chain(aside).collect()
}

#[test]
fn kills_in_a_poll_lose_nothing() {
    kill_in(Phase::Poll);
}

#[test]
fn kills_in_a_fetch_lose_nothing_and_leave_nothing_behind() {
    kill_in(Phase::Fetch);
}

#[test]
fn kills_in_indexing_lose_nothing_and_leave_nothing_behind() {
    kill_in(Phase::Index);
}

#[test]
fn kills_in_promotion_lose_nothing_and_leave_nothing_behind() {
    kill_in(Phase::Promotion);
}

#[test]
fn kills_in_rebuilding_lose_nothing_and_leave_nothing_behind() {
    kill_in(Phase::Rebuilding);
}
