//! Values of another type than their setting: a file has types, a variable is a text.

use super::load;

#[test]
fn a_value_of_another_type_in_a_file_is_refused_with_the_type_that_is_needed() {
    for (section, line, expected) in [
        ("", "data_dir = 5", "data_dir: 5 is a number, and a text in quotes is needed"),
        ("", "data_dir = true", "data_dir: true is a truth value, and a text in quotes is needed"),
        ("", "data_dir = []", "data_dir: this is a list, and a text in quotes is needed"),
        ("", "keyring_file = 5", "keyring_file: 5 is a number, and a text in quotes is needed"),
        ("database", "url = 5", "database.url: this cannot be read"),
        (
            "delivery",
            "app_rate = 1.6",
            "app_rate: 1.6 is a number with a fraction, and a whole number is needed",
        ),
        (
            "delivery",
            "app_rate = \"30\"",
            "app_rate: \"30\" is a text in quotes, and a whole number is needed",
        ),
        (
            "delivery",
            "app_rate = \"lots\"",
            "app_rate: \"lots\" is a text in quotes, and a whole number is needed",
        ),
        ("delivery", "app_rate = true", "app_rate: true is a truth value, and a whole number is needed"),
        ("egress", "allow = [5]", "egress.allow: 5 is a number, and a text in quotes is needed"),
        (
            "git",
            "allow_local = \"yes\"",
            "git.allow_local: \"yes\" is a text in quotes, and true or false is needed",
        ),
        ("git", "allow_local = 1", "git.allow_local: 1 is a number, and true or false is needed"),
        (
            "roles.support",
            "includes = [true]",
            "includes: true is a truth value, and a text in quotes is needed",
        ),
        ("telemetry", "trace_ratio = true", "true is a truth value, and a text or a number is needed"),
        ("watch", "max_delete_percent = true", "true is a truth value, and a text or a number is needed"),
    ] {
        let file = if section.is_empty() { line.to_owned() } else { format!("[{section}]\n{line}") };
        let faults = load(Some(&file), &[]).expect_err(line);
        assert!(faults.contains(expected), "{line}: {faults}");
        assert!(faults.ends_with("(in /etc/tidings.toml)"), "{line}: {faults}");
    }
}

#[test]
fn a_variable_is_a_text_and_is_read_as_the_type_of_its_setting() {
    let settings = load(
        None,
        &[
            ("TIDINGS__GIT__ALLOW_LOCAL", "true"),
            ("TIDINGS__EGRESS__ALLOW_HTTP", "yes"),
            ("TIDINGS__DELIVERY__APP_RATE", "30"),
            ("TIDINGS__DATA_DIR", "5"),
            ("TIDINGS__TELEMETRY__TRACE_RATIO", "0.5"),
            ("TIDINGS__WATCH__MAX_DELETE_PERCENT", "40"),
            ("TIDINGS__ROLES__SUPPORT__INCLUDES", "viewer"),
        ],
    )
    .expect("valid");
    assert!(settings.git.allow_local && settings.egress.allow_http);
    assert_eq!((settings.delivery.app_rate, settings.data_dir.to_str()), (30, Some("5")));
    assert_eq!((settings.telemetry.trace_ratio.share(), settings.watch.max_delete_percent), (0.5, Some(40)));
}

#[test]
fn a_share_or_a_percentage_in_a_file_may_be_a_number_or_a_text_and_an_empty_text_sets_nothing() {
    for (ratio, percent) in [("0.5", "40"), ("\"0.5\"", "\"40\"")] {
        let file = format!("[telemetry]\ntrace_ratio = {ratio}\n[watch]\nmax_delete_percent = {percent}\n");
        let settings = load(Some(&file), &[]).expect("valid");
        let share = settings.telemetry.trace_ratio.share();
        assert_eq!((share, settings.watch.max_delete_percent), (0.5, Some(40)));
    }
    let whole = load(Some("[telemetry]\nrequest_log_ratio = 0"), &[]).expect("valid");
    assert_eq!(whole.telemetry.request_log_ratio.to_string(), "0.0");
    let unset = load(Some("[git]\nallow_local = \"\"\n[delivery]\napp_rate = \"\""), &[]).expect("valid");
    assert_eq!(unset.redacted(), super::Settings::default().redacted());
}

#[test]
fn a_date_in_a_file_is_no_text() {
    for (file, expected) in [
        ("data_dir = 2026-01-31", "data_dir: 2026-01-31 is a date, and a text in quotes is needed"),
        (
            "[telemetry]\nlog_filter = 2026-01-31T08:00:00Z",
            "telemetry.log_filter: 2026-01-31T08:00:00Z is a date, and a text in quotes is needed",
        ),
        ("[egress]\nallow = [\"a.example\", 2026-01-31]", "2026-01-31 is a date, and a text"),
        ("[delivery]\napp_rate = 2026-01-31", "app_rate: 2026-01-31 is a date, and a whole number is needed"),
        ("[roles.support]\nincludes = [08:00:00]", "includes: 08:00:00 is a date, and a text in quotes"),
    ] {
        let faults = load(Some(file), &[]).expect_err(file);
        assert!(faults.contains(expected), "{file}: {faults}");
        assert!(faults.ends_with("(in /etc/tidings.toml)"), "{file}: {faults}");
    }
    let quoted = load(Some("data_dir = \"2026-01-31\""), &[]).expect("a text");
    assert_eq!(quoted.data_dir.to_str(), Some("2026-01-31"));
}

#[test]
fn a_table_in_the_place_of_a_value_is_refused_with_the_setting_and_the_type_that_is_needed() {
    for (file, expected) in [
        ("[onboarding]\nmode = {a = 1}", "onboarding.mode: this is a table, and a text in quotes is needed"),
        ("[onboarding]\nmode = {a = 1, b = 2}", "onboarding.mode: this is a table, and a text in quotes is"),
        ("[onboarding]\nmode = {}", "onboarding.mode: this is a table, and a text in quotes is needed"),
        ("[onboarding.mode.deep]\na = 1", "onboarding.mode: this is a table, and a text in quotes is needed"),
        ("[git.allow_local]\na = 1", "git.allow_local: this is a table, and true or false is needed"),
        ("[delivery.app_rate]\na = 1", "delivery.app_rate: this is a table, and a whole number is needed"),
        ("[egress.allow]\na = 1", "egress.allow: this is a table, and a list is needed"),
        ("[roles.support.includes]\na = 1", "roles.support.includes: this is a table, and a list is needed"),
        ("[server]\nadmin_token = {a = \"planted\"}", "server.admin_token: this is a table, and a text"),
    ] {
        let faults = load(Some(file), &[]).expect_err(file);
        assert!(faults.starts_with(expected), "{file}: {faults}");
        assert!(
            faults.ends_with("(in /etc/tidings.toml)") && !faults.contains("planted"),
            "{file}: {faults}"
        );
        assert_eq!(faults.lines().count(), 1, "{file}: {faults}");
    }
    let below = load(None, &[("TIDINGS__DATA_DIR__X", "1")]).expect_err("no setting");
    assert!(below.starts_with("data_dir.x: there is no such setting (in the variable"), "{below}");
}

#[test]
fn an_empty_table_of_a_file_has_the_name_of_a_section() {
    let faults = load(Some("[gti]\n"), &[]).expect_err("no section");
    assert!(faults.starts_with("gti: there is no such setting (in /etc/tidings.toml)"), "{faults}");
    let unset = load(Some("[git]\n[roles]\n[roles.support]\n"), &[]).expect("valid");
    assert_eq!(unset.git.allow_local, super::Settings::default().git.allow_local);
}
