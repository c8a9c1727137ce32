//! Who may call a route. A request carries the access of its route: before each part of a long answer the
//! caller is checked again.

use tidings_entity::kind::{HookProvider, Role};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// An app, with its token.
    App,
    /// Staff that may read: viewers and above.
    Viewer,
    /// Staff that may change deliveries and repositories: operators and above.
    Operator,
    /// Staff that may everything.
    Admin,
    /// A Git host of this kind, whose hook proves itself.
    Hook(HookProvider),
    /// Anyone or the administrator, as `onboarding.mode` says.
    Onboarding,
}

impl Access {
    /// The least role of the staff that may call it; `None` where it is not for the staff.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Viewer => Some(Role::Viewer),
            Self::Operator => Some(Role::Operator),
            Self::Admin | Self::Onboarding => Some(Role::Admin),
            Self::Public | Self::App | Self::Hook(_) => None,
        }
    }
}
