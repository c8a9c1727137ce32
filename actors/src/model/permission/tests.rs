//! Permissions as people write them, and roles with every fault.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};

use super::{
    commands::Commands,
    narrowing::{Narrowing, Powers},
    roles::{RoleDefinition, Roles},
    *,
};

#[test]
fn each_permission_is_one_resource_and_one_action_and_stands_once() {
    let texts: BTreeSet<_> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
    assert_eq!(texts.len(), Permission::ALL.len());
    for permission in Permission::ALL {
        let is_plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        assert!(is_plain(permission.resource()) && is_plain(permission.action()), "{permission}");
        assert!(permission.opens().ends_with('.'), "{permission}");
    }
}

#[test]
fn roles_of_the_staff_grow_and_admins_may_everything() {
    let sets: Vec<_> = Role::ALL.iter().map(|role| PermissionSet::of_role(*role)).collect();
    for pair in sets.windows(2) {
        assert!(pair[0].beyond(pair[1]).is_empty() && !pair[1].beyond(pair[0]).is_empty());
    }
    assert_eq!(sets[2], PermissionSet::all());
    for permission in sets[0].iter() {
        assert_eq!(permission.action(), "read", "a viewer changes nothing");
    }
    assert!(!PermissionSet::of_apps().has(Permission::StaffTokensCreate));
}

fn meant(pattern: &str) -> String {
    match PermissionSet::of_pattern(pattern) {
        Ok(set) => set.iter().map(Permission::as_str).collect::<Vec<_>>().join(" "),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn a_star_stands_for_every_resource_or_every_action() {
    assert_eq!(meant("watches:scan"), "watches:scan");
    assert_eq!(meant("breakers:*"), "breakers:read breakers:set");
    assert_eq!(meant("*:pull"), "changes:pull");
    assert_eq!(PermissionSet::of_pattern("*:*"), Ok(PermissionSet::all()));
    let read = PermissionSet::of_pattern("*:read").expect("known");
    let viewer = PermissionSet::of_role(Role::Viewer).with(PermissionSet::of([Permission::ContentsRead]));
    assert_eq!(read, viewer);
}

#[test]
fn an_unknown_permission_is_refused_with_what_there_is() {
    for (pattern, words) in [
        ("", "\"\" is no permission: write resource:action"),
        ("*", "\"*\" is no permission: write resource:action"),
        ("admin", "is no permission"),
        ("aps:read", "there is no resource \"aps\"; the resources are apps, tokens, watches"),
        ("breakers:close", "\"breakers\" has no action \"close\"; its actions are read, set"),
        ("*:fly", "\"*\" has no action \"fly\""),
        ("breakers:", "has no action \"\""),
        ("breakers:read:all", "has no action \"read:all\""),
        ("Breakers:read", "there is no resource \"Breakers\""),
        ("break*:read", "there is no resource \"break*\""),
        (" breakers:read", "there is no resource \" breakers\""),
    ] {
        let said = meant(pattern);
        assert!(said.contains(words), "{pattern}: {said}");
    }
}

fn roles(definitions: &[(&str, &[&str], &[&str])]) -> Result<Roles, String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let definitions: BTreeMap<_, _> = definitions
        .iter()
        .map(|(name, includes, permissions)| {
            let role = RoleDefinition { includes: words(includes), permissions: words(permissions) };
            ((*name).to_owned(), role)
        })
        .collect();
    Roles::of(&definitions).map_err(|faults| {
        let line =
            |faulty: &super::roles::FaultyRole| format!("{}.{}: {}", faulty.role, faulty.part, faulty.fault);
        faults.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn a_role_has_what_it_includes_however_deep() {
    let made = roles(&[
        ("lead", &["support", "watchers"], &["staff-tokens:list"]),
        ("support", &["viewer"], &["dead-letters:*"]),
        ("watchers", &["support"], &["watches:scan"]),
    ])
    .expect("valid");
    let lead = made.get("lead").expect("there");
    let viewer = PermissionSet::of_role(Role::Viewer);
    let more = [
        Permission::DeadLettersRedrive,
        Permission::DeadLettersDismiss,
        Permission::WatchesScan,
        Permission::StaffTokensList,
    ];
    assert_eq!(lead, viewer.with(PermissionSet::of(more)));
    assert_eq!(made.of_staff(["support", "nobody", "app"]), made.get("support").expect("there"));
    assert_eq!(made.of_staff(["app"]), PermissionSet::NONE, "the staff are no app");
}

fn check_faults(definitions: &[(&str, &[&str], &[&str])], expected: &Expect) {
    expected.assert_eq(&roles(definitions).expect_err("a fault"));
}

#[test]
fn every_fault_of_a_role_is_named_with_its_mend() {
    check_faults(
        &[("viewer", &[], &["*:read"]), ("Support", &[], &["*:read"]), ("idle", &[], &[])],
        &expect![[r#"
            Support.: a role has a name of 1 to 40 small letters, digits, - and _
            idle.: it has no permissions: set includes, permissions or both
            viewer.: viewer, operator, admin and app are built in: give this role another name"#]],
    );
    check_faults(
        &[("support", &["viewr"], &["breakers:close"])],
        &expect![[r#"
            support.includes: there is no role "viewr": define [roles.viewr], or name one of admin, app, operator, viewer, support
            support.permissions: "breakers" has no action "close"; its actions are read, set"#]],
    );
    check_faults(
        &[
            ("a", &["b"], &[]),
            ("b", &["viewer", "c"], &[]),
            ("c", &["a"], &[]),
            ("d", &["a"], &[]),
            ("e", &["e"], &[]),
        ],
        &expect![[r#"
            a.includes: the roles include each other in a circle (a > b > c > a): take one of these includes away
            e.includes: the roles include each other in a circle (e > e): take one of these includes away"#]],
    );
}

fn commands(entries: &[&str]) -> Commands {
    let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    Commands::only(&entries).expect("valid")
}

#[test]
fn commands_are_names_and_globs() {
    let some = commands(&["mail.send", "orders.*"]);
    for command in ["mail.send", "orders.ship", "orders.", "orders.a.b/c"] {
        assert!(some.has(command), "{command}");
    }
    for command in ["mail.sen", "mail.send2", "xorders.a", "", "Mail.send"] {
        assert!(!some.has(command), "{command}");
    }
    assert!(Commands::All.has("anything") && !Commands::none().has("anything"));
    for entry in ["", "a b", "a**", "[ab]", "{a,b}", "a?", "ä", &"x".repeat(201)] {
        assert!(Commands::only(&[entry.to_owned()]).is_err(), "{entry}");
    }
    assert!(Commands::only(&vec!["x".to_owned(); 101]).is_err());
}

#[test]
fn a_list_of_commands_holds_another_only_where_it_covers_each_entry() {
    let check =
        |here: &[&str], wanted: &[&str]| commands(here).first_beyond(&commands(wanted)).map(str::to_owned);
    assert_eq!(check(&["mail.*"], &["mail.send", "mail.*", "mail.s*d"]), None);
    assert_eq!(check(&["*"], &["a*", "*b", "*"]), None);
    for (here, wanted) in [
        ("mail.s*", "mail.*"),
        ("*a", "*"),
        ("a", "a*"),
        ("a*", "*a"),
        ("a*c", "a*"),
        ("mail.send", "mail.*"),
    ] {
        assert_eq!(check(&[here], &[wanted]).as_deref(), Some(wanted), "{here} {wanted}");
    }
    assert_eq!(Commands::none().first_beyond(&Commands::All), Some("*"));
    assert_eq!(Commands::none().first_beyond(&Commands::none()), None);
    assert_eq!(Commands::All.first_beyond(&Commands::All), None);
}

#[test]
fn what_this_version_does_not_know_of_a_token_opens_nothing() {
    let roles = roles(&[("support", &[], &["breakers:set"])]).expect("valid");
    let narrowing = Narrowing {
        role: Some("support".to_owned()),
        permissions: vec!["breakers:read".to_owned(), "of-tomorrow:read".to_owned()],
        commands: Some(vec!["a[".to_owned()]),
    };
    let powers = Powers::of_narrowed(&narrowing, &roles);
    assert_eq!(powers.permissions, PermissionSet::of_pattern("breakers:*").expect("known"));
    assert!(!powers.may_use("a["), "a list that cannot be read is no list of all");
    let gone = Narrowing { role: Some("gone".to_owned()), ..Narrowing::default() };
    assert!(Powers::of_narrowed(&gone, &roles).permissions.is_empty());
}
