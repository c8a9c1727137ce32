//! `[roles.<name>]`: roles of the operator in addition to viewer, operator and admin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_actors::model::permission::roles::{RoleDefinition, Roles};

use super::Fault;

/// One role: a named set of permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleSettings {
    /// The roles whose permissions it has as well.
    pub includes: Vec<String>,
    /// Permissions, as `resource:action`; `*` stands for every resource or action.
    pub permissions: Vec<String>,
}

/// The built-in roles and those of the settings.
///
/// # Errors
/// Every fault, with the key that it lies in.
pub(super) fn resolved(roles: &BTreeMap<String, RoleSettings>) -> Result<Roles, Vec<Fault>> {
    let definition = |role: &RoleSettings| RoleDefinition {
        includes: role.includes.clone(),
        permissions: role.permissions.clone(),
    };
    let definitions = roles.iter().map(|(name, role)| (name.clone(), definition(role))).collect();
    Roles::of(&definitions).map_err(|faults| {
        let key = |role: &str, part: &str| match part {
            "" => format!("roles.{role}"),
            part => format!("roles.{role}.{part}"),
        };
        faults
            .iter()
            .map(|faulty| Fault::new(key(&faulty.role, faulty.part), faulty.fault.to_string()))
            .collect()
    })
}
