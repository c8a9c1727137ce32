//! Which fields each list has. docs/filters.md shows them to people; a test holds the two equal.

use tidings_entity::kind::SinkKind;

/// The fields of one list.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSet {
    /// The list, as people call it.
    pub list: &'static str,
    /// The fields that a filter of this list may name.
    pub fields: &'static [Field],
    /// The fields that a text without a field is searched in.
    pub searched: &'static [&'static str],
}

/// A field of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// How a filter calls it.
    pub name: &'static str,
    /// The kind of values that the field is compared with.
    pub kind: FieldKind,
    /// The meaning of the field, for people.
    pub help: &'static str,
}

/// The kind of values that a field is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// An id or a name; or with `~` a part of one.
    Name,
    /// The whole text; or with `~` a part of it.
    Text,
    /// A type of entry; or with `~` a part of it.
    EntryType,
    /// A glob, as in a view; or with `~` a part of the path.
    Path,
    /// A whole number, compared for equality.
    Number,
    /// A moment; the row's is that one or a later one.
    Since,
    /// A moment; the row's is an earlier one.
    Until,
}

/// Names that are no longer than this are compared with those of fields: comparing costs length times length.
const NAME_MAX: usize = 64;
/// The most characters of a caller's text that an error shows.
const SHOWN: usize = 64;
/// The similarity from which a field name is suggested for an unknown one, between 0 and 1.
const ALIKE: f64 = 0.7;

impl FieldSet {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The text of the error for a field that the list lacks.
    pub(super) fn without(&self, name: &str) -> String {
        let likeness = |field: &&Field| strsim::normalized_damerau_levenshtein(field.name, name);
        let near = self.fields.iter().filter(|_| name.len() <= NAME_MAX);
        let near = near.filter(|field| likeness(field) >= ALIKE);
        let near = near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        let hint = near.map_or_else(String::new, |field| format!(" (did you mean {}?)", field.name));
        let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
        format!(
            "{} have no field {}{hint}; they have: {}. In quotation marks it is a text to search for",
            self.list,
            shown(name),
            names.join(", ")
        )
    }
}

/// The text of a caller as an error shows it: one short line.
pub(super) fn shown(text: &str) -> String {
    let some: String = text.chars().take(SHOWN).collect();
    if some.len() < text.len() { format!("{some:?}...") } else { format!("{some:?}") }
}

const fn field(name: &'static str, kind: FieldKind, help: &'static str) -> Field {
    Field { name, kind, help }
}

const APP: Field = field("app", FieldKind::Name, "the app");
const REPOSITORY: Field = field(
    "repository",
    FieldKind::Name,
    "the repository: its `repository_id`, `owner/name` or the name alone",
);
const NAME: Field = field("name", FieldKind::Text, "`owner/name` of the repository");
const PATH: Field = field("path", FieldKind::Path, "the path of the file");
const KIND: Field =
    field("kind", FieldKind::Word(&["create", "update", "delete"]), "what happened to the file");
const STATUS: Field = field(
    "status",
    FieldKind::Number,
    "the last status code of the receiver; none for what it took at once, unless `delivery.history` is `all`",
);

/// The fields of the filter of `GET /api/deliveries`.
pub static DELIVERIES: FieldSet = FieldSet {
    list: "deliveries",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        field("branch", FieldKind::Name, "the branch: its full name, or the name without `refs/heads/`"),
        PATH,
        KIND,
        field(
            "state",
            FieldKind::Word(&["delivered", "parked", "failed", "pending", "dropped"]),
            "what became of it",
        ),
        STATUS,
        field("attempts", FieldKind::Number, "how often it was tried"),
        field("since", FieldKind::Since, "settled, or tried last, then or later"),
        field("until", FieldKind::Until, "settled, or tried last, before"),
    ],
    searched: &["name", "branch", "path"],
};

/// The fields of filters of dead letters, in lists, redrives and dismissals.
pub static LETTERS: FieldSet = FieldSet {
    list: "dead letters",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        PATH,
        KIND,
        field(
            "reason",
            FieldKind::Word(&["rejected", "failing", "content_unavailable", "skipped"]),
            "why it was given up",
        ),
        field(
            "state",
            FieldKind::Word(&["open", "redrive_requested", "redriven", "superseded", "dismissed"]),
            "where it stands",
        ),
        field("status", FieldKind::Number, "the last status code of the receiver; none if it did not answer"),
        field("answer", FieldKind::Text, "the beginning of the receiver's last answer"),
        field("since", FieldKind::Since, "given up then or later"),
        field("until", FieldKind::Until, "given up before"),
    ],
    searched: &["name", "path", "answer"],
};

/// The fields of filters of tasks, in lists and redrives.
pub static TASKS: FieldSet = FieldSet {
    list: "tasks",
    fields: &[
        field("id", FieldKind::Name, "the id of the task"),
        field("command", FieldKind::Name, "the command, which names the queue"),
        field(
            "state",
            FieldKind::Word(&[
                "waiting",
                "ready",
                "claimed",
                "succeeded",
                "failed",
                "dead",
                "aside",
                "cancelled",
            ]),
            "where it stands",
        ),
        field("priority", FieldKind::Number, "the priority, 0 to 9"),
        field("attempts", FieldKind::Number, "how often it was claimed"),
        field("worker", FieldKind::Name, "who has it or ended it: the id of a token"),
        field("error", FieldKind::Text, "what its last worker said"),
        field("since", FieldKind::Since, "created then or later"),
        field("until", FieldKind::Until, "created before"),
    ],
    searched: &["command", "error"],
};

/// What lists of queues may be filtered by.
pub static QUEUES: FieldSet = FieldSet {
    list: "queues",
    fields: &[
        APP,
        field("command", FieldKind::Name, "the command of its tasks"),
        field("state", FieldKind::Word(&["open", "paused"]), "whether its tasks are handed out"),
        field("waiting", FieldKind::Number, "how many tasks are not due yet"),
        field("ready", FieldKind::Number, "how many tasks may be claimed"),
        field("claimed", FieldKind::Number, "how many tasks workers have"),
        field("failed", FieldKind::Number, "how many tasks failed"),
        field("dead", FieldKind::Number, "how many tasks are dead"),
    ],
    searched: &["command"],
};

/// What lists of schedules may be filtered by.
pub static SCHEDULES: FieldSet = FieldSet {
    list: "schedules",
    fields: &[
        APP,
        field("name", FieldKind::Name, "the name of the schedule"),
        field("command", FieldKind::Name, "the command of its tasks"),
        field(
            "state",
            FieldKind::Word(&["active", "paused", "failing"]),
            "whether it has ticks; failing: the last try to create its task failed",
        ),
        field("cron", FieldKind::Text, "the cron line"),
        field("zone", FieldKind::Text, "the time zone of the line"),
        field("error", FieldKind::Text, "why the last try to create its task failed"),
    ],
    searched: &["name", "command", "zone"],
};

/// What lists of watches may be filtered by; on the wire a watch is a repository.
pub static REPOSITORIES: FieldSet = FieldSet {
    list: "repositories",
    fields: &[
        APP,
        REPOSITORY,
        NAME,
        field("url", FieldKind::Text, "the address, as it was given or as it is normalised"),
        field("watch_name", FieldKind::Text, "what tells the watch from others of the same refs"),
        field("state", FieldKind::Word(&["active", "paused"]), "what was chosen"),
        field(
            "condition",
            FieldKind::Word(&["behind", "blocked", "paused", "failing"]),
            "how it is; several may hold at once",
        ),
        field("mode", FieldKind::Word(&["net", "every"]), "how commits are delivered"),
        field("sink", FieldKind::Word(SinkKind::WORDS), "where its changes go"),
        field("command", FieldKind::Name, "the queue that its changes fill, where they become tasks"),
        field("error", FieldKind::Text, "what the last scan said, if it failed"),
        field("since", FieldKind::Since, "registered then or later"),
        field("until", FieldKind::Until, "registered before"),
    ],
    searched: &["name", "url", "watch_name", "error"],
};

/// The fields of filters of apps.
pub static APPS: FieldSet = FieldSet {
    list: "apps",
    fields: &[
        APP,
        field("name", FieldKind::Text, "the name"),
        field("email", FieldKind::Text, "the contact address"),
        field("url", FieldKind::Text, "where it receives"),
        field("description", FieldKind::Text, "what it is"),
        field("state", FieldKind::Word(&["enabled", "disabled"]), "whether it is served"),
        field("since", FieldKind::Since, "registered then or later"),
        field("until", FieldKind::Until, "registered before"),
    ],
    searched: &["name", "email", "url", "description"],
};

/// The fields of filters of ledger entries, in lists and tails.
pub static LEDGER: FieldSet = FieldSet {
    list: "entries",
    fields: &[
        APP,
        field(
            "repository",
            FieldKind::Name,
            "the repository: its `repository_id`, `owner/name` or the name alone; the names in `data` count \
             as well, so entries are found after the watch is removed",
        ),
        field("name", FieldKind::Text, "`owner/name` of the repository, of the watch or in `data`"),
        field("type", FieldKind::EntryType, "what happened: `watch.blocked`, or with `~` a part of it"),
        field("subject", FieldKind::Text, "the id of what changed"),
        field("origin", FieldKind::Word(&["commit", "tick", "person", "outside"]), "what caused it"),
        field(
            "by",
            FieldKind::Text,
            "the origin by its name: a token, `<cursor>/<round>`, `git`, `endpoint`",
        ),
        field("data", FieldKind::Text, "with `~` a part of the data, which is JSON"),
        field("since", FieldKind::Since, "written then or later"),
        field("until", FieldKind::Until, "written before"),
    ],
    searched: &["name", "type", "data"],
};

/// The fields of the filter of `GET /api/subscriptions`.
pub static SUBSCRIPTIONS: FieldSet = FieldSet {
    list: "subscriptions",
    fields: &[
        field("name", FieldKind::Name, "the subscription: its name or its `subscription_id`"),
        field(
            "state",
            FieldKind::Word(&["active", "paused", "blocked", "disabled", "expired"]),
            "how it stands",
        ),
        field("sink", FieldKind::Word(&["endpoint", "stream", "mail"]), "the kind of its sink"),
        field(
            "kind",
            FieldKind::Word(&["subscription", "callback"]),
            "made by a person, or by the `webhook` of tasks",
        ),
        field("filter", FieldKind::Text, "the text of its filter; with `~` a part of it"),
        field("reason", FieldKind::Text, "why it is blocked or disabled; with `~` a part of it"),
        field("since", FieldKind::Since, "made then or later"),
        field("until", FieldKind::Until, "made before"),
    ],
    searched: &["name", "filter", "reason"],
};

/// Every list that takes a filter.
pub static ALL: [&FieldSet; 9] =
    [&DELIVERIES, &LETTERS, &TASKS, &QUEUES, &SCHEDULES, &REPOSITORIES, &APPS, &LEDGER, &SUBSCRIPTIONS];
