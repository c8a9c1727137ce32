//! The powers of a new token: read from the body of a request, and compared with those of its creator.

use tidings_actors::{
    model::permission::{
        Permission, PermissionSet,
        commands::Commands,
        narrowing::{Narrowing, Powers},
        roles::Roles,
    },
    ports::TokenOwner,
};
use tidings_entity::{id::AppId, kind::Role};

use crate::http::bodies::{
    fields::Fields,
    problem::{Kind, Problem},
};

/// The most patterns of permissions of one token.
const PATTERNS_MAX: usize = 100;

/// The requested token: its owner and powers.
pub(super) struct Wanted {
    /// The owner of the token.
    pub(super) owner: TokenOwner,
    /// The narrowing; `None`: the token may do what its owner may.
    pub(super) narrowing: Option<Narrowing>,
    /// The powers of the token.
    powers: Powers,
    /// The most permissions that a token of this owner may have.
    domain: PermissionSet,
}

/// Refuses `null` for what narrows a token, unlike for other fields: a client that has lost its list must not
/// get a token without bounds.
fn refuse_null(fields: &mut Fields) {
    for name in ["permissions", "commands"] {
        if fields.null(name) {
            fields.refuse(name, "must be a list; leave it out for a token without this bound");
        }
    }
}

/// The token that an app requests; `None`: a field was refused.
pub(super) fn of_app(fields: &mut Fields, app: AppId) -> Option<Wanted> {
    let domain = PermissionSet::of_apps();
    refuse_null(fields);
    let (has_permissions, has_commands) = (fields.has("permissions"), fields.has("commands"));
    let permissions = permissions(fields, domain);
    let commands = commands(fields);
    let owner = TokenOwner::App(app);
    if has_commands && !has_permissions {
        fields.refuse("permissions", "is required beside commands");
        return None;
    }
    if !has_permissions {
        return Some(Wanted { owner, narrowing: None, powers: Powers::of(domain), domain });
    }
    let (patterns, permissions) = permissions?;
    let (entries, commands) = commands?;
    let narrowing = Narrowing { role: None, permissions: patterns, commands: entries };
    Some(Wanted { owner, narrowing: Some(narrowing), powers: Powers { permissions, commands }, domain })
}

/// The token that is requested for a member of the staff; `None`: a field was refused.
pub(super) fn of_staff(fields: &mut Fields, roles: &Roles) -> Option<Wanted> {
    let domain = PermissionSet::all();
    refuse_null(fields);
    let given = (fields.has("role"), fields.has("permissions"));
    let role = fields.text("role", 1..=64);
    let permissions = permissions(fields, domain);
    let commands = commands(fields);
    let known = role.as_deref().and_then(|name| roles.get(name).filter(|_| roles.is_of_staff(name)));
    match given {
        (false, false) => {
            fields.refuse("role", "is required unless permissions are given");
            return None;
        }
        (true, true) => {
            let mend = "cannot stand beside role: define a role of both in the settings ([roles])";
            fields.refuse("permissions", mend);
            return None;
        }
        (true, false) if known.is_none() => {
            let names = roles.names_of_staff();
            fields.refuse("role", format!("must be one of: {}", names.join(", ")));
            return None;
        }
        _ => {}
    }
    let (entries, commands) = commands?;
    let (patterns, permissions) = match known {
        Some(permissions) => (Vec::new(), permissions),
        None => permissions?,
    };
    let powers = Powers { permissions, commands };
    let built_in = role.as_deref().and_then(|role| role.parse::<Role>().ok());
    if let Some(built_in) = built_in.filter(|_| entries.is_none()) {
        return Some(Wanted { owner: TokenOwner::Staff(Some(built_in)), narrowing: None, powers, domain });
    }
    let narrowing = Narrowing { role, permissions: patterns, commands: entries };
    Some(Wanted { owner: TokenOwner::Staff(None), narrowing: Some(narrowing), powers, domain })
}

/// The patterns of a body, and their permissions within `domain`.
fn permissions(fields: &mut Fields, domain: PermissionSet) -> Option<(Vec<String>, PermissionSet)> {
    let patterns = fields.texts("permissions")?;
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        fields.refuse("permissions", format!("has 1 to {PATTERNS_MAX} entries, such as watches:read"));
        return None;
    }
    let mut set = PermissionSet::NONE;
    for pattern in &patterns {
        match PermissionSet::of_pattern(pattern).map(|meant| meant.both(domain)) {
            Ok(meant) if meant.is_empty() => {
                fields.refuse("permissions", format!("holds {pattern:?}, which gives an app no permission"));
                return None;
            }
            Ok(meant) => set = set.with(meant),
            Err(unknown) => {
                fields.refuse("permissions", format!("holds an invalid entry: {unknown}"));
                return None;
            }
        }
    }
    Some((patterns, set))
}

/// The commands of a body; every command if it names none.
fn commands(fields: &mut Fields) -> Option<(Option<Vec<String>>, Commands)> {
    if !fields.has("commands") {
        return Some((None, Commands::All));
    }
    let entries = fields.texts("commands")?;
    match Commands::only(&entries) {
        Ok(commands) => Some((Some(entries), commands)),
        Err(fault) => {
            fields.refuse("commands", fault.to_string());
            None
        }
    }
}

impl Wanted {
    /// The same token, if it may do no more than its creator. If the creator does not have all permissions,
    /// wildcards are replaced by the permissions of today: the token must not gain a permission of a later
    /// version that its creator lacks.
    ///
    /// # Errors
    /// 403 that names the permissions that the creator lacks.
    pub(super) fn within(mut self, maker: &Powers) -> Result<Self, Problem> {
        let refused = |what: String| {
            let detail = format!("the token would have {what}, and its maker lacks that");
            Err(Problem::new(Kind::PERMISSION_REQUIRED).with_detail(detail))
        };
        let beyond = self.powers.permissions.beyond(maker.permissions);
        if let Some(permission) = beyond.iter().next() {
            return refused(format!("the permission {permission}"));
        }
        if let Some(command) = maker.commands.first_beyond(&self.powers.commands) {
            return refused(format!("the command {command}"));
        }
        let is_whole = self.domain.beyond(maker.permissions).is_empty();
        if let Some(narrowing) = self.narrowing.as_mut().filter(|_| !is_whole) {
            let wildcards = narrowing.permissions.iter().any(|pattern| pattern.contains('*'));
            if wildcards {
                let named = self.powers.permissions.iter().map(Permission::as_str);
                narrowing.permissions = named.map(str::to_owned).collect();
            }
        }
        Ok(self)
    }
}
