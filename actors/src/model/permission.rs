//! Permissions: what a caller may do, as `resource:action`.
//!
//! [`Permission`] is the only list. Each entry names the built-in set that has the permission and says what
//! the permission opens; a new route uses one of them or adds an entry. A caller holds a [`PermissionSet`].
//! Settings, tokens and issuers write permissions as patterns: `*` stands for every resource or every action.
//! A pattern is resolved against the list of the running version: a wildcard includes permissions that a new
//! version adds.
//!
//! Ownership is checked before permissions: a token of an app opens only routes of that app, whatever
//! permissions the token has.

pub mod commands;
pub mod narrowing;
pub mod roles;

use std::fmt;

use thiserror::Error;
use tidings_entity::kind::Role;

/// Which built-in set has a permission. `admin` has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The token of an app, for that app.
    App,
    /// Viewers, and so operators.
    Viewer,
    /// The operators of the staff.
    Operator,
    /// The admins of the staff alone.
    Admin,
}

macro_rules! permissions {
    ($($name:ident = $text:literal, [$($holder:ident)+], $opens:literal;)+) => {
        /// The permission that a route requires of its caller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission { $(#[doc = $opens] $name,)+ }

        impl Permission {
            /// Every permission, resource by resource.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The permission as text: `resource:action`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the permission opens, as a sentence without its subject.
            #[must_use]
            pub const fn opens(self) -> &'static str {
                match self { $(Self::$name => $opens,)+ }
            }

            const fn holders(self) -> &'static [Holder] {
                match self { $(Self::$name => &[$(Holder::$holder),+],)+ }
            }
        }
    };
}

permissions! {
    AppsRead = "apps:read", [App Viewer], "Show an app and its settings.";
    AppsUpdate = "apps:update", [App Admin], "Change an app: its endpoint, credentials and delivery.";
    AppsTest = "apps:test", [App Operator], "Send a test delivery to the endpoint of an app.";
    AppsErase = "apps:erase", [App Admin], "Erase an app with everything that is known of it.";
    AppsRegister = "apps:register", [Admin], "Register an app where `onboarding.mode` is `admin`.";
    TokensRead = "tokens:read", [App Viewer], "List the tokens of an app.";
    TokensCreate = "tokens:create", [App Admin], "Make a token of an app within what its maker may.";
    TokensRevoke = "tokens:revoke", [App Admin], "Revoke a token of an app.";
    WatchesRead = "watches:read", [App Viewer], "List and show watches, and follow their progress.";
    WatchesCreate = "watches:create", [App Admin], "Register a repository, with its credential.";
    WatchesPreview = "watches:preview", [App Admin], "List what a watch would deliver, with its credential.";
    WatchesUpdate = "watches:update", [App Operator], "Change what a watch follows and where it sends.";
    WatchesCredential = "watches:credential", [App Admin], "Replace the credential or sink key of a watch.";
    WatchesRemove = "watches:remove", [App Operator], "End a watch.";
    WatchesScan = "watches:scan", [App Operator], "Ask for a scan.";
    WatchesPause = "watches:pause", [App Operator], "Pause and resume a watch.";
    WatchesSkip = "watches:skip", [App Operator], "Skip the change at the head of a lane.";
    WatchesResync = "watches:resync", [App Operator], "Send every file again.";
    WatchesReplay = "watches:replay", [App Operator], "Send again what changed since a commit.";
    WatchesTest = "watches:test", [App Operator], "Send a test delivery to the sink of a watch.";
    ChangesRead = "changes:read", [App Viewer], "List changes and rounds of a watch.";
    ChangesPull = "changes:pull", [App], "Take pending changes of a watch, and settle them.";
    FilesRead = "files:read", [App Viewer], "List the files that an app holds.";
    ContentsRead = "contents:read", [App Operator], "Read contents of files and bodies of deliveries.";
    DeliveriesRead = "deliveries:read", [App Viewer], "List deliveries, and show one with its tries.";
    DeadLettersRead = "dead-letters:read", [App Viewer], "List dead letters and redrives.";
    DeadLettersRedrive = "dead-letters:redrive", [App Operator], "Redrive dead letters; cancel a redrive.";
    DeadLettersDismiss = "dead-letters:dismiss", [App Operator], "Dismiss dead letters.";
    LedgerRead = "ledger:read", [App Viewer], "Read and follow the ledger.";
    SubscriptionsRead = "subscriptions:read", [App Viewer], "List subscriptions and their tries.";
    SubscriptionsCreate = "subscriptions:create", [App Admin], "Make a subscription.";
    SubscriptionsUpdate = "subscriptions:update", [App Admin], "Change a subscription.";
    SubscriptionsRemove = "subscriptions:remove", [App Operator], "End a subscription.";
    SubscriptionsPause = "subscriptions:pause", [App Operator], "Pause and resume a subscription.";
    SubscriptionsRotateKey = "subscriptions:rotate-key", [App Admin], "Give a subscription a new key.";
    SubscriptionsSend = "subscriptions:send", [App Operator], "Send an entry to a subscription again.";
    SubscriptionsTest = "subscriptions:test", [App Operator], "Send a test message to a subscription.";
    HooksRead = "hooks:read", [App Viewer], "List the hooks of an app.";
    HooksCreate = "hooks:create", [App Admin], "Make a hook, which shows its secret.";
    HooksUpdate = "hooks:update", [App Operator], "Change the name and the repositories of a hook.";
    HooksRotateSecret = "hooks:rotate-secret", [App Admin], "Give a hook a new secret, which is shown.";
    HooksRemove = "hooks:remove", [App Operator], "Remove a hook.";
    ReceiptsRead = "receipts:read", [App Viewer], "List received hooks without their bodies.";
    ReceiptsOpen = "receipts:open", [App Operator], "Show a received hook with its body.";
    ReceiptsReplay = "receipts:replay", [App Operator], "Take a received hook in again.";
    TasksCreate = "tasks:create", [App Operator], "Create tasks.";
    TasksClaim = "tasks:claim", [App], "Claim and end tasks, and create those that follow one up.";
    WorkersSubscribe = "workers:subscribe", [App], "Make, extend and remove worker subscriptions.";
    TasksRead = "tasks:read", [App Viewer], "List tasks, and show one with its payload and result.";
    TasksArtifacts = "tasks:artifacts", [App Operator], "Put and remove artifacts of tasks.";
    TasksCancel = "tasks:cancel", [App Operator], "Cancel a task.";
    TasksRedrive = "tasks:redrive", [App Operator], "Make ended tasks ready again.";
    QueuesRead = "queues:read", [App Viewer], "List queues, and show one with its counts.";
    QueuesUpdate = "queues:update", [App Operator], "Set limits, retries and retention of a queue.";
    QueuesPause = "queues:pause", [App Operator], "Pause and resume a queue.";
    QueuesPurge = "queues:purge", [App Operator], "Remove the tasks of a queue.";
    SchedulesRead = "schedules:read", [App Viewer], "List schedules, and show one with its next ticks.";
    SchedulesUpdate = "schedules:update", [App Operator], "Make, change and remove a schedule.";
    SchedulesPause = "schedules:pause", [App Operator], "Pause and resume a schedule.";
    SourcesRead = "sources:read", [Viewer], "List the sources of all repositories.";
    BreakersRead = "breakers:read", [Viewer], "List breakers.";
    BreakersSet = "breakers:set", [Operator], "Open and reset breakers.";
    SystemRead = "system:read", [Viewer], "Show the overview, lag, storage, mirrors, replicas and the tree.";
    SystemLog = "system:log", [Admin], "Change the log filter of the running server.";
    SettingsRead = "settings:read", [Viewer], "Show the settings of the server, without secrets.";
    AuditRead = "audit:read", [Viewer], "Read, export and verify the audit log.";
    KeysList = "keys:list", [Admin], "List the keys that seal secrets.";
    KeysRotate = "keys:rotate", [Admin], "Rotate, reencrypt and retire the keys that seal secrets.";
    StaffTokensList = "staff-tokens:list", [Admin], "List the tokens of the staff.";
    StaffTokensCreate = "staff-tokens:create", [Admin], "Make a token of the staff, within its maker's.";
    StaffTokensRevoke = "staff-tokens:revoke", [Admin], "Revoke a token of the staff.";
}

/// A `PermissionSet` has one bit for each permission.
const _: () = assert!(Permission::ALL.len() <= 128, "a PermissionSet has 128 bits");

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Permission {
    /// The part before the colon.
    #[must_use]
    pub fn resource(self) -> &'static str {
        self.parts().0
    }

    /// The part behind the colon.
    #[must_use]
    pub fn action(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (&'static str, &'static str) {
        self.as_str().split_once(':').expect("each text of the list has one colon; a test reads them")
    }

    /// The least built-in role of the staff that has it; `None`: no route of the staff asks for it.
    #[must_use]
    pub fn least_role(self) -> Option<Role> {
        self.holders().iter().find_map(|holder| match holder {
            Holder::App => None,
            Holder::Viewer => Some(Role::Viewer),
            Holder::Operator => Some(Role::Operator),
            Holder::Admin => Some(Role::Admin),
        })
    }

    /// Whether the token of an app has it, for that app.
    #[must_use]
    pub fn is_of_apps(self) -> bool {
        self.holders().contains(&Holder::App)
    }

    const fn bit(self) -> u128 {
        1 << self as u32
    }
}

/// Permissions that a caller has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermissionSet(u128);

impl PermissionSet {
    /// The set without any permission.
    pub const NONE: Self = Self(0);

    /// The set of these permissions.
    #[must_use]
    pub fn of(permissions: impl IntoIterator<Item = Permission>) -> Self {
        permissions.into_iter().fold(Self::NONE, |set, permission| Self(set.0 | permission.bit()))
    }

    /// Every permission that there is.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Permission::ALL.iter().copied())
    }

    /// The permissions of an unnarrowed app token, for its own app.
    #[must_use]
    pub fn of_apps() -> Self {
        Self::of(Permission::ALL.iter().copied().filter(|permission| permission.is_of_apps()))
    }

    /// The permissions of a built-in staff role. Each role includes the one below it; admins have all.
    #[must_use]
    pub fn of_role(role: Role) -> Self {
        if role == Role::Admin {
            return Self::all();
        }
        let reaches = |permission: &Permission| permission.least_role().is_some_and(|least| least <= role);
        Self::of(Permission::ALL.iter().copied().filter(reaches))
    }

    /// The permissions of a pattern: `resource:action`, where `*` stands for all of a part.
    ///
    /// # Errors
    /// [`UnknownPermission`], which names the unknown part.
    pub fn of_pattern(pattern: &str) -> Result<Self, UnknownPermission> {
        let Some((resource, action)) = pattern.split_once(':') else {
            return Err(UnknownPermission::NoColon(pattern.to_owned()));
        };
        let is_of = |part: &str, word: &str| word == "*" || word == part;
        let of_resource: Vec<Permission> =
            Permission::ALL.iter().copied().filter(|known| is_of(known.resource(), resource)).collect();
        if of_resource.is_empty() {
            return Err(UnknownPermission::Resource(resource.to_owned()));
        }
        let meant = Self::of(of_resource.iter().copied().filter(|known| is_of(known.action(), action)));
        if meant.is_empty() {
            return Err(UnknownPermission::Action {
                resource: resource.to_owned(),
                action: action.to_owned(),
                known: distinct(of_resource.iter().map(|known| known.action())).join(", "),
            });
        }
        Ok(meant)
    }

    /// The union of the permissions of patterns.
    ///
    /// # Errors
    /// For the first pattern that matches nothing.
    pub fn of_patterns<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, UnknownPermission> {
        patterns.into_iter().try_fold(Self::NONE, |set, pattern| Ok(set.with(Self::of_pattern(pattern)?)))
    }

    /// The union of two sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The permissions that both sets have.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The permissions that the other set lacks.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set has this permission.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Whether the set has no permission.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The permissions, in the order of the list.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }
}

/// A permission that does not exist, with those that do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnknownPermission {
    /// The text is not `resource:action`.
    #[error("{0:?} is no permission: write resource:action, such as watches:read, or *:* for everything")]
    NoColon(String),
    /// No permission has this resource.
    #[error("there is no resource {0:?}; the resources are {all}", all = resources().join(", "))]
    Resource(String),
    /// The resource has no such action.
    #[error("{resource:?} has no action {action:?}; its actions are {known}")]
    Action {
        /// The resource that was named, or `*`.
        resource: String,
        /// The action that it lacks.
        action: String,
        /// The actions that it has.
        known: String,
    },
}

/// Every resource, in the order of the list.
#[must_use]
pub fn resources() -> Vec<&'static str> {
    distinct(Permission::ALL.iter().map(|permission| permission.resource()))
}

fn distinct(words: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    words.fold(Vec::new(), |mut seen, word| {
        if !seen.contains(&word) {
            seen.push(word);
        }
        seen
    })
}

#[cfg(test)]
mod tests;
