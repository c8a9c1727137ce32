//! The powers of a caller, and the narrowing of a token.

use super::{Permission, PermissionSet, commands::Commands, roles::Roles};

/// The narrowing of a token, in the words of the person who made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// A role of the settings; only of a token of the staff.
    pub role: Option<String>,
    /// The permissions, as patterns.
    pub permissions: Vec<String>,
    /// Names and globs of commands; `None`: every command.
    pub commands: Option<Vec<String>>,
}

/// The permissions and commands of a caller.
#[derive(Clone, Debug, Default)]
pub struct Powers {
    /// The permissions of the caller.
    pub permissions: PermissionSet,
    /// The commands that the caller may use.
    pub commands: Commands,
}

impl Powers {
    /// These permissions, and every command.
    #[must_use]
    pub fn of(permissions: PermissionSet) -> Self {
        Self { permissions, commands: Commands::All }
    }

    /// The powers of a narrowed token, with the present definitions of roles. Permissions that this version
    /// does not know open nothing.
    #[must_use]
    pub fn of_narrowed(narrowing: &Narrowing, roles: &Roles) -> Self {
        let known = narrowing.permissions.iter().filter_map(|text| PermissionSet::of_pattern(text).ok());
        let of_role = roles.of_staff(narrowing.role.as_deref());
        let commands = match &narrowing.commands {
            None => Commands::All,
            Some(entries) => Commands::only(entries).unwrap_or_else(|_| Commands::none()),
        };
        Self { permissions: known.fold(of_role, PermissionSet::with), commands }
    }

    /// Whether the caller has a permission.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// Whether the caller has all of these permissions, and every command.
    #[must_use]
    pub fn have_all_of(&self, permissions: PermissionSet) -> bool {
        permissions.beyond(self.permissions).is_empty() && self.commands.entries().is_none()
    }

    /// Whether the caller may use a command.
    #[must_use]
    pub fn may_use(&self, command: &str) -> bool {
        self.commands.has(command)
    }
}
