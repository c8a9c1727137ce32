//! Settings as an operator meets them: defaults, layers, and every kind of fault.

mod typed;

use std::{collections::BTreeSet, fs, path::Path};

use expect_test::{Expect, expect};
use tidings_entity::kind::ReplicaRole;

use super::{
    load::{DEFAULTS, parse},
    *,
};

fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidings.toml");
    if let Some(text) = file {
        fs::write(&path, text).expect("written");
    }
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Settings::load(file.map(|_| path.as_path()), variables).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(&folder.path().display().to_string(), "/etc")
    })
}

fn check_faults(file: Option<&str>, variables: &[(&str, &str)], expected: &Expect) {
    expected.assert_eq(&load(file, variables).expect_err("faults"));
}

fn keys(prefix: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(table) => table.iter().for_each(|(name, value)| keys(&format!("{prefix}.{name}"), value, found)),
        None => {
            found.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn the_commented_file_holds_every_key_with_its_default() {
    let from_file = load(Some(DEFAULTS), &[]).expect("valid").redacted();
    assert_eq!(from_file, Settings::default().redacted());
    let mut in_structs = BTreeSet::new();
    keys("", &Settings::default().redacted(), &mut in_structs);
    let in_file: BTreeSet<_> =
        parse(DEFAULTS).expect("valid").into_iter().map(|(key, _)| key.join(".")).collect();
    assert_eq!(in_file, in_structs);
    insta::assert_json_snapshot!("default_settings", from_file);
}

#[test]
fn every_key_of_the_commented_file_has_a_comment() {
    let lines: Vec<_> = DEFAULTS.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1]
            .split_once('=')
            .is_some_and(|(name, _)| name.trim().chars().all(|c| c.is_alphanumeric() || c == '_'));
        assert!(!is_key || pair[0].starts_with('#'), "{}", pair[1]);
    }
}

#[test]
fn the_development_file_is_valid() {
    let text = include_str!("../../config/development.toml");
    assert_eq!(load(Some(text), &[]).expect("valid").onboarding.mode, OnboardingMode::Open);
}

#[test]
fn the_environment_goes_before_the_file() {
    let settings = load(
        Some("[server]\nlisten = \"127.0.0.1:1\"\n[git]\nallow_local = true"),
        &[
            ("TIDINGS__SERVER__LISTEN", "127.0.0.1:2"),
            ("TIDINGS__EGRESS__ALLOW", "10.0.0.0/8, ci.internal"),
            ("TIDINGS__WATCH__MAX_DELETE_PERCENT", "40"),
            ("PATH", "/bin"),
        ],
    )
    .expect("valid");
    assert_eq!(settings.server.listen.port(), 2);
    assert!(settings.git.allow_local);
    assert_eq!(settings.watch.max_delete_percent, Some(40));
    assert_eq!(settings.redacted()["egress"]["allow"].as_array().map(Vec::len), Some(2));
}

#[test]
fn all_faults_are_reported_together_with_value_and_place() {
    check_faults(
        Some("[git]\npoll_min = 45\n[server]\nlisten = \"here\"\nlisten_port = 1\nheaders_max = 1"),
        &[
            ("TIDINGS__SERVR__LISTEN", "x"),
            ("TIDINGS_SERVER__TRUSTED_PROXIES", "127.0.0.1"),
            ("TIDINGS_DATA_DIR", "/var/lib/tidings"),
            ("TIDINGS_TOKEN", "no setting"),
            ("TIDINGS_SERVER", "no setting"),
            ("tidings__git__poll_max", "-5m"),
            ("TIDINGS__DELIVERY__RETRY_BASE", "2h"),
        ],
        &expect![[r#"
            server.trusted_proxies: two underscores stand before each part of the name: write TIDINGS__SERVER__TRUSTED_PROXIES instead of TIDINGS_SERVER__TRUSTED_PROXIES
            data_dir: two underscores stand before each part of the name: write TIDINGS__DATA_DIR instead of TIDINGS_DATA_DIR
            git.poll_max: "-5m" is no duration: expected number at 0 (in the variable tidings__git__poll_max)
            git.poll_min: "45" is no duration: time unit needed, for example 45sec or 45ms (in /etc/tidings.toml)
            server.listen: "here": an address and a port are needed, such as 127.0.0.1:8080 (in /etc/tidings.toml)
            server.listen_port: there is no such setting (in /etc/tidings.toml)
            servr.listen: there is no such setting (in the variable TIDINGS__SERVR__LISTEN); did you mean server.listen?
            server.headers_max: 1 does not lie between 8 and 1024 (in /etc/tidings.toml)
            delivery.retry_base: 2h is longer than delivery.retry_cap, which is 1h (in the variable TIDINGS__DELIVERY__RETRY_BASE)"#]],
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    check_faults(
        Some(
            "server = 5\n[watch]\nmax_delete_percent = 101\n[delivery]\nhistory = \"some\"\nhistory_days = -1",
        ),
        &[],
        &expect![[r#"
            delivery.history: unknown value `some`, expected `failed` or `all` (in /etc/tidings.toml)
            delivery.history_days: invalid type: 64-bit integer `-1`, expected an unsigned 64 bit or less integer (in /etc/tidings.toml)
            server: 5 is a number, and a table of settings is needed (in /etc/tidings.toml)
            watch.max_delete_percent: "101" is neither "off" nor a number from 1 to 100 (in /etc/tidings.toml)"#]],
    );
    check_faults(
        Some(
            "data_dir.x = 1\n[onboarding]\nmode = true\n[egress]\nallow_http = \"perhaps\"\n[delivery]\nattempt_timeout = \"0s\"\nhistory_days = 0",
        ),
        &[
            ("TIDINGS__SERVER", "x"),
            ("TIDINGS__", "x"),
            ("TIDINGS__TELEMETRY__LOG_FILTER", "a=b=c"),
            ("TIDINGS__TELEMETRY__OTLP_ENDPOINT", "ftp://x"),
        ],
        &expect![[r#"
            : there is no such setting (in the variable TIDINGS__)
            data_dir: this is a table, and a text in quotes is needed (in /etc/tidings.toml)
            egress.allow_http: "perhaps" is a text in quotes, and true or false is needed (in /etc/tidings.toml)
            onboarding.mode: unknown value `true`, expected `admin` or `open` (in /etc/tidings.toml)
            server: invalid type: string "x", expected struct ServerSettings (in the variable TIDINGS__SERVER)
            delivery.attempt_timeout: "0s" is too short: it must be longer than nothing (in /etc/tidings.toml)
            delivery.history_days: 0 does not lie between 1 and 36500 (in /etc/tidings.toml)
            telemetry.log_filter: "a=b=c" is no filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5 (in the variable TIDINGS__TELEMETRY__LOG_FILTER)
            telemetry.otlp_endpoint: the address must be http:// or https://, without user and password (in the variable TIDINGS__TELEMETRY__OTLP_ENDPOINT)"#]],
    );
}

#[test]
fn a_role_that_leaves_work_to_others_needs_a_database_that_is_shared() {
    let role = "[server]\nrole = \"api\"";
    check_faults(
        Some(role),
        &[],
        &expect![[
            r#"server.role: "api" leaves something to other servers, and with a SQLite file there are none: set database.url to a PostgreSQL database (in /etc/tidings.toml)"#
        ]],
    );
    let shared = [("TIDINGS__DATABASE__URL", "postgres://tidings@db.example.org/tidings")];
    assert_eq!(load(Some(role), &shared).expect("good").server.role, ReplicaRole::Api);
    check_faults(
        Some("[server]\nreplica_url = \"http://10.0.0.5:8080/api\""),
        &[],
        &expect![[
            r#"server.replica_url: write scheme, host and port of this replica, "http://10.0.0.5:8080" (in /etc/tidings.toml)"#
        ]],
    );
}

#[test]
fn files_that_are_no_settings_are_refused() {
    check_faults(
        Some("[git]\npoll_min = \"1s\"\npoll_min = \"2s\""),
        &[],
        &expect!["--config: /etc/tidings.toml: TOML parse error at line 3, column 1: duplicate key"],
    );
    check_faults(
        Some("[housekeeping]\nrows_max = 99999999999999999999"),
        &[],
        &expect!["--config: /etc/tidings.toml: number too large to fit in target type"],
    );
    check_faults(
        Some("[git"),
        &[],
        &expect![
            "--config: /etc/tidings.toml: TOML parse error at line 1, column 5: unclosed table, expected `]`"
        ],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let faults =
        |path: &Path| Settings::load(Some(path), std::iter::empty()).expect_err("faults")[0].to_string();
    assert!(faults(folder.path()).ends_with("is a directory, not a file"));
    assert!(faults(&folder.path().join("none")).ends_with("does not exist"));
    let path = folder.path().join("latin");
    fs::write(&path, b"data_dir = \"\xe9\"").expect("written");
    assert!(faults(&path).ends_with("is not UTF-8"));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_accepted() {
    let settings = load(Some("\u{feff}data_dir = \"elsewhere\"\r\n[git]\r\nallow_local = true\r\n"), &[]);
    assert_eq!(settings.expect("valid").data_dir, Path::new("elsewhere"));
}

#[test]
fn no_secret_is_shown_and_none_is_taken_from_the_file() {
    let planted = "planted-secret-planted-secret-planted";
    let url = format!("postgres://user:{planted}@db/x");
    let file = format!("[server]\nadmin_token = \"{planted}\"\n[database]\nurl = \"{url}\"");
    let faults = load(Some(&file), &[("TIDINGS__SERVER__ADMIN_TOKEN", "planted")]).expect_err("faults");
    assert!(!faults.contains("planted"), "{faults}");
    assert_eq!(faults.lines().count(), 3, "{faults}");
    let settings = load(None, &[("TIDINGS__SERVER__ADMIN_TOKEN", planted), ("TIDINGS__DATABASE__URL", &url)])
        .expect("valid");
    assert_eq!(settings.server.admin_token.as_ref().map(|token| token.expose()), Some(planted));
    assert_eq!(settings.database_url(), url);
    assert!(!format!("{settings:?}{}", settings.redacted()).contains("planted"));
}

#[test]
fn no_secret_of_any_section_stands_in_what_is_shown_of_settings() {
    let planted = "planted-secret-planted-secret-planted";
    let headers = format!("authorization={planted},x-key={planted}");
    let all = [
        ("TIDINGS__SERVER__ADMIN_TOKEN", planted.to_owned()),
        ("TIDINGS__DATABASE__URL", format!("postgres://user:{planted}@db/x?password={planted}")),
        ("TIDINGS__HOOKS__SECRET", planted.to_owned()),
        ("TIDINGS__EGRESS__PROXY", format!("http://user:{planted}@proxy.example:3128/")),
        ("TIDINGS__TELEMETRY__OTLP_HEADERS", headers),
    ];
    let settings = load(None, &all.each_ref().map(|(key, value)| (*key, value.as_str()))).expect("valid");
    let shown = settings.redacted();
    assert!(!format!("{settings:?}{shown}").contains("planted"), "{shown}");
    // What is no secret of them is shown, so it is seen that they are set.
    assert_eq!(shown["server"]["admin_token"], "[redacted]");
    assert_eq!(shown["hooks"]["secret"], serde_json::json!(["[redacted]"]));
    assert_eq!(shown["telemetry"]["otlp_headers"], serde_json::json!(["[redacted]", "[redacted]"]));
    assert!(shown["egress"]["proxy"].as_str().is_some_and(|proxy| proxy.contains("proxy.example:3128")));
    assert!(shown["database"]["url"].as_str().is_some_and(|url| url.contains("@db/x")));
}

#[test]
fn secrets_are_read_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    fs::write(&path, "0123456789012345678901234567890123456789\n").expect("written");
    let name = path.display().to_string();
    let settings = load(None, &[("TIDINGS__SERVER__ADMIN_TOKEN_FILE", &name)]).expect("valid");
    assert_eq!(settings.server.admin_token.map(|token| token.expose().len()), Some(40));
    fs::write(&path, "\n").expect("written");
    let faults = load(None, &[("TIDINGS__SERVER__ADMIN_TOKEN_FILE", &name)]).expect_err("faults");
    assert!(faults.ends_with("is empty"), "{faults}");
    let faults =
        load(None, &[("TIDINGS__DATABASE__URL_FILE", &name), ("TIDINGS__DATABASE__URL", "sqlite://x")]);
    assert!(faults.expect_err("faults").contains("give one of the two"));
}

#[test]
fn the_secrets_of_hooks_are_several_and_never_shown() {
    let (first, second) = ("planted-planted-1", "planted, planted, 2");
    let both = format!("{first},planted-planted-2");
    let settings = load(None, &[("TIDINGS__HOOKS__SECRET", &both)]).expect("valid");
    let exposed = |settings: &Settings| -> Vec<String> {
        settings.hooks.secret.iter().map(|secret| secret.expose().to_owned()).collect()
    };
    assert_eq!(exposed(&settings), [first, "planted-planted-2"]);
    assert!(!format!("{settings:?}{}", settings.redacted()).contains("planted"));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets");
    fs::write(&path, format!("{first}\n\n  {second}  \n")).expect("written");
    let name = path.display().to_string();
    let settings = load(None, &[("TIDINGS__HOOKS__SECRET_FILE", &name)]).expect("valid");
    assert_eq!(exposed(&settings), [first, second]);
    let faults = load(None, &[("TIDINGS__HOOKS__SECRET_FILE", &name), ("TIDINGS__HOOKS__SECRET", &both)]);
    assert!(faults.expect_err("faults").contains("give one of the two"));

    let file = format!("[hooks]\nsecret = [\"{first}\"]");
    for (file, variable) in [(Some(file.as_str()), ""), (None, "planted,planted-planted-2"), (None, "\"p\"")]
    {
        let faults = load(file, &[("TIDINGS__HOOKS__SECRET", variable)]);
        match faults {
            Err(faults) => {
                assert!(!faults.contains("planted") && faults.contains("hooks.secret"), "{faults}")
            }
            Ok(_) => assert!(file.is_some(), "the variable goes before the file"),
        }
    }
    check_faults(
        Some(&file),
        &[],
        &expect![
            "hooks.secret: a secret does not belong into a settings file: use TIDINGS__HOOKS__SECRET (in /etc/tidings.toml)"
        ],
    );
    check_faults(
        Some("[hooks]\nsecret = \"planted-planted-1\""),
        &[],
        &expect![
            "hooks.secret: a secret does not belong into a settings file: use TIDINGS__HOOKS__SECRET (in /etc/tidings.toml)"
        ],
    );
    let many = ["planted-planted-n"; 9].join(",");
    check_faults(
        None,
        &[("TIDINGS__HOOKS__SECRET", &many), ("TIDINGS__HOOKS__BODY_BYTES_MAX", "1")],
        &expect![[r#"
            hooks.secret: there are 9 secrets; at most 8 are tried (in the variable TIDINGS__HOOKS__SECRET)
            hooks.body_bytes_max: 1 does not lie between 1024 and 67108864 (in the variable TIDINGS__HOOKS__BODY_BYTES_MAX)"#]],
    );
}

#[test]
fn the_database_lies_in_the_data_directory_unless_told_otherwise() {
    let settings = load(None, &[("TIDINGS__DATA_DIR", "/var/lib/my data?")]).expect("valid");
    assert_eq!(settings.database_url(), "sqlite:///var/lib/my%20data%3F/tidings.db?mode=rwc");
}

/// What a table of keys begins with.
const HEAD_OF_TABLE: &str = "\n| key | default | meaning |\n|---|---|---|\n";

/// The guide's page, from the file of defaults: a section a table, each key with its default and its
/// comment.
fn guide() -> String {
    let mut page = String::from(
        "# Settings\n\nMade from `config/default.toml`; `UPDATE_EXPECT=1 cargo test --lib settings` makes it again.\n\
         Environment variables override the settings file (`--config`), which overrides the defaults. The variable \
         of `server.listen` is `TIDINGS__SERVER__LISTEN`; the values of a list stand between commas. Secrets are given by a `*_file`, \
         or by environment, which other processes of the same user can read. `tidings check-config` prints what is in effect, `tidings doctor` what is wrong with it.\n",
    );
    let (mut section, mut comment) = (String::new(), Vec::new());
    let (mut is_head, mut has_keys) = (true, false);
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            page.push_str(&format!("\n## {name}\n"));
            has_keys = false;
        } else if let Some((key, value)) = line.split_once(" = ") {
            let name = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let meaning = comment.join(" ").replace('|', "\\|");
            if !has_keys {
                page.push_str(HEAD_OF_TABLE);
            }
            has_keys = true;
            page.push_str(&format!("| `{name}` | `{value}` | {meaning} |\n"));
            comment.clear();
        } else {
            // The head of the file ends at its first empty line; it is about all keys.
            // A section whose tables the operator names has words and no keys.
            if !is_head && !comment.is_empty() {
                page.push_str(&format!("\n{}\n", comment.join(" ")));
            }
            comment.clear();
            is_head = false;
        }
    }
    page
}

#[test]
fn the_guide_lists_every_setting() {
    let page = guide();
    let mut all = BTreeSet::new();
    keys("", &Settings::default().redacted(), &mut all);
    for key in all {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is missing");
    }
    expect_test::expect_file!["../../docs/settings.md"].assert_eq(&page);
}

#[test]
fn a_mail_server_needs_a_sender_and_its_password_travels_protected() {
    let mail = |more: &[(&str, &str)]| {
        let base =
            [("TIDINGS__MAIL__SERVER", "smtp.example.org"), ("TIDINGS__MAIL__FROM", "T <t@example.org>")];
        load(None, &[&base, more].concat())
    };
    let server = mail(&[]).expect("valid").mail_server().expect("a server");
    assert_eq!((server.port, server.hello.as_str(), server.login.is_some()), (465, "example.org", false));
    let login = [("TIDINGS__MAIL__USERNAME", "u"), ("TIDINGS__MAIL__PASSWORD", "hush hush hush")];
    let started = mail(&[&login[..], &[("TIDINGS__MAIL__TLS", "starttls")]].concat()).expect("valid");
    assert_eq!(started.mail_server().map(|server| server.port), Some(587));
    assert!(!started.redacted().to_string().contains("hush"));
    assert!(Settings::default().mail_server().is_none(), "mails are off unless a server is named");
    let plain = [&login[..], &[("TIDINGS__MAIL__TLS", "none")]].concat();
    for (more, part) in [
        (plain.as_slice(), "mail.tls: "),
        (&login[..1], "mail.username: "),
        (&[("TIDINGS__MAIL__FROM", "")], "mail.from: "),
        (&[("TIDINGS__MAIL__FROM", "nobody")], "mail.from: "),
        (&[("TIDINGS__MAIL__REPLY_TO", "a@b, c@d")], "mail.reply_to: "),
        (&[("TIDINGS__MAIL__SERVER", "smtps://example.org")], "mail.server: "),
        (&[("TIDINGS__MAIL__ALLOW", "contact,example.org")], "mail.allow: "),
        (&[("TIDINGS__MAIL__DIGEST_INTERVAL", "2days")], "mail.digest_interval: "),
        (&[("TIDINGS__MAIL__TLS", "ssl")], "mail.tls: "),
    ] {
        let faults = mail(more).expect_err(part);
        assert!(faults.contains(part) && !faults.contains("hush"), "{faults}");
    }
    let here = [("TIDINGS__MAIL__SERVER", "localhost"), ("TIDINGS__MAIL__FROM", "t@example.org")];
    assert!(load(None, &[&plain[..], &here].concat()).is_ok(), "to this machine itself it may travel plain");
}

#[test]
fn a_role_that_cannot_be_stops_the_start_with_its_name() {
    check_faults(
        Some(
            "[roles.support]\nincludes = [\"viewr\"]\npermissions = [\"breakers:close\", \"*:read\"]\n\
             [roles.admin]\npermissions = [\"*:*\"]\n[roles.one]\nincludes = [\"two\"]\n\
             [roles.two]\nincludes = [\"one\"]\n[roles.lead]\ninclude = [\"viewer\"]",
        ),
        &[],
        &expect![[r#"
            roles.lead.include: there is no such setting (in /etc/tidings.toml)
            roles.admin: viewer, operator, admin and app are built in: give this role another name
            roles.one.includes: the roles include each other in a circle (one > two > one): take one of these includes away (in /etc/tidings.toml)
            roles.support.includes: there is no role "viewr": define [roles.viewr], or name one of admin, app, operator, viewer, one, support, two (in /etc/tidings.toml)
            roles.support.permissions: "breakers" has no action "close"; its actions are read, set (in /etc/tidings.toml)"#]],
    );
    let roles = load(
        Some("[roles.support]\nincludes = [\"viewer\"]"),
        &[("TIDINGS__ROLES__SUPPORT__PERMISSIONS", "dead-letters:redrive, watches:scan")],
    );
    let roles = roles.expect("valid").roles();
    let support = roles.get("support").expect("there");
    assert_eq!(support.beyond(roles.get("viewer").expect("built in")).iter().count(), 2);
}

/// The public key of RFC 7515, appendix A.2.
const PUBLIC_PEM: &str = include_str!("../../tests/keys/rfc7515-a2.public.pem");

#[test]
fn an_issuer_that_cannot_be_stops_the_start_with_what_to_do() {
    let private = "-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----";
    let text = format!(
        "[identity.issuers.a]\nissuer = \"https://a.example\"\n\
         [identity.issuers.b]\nopens = \"staff\"\nissuer = \"https://b.example\"\naudience = \"t\"\n\
         keys = \"{private}\"\nalgorithms = [\"HS256\"]\nclient_id = \"x\"\n[identity.issuers.b.roles]\n\
         owner = [\"x\"]\n\
         [identity.issuers.c]\nopens = \"apps\"\nissuer = \"https://b.example\"\naudience = \"t\"\n\
         jwks_url = \"https://b.example/k\"\nmost = [\"aps:read\"]\nclient_id = \"x\"\n\
         [identity.issuers.c.roles]\nadmin = [\"x\"]\n\
         [identity.issuers.d]\nopens = \"everybody\"\n\
         [identity.issuers.e]\nopens = \"apps\"\nclient_secret = \"s\"",
    );
    check_faults(
        Some(&text),
        &[],
        &expect![[r#"
            identity.issuers.e.client_secret: a secret does not belong into a settings file: use TIDINGS__IDENTITY__ISSUERS__E__CLIENT_SECRET (in /etc/tidings.toml)
            identity.issuers.d.opens: "everybody" is not valid: write staff or apps (in /etc/tidings.toml)
            identity.issuers.a.opens: set it to "staff" or "apps": an issuer is for one of the two
            identity.issuers.b.keys: holds a private key: give the public one, and treat that key as leaked (in /etc/tidings.toml)
            identity.issuers.b.algorithms: HS256 is refused: its key is shared, so every server that checks tokens could also make them; use one of RS256, RS384, RS512, ES256, ES384, EdDSA (in /etc/tidings.toml)
            identity.issuers.b.roles: there is no role "owner" of the staff; there are viewer, operator, admin
            identity.issuers.b.redirect_url: is needed beside client_id
            identity.issuers.c.roles: an issuer for apps gives no roles: make another issuer, with opens = "staff"
            identity.issuers.c.client_id: people sign in at an issuer with opens = "staff" only (in /etc/tidings.toml)
            identity.issuers.c.most: there is no resource "aps"; the resources are apps, tokens, watches, changes, files, contents, deliveries, dead-letters, ledger, subscriptions, hooks, receipts, tasks, workers, queues, schedules, sources, breakers, system, settings, audit, keys, staff-tokens (in /etc/tidings.toml)
            identity.issuers.e.issuer: is needed: a token for somebody else must not open this server
            identity.issuers.e.audience: is needed: a token for somebody else must not open this server
            identity.issuers.e.jwks_url: set it, keys or keys_file: tokens need keys
            identity.issuers.c.audience: b has the same issuer and audience: give each an audience of its own (in /etc/tidings.toml)"#]],
    );
}

#[test]
fn issuers_are_read_from_file_and_environment_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pem, secret) = (folder.path().join("keys.pem"), folder.path().join("secret"));
    fs::write(&pem, PUBLIC_PEM).expect("written");
    fs::write(&secret, "of the client\n").expect("written");
    let settings = load(
        Some("[identity.issuers.corp]\nopens = \"staff\"\nissuer = \"https://c.example\"\naudience = \"t\""),
        &[
            ("TIDINGS__IDENTITY__ISSUERS__CORP__KEYS_FILE", pem.to_str().expect("text")),
            ("TIDINGS__IDENTITY__ISSUERS__CORP__CLIENT_SECRET_FILE", secret.to_str().expect("text")),
            ("TIDINGS__IDENTITY__ISSUERS__CORP__CLIENT_ID", "tidings"),
            ("TIDINGS__IDENTITY__ISSUERS__CORP__REDIRECT_URL", "https://t.example/api/session/callback"),
            ("TIDINGS__IDENTITY__ISSUERS__CORP__ROLES__OPERATOR", "ops, on-call"),
        ],
    )
    .expect("valid");
    let corp = &settings.identity.all()["corp"];
    assert_eq!(corp.roles["operator"], ["ops", "on-call"]);
    assert_eq!(
        corp.client_secret.as_ref().map(|secret| secret.expose().to_owned()).as_deref(),
        Some("of the client")
    );
    assert!(!settings.redacted().to_string().contains("of the client"));
}
