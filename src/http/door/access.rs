//! Who may call a route. A request carries the access of its route: the caller is checked again before each
//! part of a long answer.

use tidings_actors::model::permission::Permission;
use tidings_entity::kind::{HookProvider, Role};

/// The callers that a route admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// An app with this permission, for its own resources.
    App(Permission),
    /// An app with this permission, or with `tasks:claim`: then the handler checks that the caller has a
    /// claim on what it asks for.
    Holder(Permission),
    /// An app or the staff, with any valid token: the route is about the caller alone.
    Anybody,
    /// The staff with this permission, for all apps.
    Staff(Permission),
    /// A Git host of this kind, whose hook is proved by a secret of the settings.
    Hook(HookProvider),
    /// The same with a secret of the hook of an app that the path names.
    AppHook(HookProvider),
    /// Anyone or the staff that may register apps, as `onboarding.mode` says.
    Onboarding,
}

impl Access {
    /// The permission that the route requires; `None`: the caller needs no token, or any token.
    #[must_use]
    pub fn permission(self) -> Option<Permission> {
        match self {
            Self::App(permission) | Self::Holder(permission) | Self::Staff(permission) => Some(permission),
            Self::Onboarding => Some(Permission::AppsRegister),
            Self::Public | Self::Anybody | Self::Hook(_) | Self::AppHook(_) => None,
        }
    }

    /// The least built-in staff role that may call the route; `None` if the route is not for the staff.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Staff(_) | Self::Onboarding => self.permission().and_then(Permission::least_role),
            _ => None,
        }
    }

    /// Whether the route is for apps, with their own tokens.
    #[must_use]
    pub fn is_of_apps(self) -> bool {
        matches!(self, Self::App(_) | Self::Holder(_))
    }

    /// Whether the route is for hooks, which have their own delivery ids and receipts.
    #[must_use]
    pub fn is_of_hooks(self) -> bool {
        matches!(self, Self::Hook(_) | Self::AppHook(_))
    }
}
