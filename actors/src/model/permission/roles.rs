//! Roles: named sets of permissions. `viewer`, `operator`, `admin` and `app` are built in; the operator
//! defines more, each by the roles that it includes and by patterns of permissions.

use std::collections::BTreeMap;

use thiserror::Error;
use tidings_entity::kind::Role;

use super::{PermissionSet, UnknownPermission};

/// The built-in set of an app's whole token.
pub const APP: &str = "app";
/// Longest name of a role, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// A role as the operator defines it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleDefinition {
    /// The roles whose permissions it has as well.
    pub includes: Vec<String>,
    /// Further permissions of the role, as patterns.
    pub permissions: Vec<String>,
}

/// An error in the definition of a role.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RoleFault {
    /// The name of a role that is built in.
    #[error("viewer, operator, admin and app are built in: give this role another name")]
    BuiltIn,
    /// A name that is not allowed in settings, tokens and claims alike.
    #[error("a role has a name of 1 to 40 small letters, digits, - and _")]
    Name,
    /// The role would open nothing.
    #[error("it has no permissions: set includes, permissions or both")]
    Empty,
    /// A role that is not defined.
    #[error("there is no role {0:?}: define [roles.{0}], or name one of {known}", known = .1.join(", "))]
    Unknown(String, Vec<String>),
    /// A role that includes itself, directly or through others.
    #[error("the roles include each other in a circle ({}): take one of these includes away", .0.join(" > "))]
    Cycle(Vec<String>),
    /// A permission that nothing is known of.
    #[error(transparent)]
    Permission(#[from] UnknownPermission),
}

/// A fault in the definitions of roles, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyRole {
    /// The name of the role.
    pub role: String,
    /// The part of the definition: `includes`, `permissions`, or empty for the role itself.
    pub part: &'static str,
    /// The error in that part.
    pub fault: RoleFault,
}

/// Every role by its name.
#[derive(Clone, Debug)]
pub struct Roles {
    sets: BTreeMap<String, PermissionSet>,
}

impl Default for Roles {
    /// The built-in roles alone.
    fn default() -> Self {
        let mut sets: BTreeMap<String, PermissionSet> =
            Role::ALL.iter().map(|role| (role.to_string(), PermissionSet::of_role(*role))).collect();
        sets.insert(APP.to_owned(), PermissionSet::of_apps());
        Self { sets }
    }
}

impl Roles {
    /// The built-in roles and these.
    ///
    /// # Errors
    /// Every fault of the definitions.
    pub fn of(definitions: &BTreeMap<String, RoleDefinition>) -> Result<Self, Vec<FaultyRole>> {
        let mut roles = Self::default();
        let own = definitions.keys().filter(|name| !roles.sets.contains_key(*name));
        let known: Vec<String> = roles.sets.keys().chain(own).cloned().collect();
        let mut faults = Vec::new();
        for (name, definition) in definitions {
            let mut fault = |part, fault| faults.push(FaultyRole { role: name.clone(), part, fault });
            if roles.sets.contains_key(name) {
                fault("", RoleFault::BuiltIn);
            } else if !is_name(name) {
                fault("", RoleFault::Name);
            }
            if definition.includes.is_empty() && definition.permissions.is_empty() {
                fault("", RoleFault::Empty);
            }
            for other in definition.includes.iter().filter(|other| !known.contains(other)) {
                fault("includes", RoleFault::Unknown(other.clone(), known.clone()));
            }
            for pattern in &definition.permissions {
                if let Err(unknown) = PermissionSet::of_pattern(pattern) {
                    fault("permissions", unknown.into());
                }
            }
            if let Some(cycle) = cycle(definitions, name) {
                fault("includes", RoleFault::Cycle(cycle));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        for name in definitions.keys() {
            let set = meant(definitions, &roles.sets, name);
            roles.sets.insert(name.clone(), set);
        }
        Ok(roles)
    }

    /// The permissions of a role; `None`: there is no such role.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<PermissionSet> {
        self.sets.get(name).copied()
    }

    /// The permissions of those staff roles that exist; a role that was removed has none. `app` is no role of
    /// the staff.
    #[must_use]
    pub fn of_staff<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> PermissionSet {
        let known = names.into_iter().filter(|name| *name != APP).filter_map(|name| self.get(name));
        known.fold(PermissionSet::NONE, PermissionSet::with)
    }

    /// Whether the staff may have a role of this name.
    #[must_use]
    pub fn is_of_staff(&self, name: &str) -> bool {
        name != APP && self.sets.contains_key(name)
    }

    /// The names of all roles that the staff may have, the built-in ones first.
    #[must_use]
    pub fn names_of_staff(&self) -> Vec<&str> {
        let built_in = || Role::ALL.iter().map(|role| role.as_str());
        let own = self.sets.keys().map(String::as_str);
        built_in().chain(own.filter(|name| *name != APP && built_in().all(|role| role != *name))).collect()
    }
}

/// Whether a text can be the name of a role, or of another table of the settings.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The path from a role back to itself, if there is one. Each cycle is reported once, under its first name.
fn cycle(definitions: &BTreeMap<String, RoleDefinition>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen: Vec<String> = Vec::new();
    while let Some(way) = ways.pop() {
        let last = way.last().expect("a way has its start");
        for next in definitions.get(last).into_iter().flat_map(|definition| &definition.includes) {
            if next == start {
                let is_first = way.iter().all(|name| name.as_str() >= start);
                return is_first.then(|| [way, vec![next.clone()]].concat());
            }
            if !seen.contains(next) {
                seen.push(next.clone());
                ways.push([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// The permissions of a role. Its definition, and those of all included roles, have no fault.
fn meant(
    definitions: &BTreeMap<String, RoleDefinition>,
    built_in: &BTreeMap<String, PermissionSet>,
    name: &str,
) -> PermissionSet {
    let Some(definition) = definitions.get(name) else {
        return built_in.get(name).copied().unwrap_or_default();
    };
    let own = PermissionSet::of_patterns(definition.permissions.iter().map(String::as_str));
    let included = definition.includes.iter().map(|other| meant(definitions, built_in, other));
    included.fold(own.unwrap_or_default(), PermissionSet::with)
}
