//! The supervision tree as data: every actor, its supervisor, its restart rule, and the bound of its mailbox.
//! [`render`] draws the tree; ARCHITECTURE.md shows that drawing and a test holds the two equal.

use std::{fmt::Write, time::Duration};

use tidings_entity::id::{AppId, SubscriptionId};

/// The reaction of a supervisor to a child that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Starts it again, however it ended.
    Permanent,
    /// Starts it again after a failure; a clean end is its end.
    Transient,
}

/// The reaction of a supervisor to a child that fails more often than its intensity allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// The supervisor fails itself: its own supervisor decides.
    Escalate,
    /// The supervisor keeps that one child down for [`CONTAINED_FIRST`], doubled up to [`CONTAINED_LAST`];
    /// its siblings go on.
    Contain,
}

/// The first long wait of a contained child.
pub const CONTAINED_FIRST: Duration = Duration::from_secs(30);
/// The longest wait of a contained child.
pub const CONTAINED_LAST: Duration = Duration::from_secs(600);

/// One kind of actor and its supervision.
#[derive(Debug)]
pub struct ChildSpec {
    /// The role of the child, unique in the tree.
    pub id: &'static str,
    /// The ends after which the child is started again.
    pub restart: Restart,
    /// The number of failures within `within` that only restart the child.
    pub failures: usize,
    /// The span in which failures are counted.
    pub within: Duration,
    /// The reaction to more failures than that.
    pub beyond: Beyond,
    /// The time that the child has to stop; after that it is killed.
    pub shutdown: Duration,
    /// How long one message may take before the actor counts as hung and is restarted.
    pub progress: Duration,
    /// The bound of its mailbox, in words: ractor's mailboxes have no limit, so the senders are bounded.
    pub bound: &'static str,
    /// Whether there is one actor per key (repository, app, ...) instead of exactly one.
    pub many: bool,
    /// The prefix of its keys, if its supervisor has several kinds of children with keys.
    pub keys: &'static str,
    /// The children that it supervises, one for one.
    pub children: &'static [ChildSpec],
}

const SUPERVISOR: ChildSpec = ChildSpec {
    id: "",
    restart: Restart::Permanent,
    failures: 3,
    within: Duration::from_secs(60),
    beyond: Beyond::Escalate,
    shutdown: Duration::from_secs(5),
    progress: Duration::from_secs(10),
    bound: "one message per change of its children",
    many: false,
    keys: "",
    children: &[],
};

const LEAF: ChildSpec = ChildSpec {
    id: "",
    restart: Restart::Permanent,
    failures: 5,
    within: Duration::from_secs(30),
    beyond: Beyond::Contain,
    shutdown: Duration::from_secs(2),
    progress: Duration::from_secs(60),
    bound: "",
    many: true,
    keys: "",
    children: &[],
};

/// Role of the root supervisor.
pub const ROOT: &str = "root";
/// Role of the supervisor of breakers.
pub const BREAKERS: &str = "breakers";
/// Role of a circuit breaker.
pub const CIRCUIT_BREAKER: &str = "circuit-breaker";
/// Role of the supervisor of repository watchers.
pub const REPOSITORIES: &str = "repositories";
/// Role of a repository watcher.
pub const REPOSITORY_WATCHER: &str = "repository-watcher";
/// Role of the factory of scan workers.
pub const SCANS: &str = "scans";
/// Role of the supervisor of deliverers.
pub const APPS: &str = "apps";
/// Role of a deliverer.
pub const DELIVERER: &str = "deliverer";
/// Role of the actor that sends the entries of a ledger to one subscription.
pub const SUBSCRIBER: &str = "subscriber";
/// Role of the supervisor of upkeep.
pub const HOUSEKEEPING: &str = "housekeeping";
/// Role of the actor that removes old rows.
pub const RETENTION: &str = "retention";
/// Role of the actor that keeps mirrors small and whole.
pub const MIRROR_KEEPER: &str = "mirror-keeper";
/// The role of the actor that looks after letters whose content could not be fetched.
pub const LETTER_KEEPER: &str = "letter-keeper";

/// Role of the actor that keeps the leases of a replica.
pub const LEASE_KEEPER: &str = "lease-keeper";
/// Role of the actor that measures how everything is.
pub const SURVEYOR: &str = "surveyor";
/// Role of the actor that writes the entries which ledgers folded.
pub const LEDGER_KEEPER: &str = "ledger-keeper";
/// Role of the actor that removes objects without a row.
pub const ARTIFACT_KEEPER: &str = "artifact-keeper";
/// Role of the actor that finds the subscriptions for which entries wait.
pub const SUBSCRIPTION_KEEPER: &str = "subscription-keeper";
/// Role of the actor that tells Git hosts the statuses of watches.
pub const STATUS_KEEPER: &str = "status-keeper";

/// Role of the actor that keeps the line of workers who wait for tasks.
pub const CLAIMS: &str = "claims";
/// Role of the actor that keeps the clock of tasks.
pub const CLOCK_KEEPER: &str = "clock-keeper";

/// Role of the actor that tells worker subscriptions of work.
pub const WORK_CALLER: &str = "work-caller";

/// The supervision tree of the whole process, from its root.
pub static TREE: ChildSpec = ChildSpec {
    id: ROOT,
    children: &[
        ChildSpec {
            id: BREAKERS,
            children: &[ChildSpec {
                id: CIRCUIT_BREAKER,
                restart: Restart::Transient,
                bound: "one outcome per permitted attempt or scan",
                ..LEAF
            }],
            ..SUPERVISOR
        },
        ChildSpec {
            id: REPOSITORIES,
            children: &[ChildSpec {
                id: REPOSITORY_WATCHER,
                restart: Restart::Transient,
                bound: "pokes set a flag; one outstanding scan",
                ..LEAF
            }],
            ..SUPERVISOR
        },
        ChildSpec {
            id: SCANS,
            beyond: Beyond::Escalate,
            many: false,
            bound: "one job per repository watcher",
            ..LEAF
        },
        ChildSpec {
            id: APPS,
            children: &[
                ChildSpec {
                    id: DELIVERER,
                    restart: Restart::Transient,
                    shutdown: Duration::from_secs(20),
                    bound: "one answer per task it started; wakes carry no load",
                    keys: AppId::PREFIX,
                    ..LEAF
                },
                ChildSpec {
                    id: SUBSCRIBER,
                    restart: Restart::Transient,
                    bound: "one task at a time; wakes set a flag",
                    keys: SubscriptionId::PREFIX,
                    ..LEAF
                },
            ],
            ..SUPERVISOR
        },
        ChildSpec {
            id: HOUSEKEEPING,
            children: &[
                ChildSpec { id: RETENTION, many: false, bound: "its own timer", ..LEAF },
                ChildSpec {
                    id: MIRROR_KEEPER,
                    many: false,
                    bound: "its own timer; one message per fetch",
                    ..LEAF
                },
                ChildSpec {
                    id: LETTER_KEEPER,
                    many: false,
                    bound: "its own timer; a redrive sets a flag",
                    ..LEAF
                },
                ChildSpec {
                    id: LEASE_KEEPER,
                    many: false,
                    bound: "its own timers and tasks; one signal at a time",
                    ..LEAF
                },
                ChildSpec { id: LEDGER_KEEPER, many: false, bound: "its own timer", ..LEAF },
                ChildSpec { id: ARTIFACT_KEEPER, many: false, bound: "its own timer", ..LEAF },
                ChildSpec {
                    id: SUBSCRIPTION_KEEPER,
                    many: false,
                    bound: "its own timer; one look at a time",
                    ..LEAF
                },
                ChildSpec {
                    id: STATUS_KEEPER,
                    many: false,
                    bound: "its own timers; one look at a time; 16 requests",
                    ..LEAF
                },
                ChildSpec {
                    id: CLAIMS,
                    many: false,
                    bound: "one wait per request; one claim at a time",
                    ..LEAF
                },
                ChildSpec { id: CLOCK_KEEPER, many: false, bound: "its own timers; one look", ..LEAF },
                ChildSpec {
                    id: WORK_CALLER,
                    many: false,
                    bound: "its own timers; one read; 64 requests",
                    ..LEAF
                },
                ChildSpec { id: SURVEYOR, many: false, bound: "its own timer", ..LEAF },
            ],
            ..SUPERVISOR
        },
    ],
    ..SUPERVISOR
};

/// Draws the tree, a line an actor.
#[must_use]
pub fn render(spec: &ChildSpec) -> String {
    let mut drawing = line(spec, spec.id.len());
    let width = spec.children.iter().map(|child| width_of(child, 1)).max().unwrap_or(0);
    draw(spec, "", width, &mut drawing);
    drawing
}

fn draw(spec: &ChildSpec, indent: &str, width: usize, drawing: &mut String) {
    for (index, child) in spec.children.iter().enumerate() {
        let last = index + 1 == spec.children.len();
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let room = width.saturating_sub(indent.chars().count() + 3);
        write!(drawing, "{indent}{branch}{}", line(child, room)).expect("a String takes all");
        draw(child, &format!("{indent}{below}"), width, drawing);
    }
}

fn width_of(spec: &ChildSpec, depth: usize) -> usize {
    let own = depth * 3 + spec.id.len() + if spec.many { 2 } else { 0 };
    spec.children.iter().map(|child| width_of(child, depth + 1)).fold(own, usize::max)
}

fn line(spec: &ChildSpec, room: usize) -> String {
    let name = if spec.many { format!("{} *", spec.id) } else { spec.id.to_owned() };
    let restart = match spec.restart {
        Restart::Permanent => "permanent",
        Restart::Transient => "transient",
    };
    let beyond = match spec.beyond {
        Beyond::Escalate => "escalates",
        Beyond::Contain => "contained",
    };
    format!(
        "{name:room$}  {restart}, {} in {} s then {beyond}; stops in {} s; hung after {} s; mailbox: {}\n",
        spec.failures,
        spec.within.as_secs(),
        spec.shutdown.as_secs(),
        spec.progress.as_secs(),
        spec.bound,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_drawn_as_the_architecture_shows_it() {
        let drawing = render(&TREE);
        expect_test::expect_file!["tree.txt"].assert_eq(&drawing);
        let architecture =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md"))
                .expect("ARCHITECTURE.md is there");
        assert!(architecture.contains(&drawing), "ARCHITECTURE.md shows another tree than:\n{drawing}");
    }
}
