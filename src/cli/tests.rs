//! The command line against a real server, and its exit codes.

mod reference;
mod wrong_usage;

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;
use tidings_actors::ports::{EndpointAuth, LaneStore, LetterStore};

use super::{
    client::{Client, ServerArgs},
    *,
};
use crate::http::tests::{ADMIN, House};

fn line(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn code(text: &str, environment: &[(&str, &str)]) -> Result<(), (Code, String)> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    run(line(text), Environment(environment.collect())).map_err(|failure| (failure.code, failure.message))
}

fn refused(text: &str, environment: &[(&str, &str)]) -> Code {
    code(text, environment).expect_err(text).0
}

fn arguments(house: &House) -> ServerArgs {
    let server = format!("http://{}", house.address).parse().expect("an address");
    ServerArgs { server: Some(server), token_file: None, profile: None, for_app: None }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_kind_of_failure_has_its_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let there = [("TIDINGS__DATA_DIR", data.as_str())];
    let nowhere = "--server http://127.0.0.1:1";
    for (text, environment, expected) in [
        ("tidings fly", [].as_slice(), Code::Usage),
        ("tidings app list --nope", &[], Code::Usage),
        ("tidings migrate down", &[], Code::Usage),
        ("tidings migrate copy", &there, Code::Usage),
        ("tidings migrate copy --to mysql://x", &there, Code::Usage),
        ("tidings migrate copy --to sqlite:x --to-file y", &there, Code::Usage),
        ("tidings migrate copy --to-file /nonexistent", &there, Code::NoInput),
        ("tidings migrate copy --to sqlite:/nonexistent/x.db", &there, Code::Unavailable),
        ("tidings check-config --config /nonexistent/tidings.toml", &[], Code::Config),
        ("tidings check-config", &[("TIDINGS__SERVR", "x")], Code::Config),
        ("tidings key status", &there, Code::NoInput),
        ("tidings key export /nonexistent/x --path /nonexistent", &[], Code::NoInput),
        ("tidings key import /nonexistent", &[], Code::NoInput),
        ("tidings verify --secret-file /nonexistent", &[], Code::NoInput),
        ("tidings verify /nonexistent --secret x", &[], Code::NoInput),
        ("tidings listen --listen 0 --secret-file /nonexistent", &[], Code::NoInput),
        (
            "tidings backup /nonexistent/x --plain-keyring",
            &[("TIDINGS__DATA_DIR", "/nonexistent/data")],
            Code::NoInput,
        ),
        ("tidings backup /nonexistent/x --passphrase-file /nonexistent", &there, Code::NoInput),
        (&format!("tidings app list {nowhere}"), &[], Code::Unavailable),
        (&format!("tidings app list {nowhere} --token-file /nonexistent"), &[], Code::NoInput),
        (&format!("tidings app list {nowhere} --token-file ."), &[], Code::NoInput),
        (&format!("tidings healthcheck {nowhere}"), &[], Code::Failed),
        ("tidings repository token repo_00000000000000000000000000", &[], Code::Usage),
    ] {
        let (found, message) = code(text, environment).expect_err(text);
        assert_eq!(found, expected, "{text}: {message}");
        assert!(!message.is_empty() && message.lines().count() == 1, "{text}: {message}");
    }
}

#[test]
fn a_keyring_is_made_once_and_shown_without_its_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("new/data").display().to_string();
    let there = [("TIDINGS__DATA_DIR", data.as_str())];
    assert_eq!(code("tidings key generate", &there), Ok(()));
    let before = std::fs::read(Path::new(&data).join("keyring")).expect("there");
    assert_eq!(code("tidings key status --json", &there), Ok(()));
    assert_eq!(refused("tidings key generate", &there), Code::CannotCreate);
    assert_eq!(std::fs::read(Path::new(&data).join("keyring")).expect("there"), before);
}

#[test]
fn the_schema_goes_up_and_down_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let there = [("TIDINGS__DATA_DIR", data.as_str())];
    assert_eq!(refused("tidings migrate status", &there), Code::Unavailable);
    for text in ["migrate up", "migrate up", "migrate status --json", "migrate down --yes", "migrate up"] {
        assert_eq!(code(&format!("tidings {text}"), &there), Ok(()), "{text}");
    }
    let all = "tidings migrate down --steps 1000 --yes";
    for text in [all.to_owned(), format!("{all} --everything-of other.db")] {
        assert_eq!(refused(&text, &there), Code::Usage, "{text}");
    }
    assert_eq!(code("tidings migrate up", &there), Ok(()));
    let other = "tidings migrate down --yes --everything-of other.db";
    assert_eq!(refused(other, &there), Code::Usage, "a wrong name reverts nothing");
    assert_eq!(code("tidings migrate down --yes --everything-of tidings.db", &there), Ok(()));
    assert_eq!(code(all, &there), Ok(()), "nothing is left to do");
}

#[test]
fn verbs_without_a_server_print_what_they_promise() {
    for text in [
        "tidings check-config",
        "tidings check-config --json",
        "tidings openapi",
        "tidings completions bash",
        "tidings --help",
        "tidings --version",
    ] {
        assert_eq!(code(text, &[]), Ok(()), "{text}");
    }
}

#[tokio::test]
async fn refusals_of_the_server_become_codes_and_lines() {
    let house = House::open().await;
    let token = house.app().await;
    let client = |token: Option<&str>| {
        Client::new(&arguments(&house), None, token.map(str::to_owned)).expect("a client")
    };
    let server = arguments(&house).server.expect("a server");
    let no_route = format!("the server {server} has no such route: it may be older than this command");
    for (token, path, method, body, expected, text) in [
        (Some(token.as_str()), "nope", http::Method::GET, None, Code::Data, no_route.as_str()),
        (
            Some(token.as_str()),
            "repositories",
            http::Method::POST,
            Some(json!({ "url": "https://x.example/o/r", "mode": 1, "content": 2 })),
            Code::Data,
            "content must be one of: inline, none; mode must be one of: net, every",
        ),
    ] {
        let failure = client(token).call(method, &["api", path], body.as_ref()).await.expect_err(path);
        assert_eq!((failure.code, failure.message.as_str()), (expected, text));
    }
    let body = json!({ "url": "https://x.example/o/r", "sink": { "per": "round" } });
    let path = ["api", "repositories"];
    let failure = client(Some(token.as_str()))
        .call(http::Method::POST, &path, Some(&body))
        .await
        .expect_err("no place");
    assert!(failure.message.contains("sink needs --sink-url, --sink-pull or --sink-tasks"), "{failure}");
    let below = ServerArgs::of(server.join("foo/").expect("an address"));
    let client = Client::new(&below, None, Some(token)).expect("a client");
    let failure = client.call(http::Method::GET, &["api", "app"], None).await.expect_err("no server");
    let expected = format!("{server}foo/ is not the root of a Tidings server; write {server}");
    assert_eq!((failure.code, failure.message), (Code::Data, expected));
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let house = House::open().await;
    let mut token = String::new();
    for _ in 0..103 {
        token = house.app().await;
    }
    let admin = Client::new(&arguments(&house), None, Some(ADMIN.to_owned())).expect("a client");
    let apps = admin.list(&["api", "admin", "apps"], &[]).await.expect("listed");
    assert_eq!(apps.len(), 103);
    let app = Client::new(&arguments(&house), None, Some(token)).expect("a client");
    assert_eq!(app.list(&["api", "repositories"], &[]).await.expect("listed").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_of_tasks_without_room_for_all_says_how_many_it_sent() {
    let house = House::open().await;
    let token = house.app().await;
    for _ in 0..2 {
        let made = house.call("POST", "/api/tasks", Some(&token), Some(&json!({ "command": "embed" }))).await;
        let path = format!("/api/tasks/{}/cancel", made.json()["id"].as_str().expect("an id"));
        assert_eq!(house.call("POST", &path, Some(&token), None).await.status, 200);
    }
    house.plant("update queue set ready = 999999").await;
    let text = format!("tidings task redrive --all --server http://{}", house.address);
    let ended = tokio::task::spawn_blocking(move || code(&text, &[(TOKEN_VARIABLE, token.as_str())])).await;
    let (_, message) = ended.expect("no panic").expect_err("there is no room for the other one");
    assert!(message.starts_with("sent 1 task again") && message.contains("open tasks"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_do_what_they_say() {
    let house = House::open().await;
    let token = house.app().await;
    let server = format!("http://{}", house.address);
    let perform = async |text: String, token: &str| {
        let token = token.to_owned();
        let ended = tokio::task::spawn_blocking(move || code(&text, &[(TOKEN_VARIABLE, token.as_str())]));
        ended.await.expect("no panic")
    };
    let add = format!(
        "tidings repository add https://github.com/o/r --server {server} --include docs/** --mode every"
    );
    assert_eq!(perform(add, &token).await, Ok(()));
    let watch = house.watches().await.remove(0);
    let id = watch.id.clone();
    assert_eq!(watch.view.include(), ["docs/**"]);
    let update = async |more: &str| -> Vec<String> {
        let text = format!("tidings repository update {id} --server {server} {more}");
        assert_eq!(perform(text, &token).await, Ok(()), "{more}");
        house.watch(id.as_str()).await.view.include().to_vec()
    };
    assert_eq!(update("--include src/** --mode net --content none").await, ["src/**"]);
    assert_eq!(house.watch(id.as_str()).await.mode.as_str(), "net");
    assert_eq!(update("--state paused").await, ["src/**"], "what is not given stays");
    assert!(update("--no-include --state active").await.is_empty());
    let nothing = format!("tidings repository update {id} --server {server}");
    assert_eq!(perform(nothing, &token).await.expect_err("nothing to change").0, Code::Usage);
    for verb in [
        "list",
        "show ID",
        "scan ID",
        "resync ID --complete",
        "pause ID",
        "resume ID",
        "list --json",
        "show ID --json",
        "rounds ID",
        "changes ID --path-glob docs/**",
    ] {
        let text = format!("tidings repository {} --server {server}", verb.replace("ID", id.as_str()));
        assert_eq!(perform(text, &token).await, Ok(()), "{verb}");
    }
    let lane = house.sqlite().lane(&watch.cursors[0].id).await.expect("read");
    assert_eq!(lane.resync, Some(true), "a complete resync was asked for");
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/rfc7515-a2.pkcs8.pem");
    let kept = tempfile::NamedTempFile::new().expect("a file that only its owner reads");
    std::fs::copy(key, kept.path()).expect("copied");
    std::fs::set_permissions(kept.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let app = format!(
        "tidings repository token {id} --server {server} --github-app-id Iv1.x --github-app-installation 7 \
         --github-app-key-file {}",
        kept.path().display()
    );
    assert_eq!(perform(app, &token).await, Ok(()));
    let credential = house.credential(id.as_str()).await.unwrap_or_default();
    assert!(credential.starts_with("\ngithub_app\nIv1.x\n7\n\n-----BEGIN"), "the app was sent");
    let half = format!("tidings repository token {id} --server {server} --github-app-id Iv1.x");
    assert_eq!(perform(half, &token).await.expect_err("incomplete").0, Code::Usage);
    let remove = format!("tidings repository remove {id} --server {server}");
    assert_eq!(perform(remove.clone(), &token).await, Ok(()));
    assert_eq!(perform(remove, &token).await.expect_err("gone").0, Code::Data);
    assert!(house.watches().await.is_empty());
    let redrive = format!("tidings dead-letter redrive --all --server {server}");
    assert_eq!(perform(redrive.clone(), &token).await.expect_err("there is none").0, Code::Data);
    let owner = house.apps().await[0].id.clone();
    house.repository(&token, "https://github.com/o/r").await;
    let letter = house.park(&owner, b"a").await;
    let verb = |verb: &str| format!("tidings dead-letter {verb} --server {server}");
    assert_eq!(perform(verb("redrive --path-glob * --dry-run"), &token).await, Ok(()));
    let nothing = verb("redrive --path b");
    assert_eq!(perform(nothing, &token).await.expect_err("a dry run marks nothing").0, Code::Data);
    for wrong in ["redrive", "redrive --all --path a", "redrive --path a --path-glob *"] {
        assert_eq!(perform(verb(wrong), &token).await.expect_err(wrong).0, Code::Usage, "{wrong}");
    }
    assert_eq!(perform(redrive, &token).await, Ok(()));
    let redrives = house.sqlite().redrives(&owner, None, 10).await.expect("read");
    for done in [
        format!("show {letter}"),
        "redrives".to_owned(),
        format!("redrives {}", redrives[0].id),
        "list --kind delete --reason rejected --from 1970-01-01T00:00:00Z".to_owned(),
    ] {
        assert_eq!(perform(verb(&done), &token).await, Ok(()), "{done}");
    }
    for verb in [
        "delivery list --status parked --kind delete",
        "dead-letter list --status open",
        "app show",
        "healthcheck",
    ] {
        assert_eq!(perform(format!("tidings {verb} --server {server}"), &token).await, Ok(()), "{verb}");
    }
    let create = format!(
        "tidings app create --name another --email a@b.c --base-url https://app.example --server {server}"
    );
    assert_eq!(perform(create, "").await, Ok(()));
    assert_eq!(house.apps().await.len(), 2);
    assert_eq!(perform(format!("tidings app list --server {server}"), ADMIN).await, Ok(()));
    let app = house.app_named("another").await.id;
    let erase = format!("tidings app erase {app} --yes --server {server}");
    assert_eq!(perform(erase.clone(), &token).await.expect_err("not the administrator").0, Code::Permission);
    assert_eq!(perform(erase, ADMIN).await, Ok(()));
    assert_eq!(house.apps().await.len(), 1);
}

/// A file that only its owner reads.
fn private(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file that only its owner reads");
    std::fs::write(file.path(), text).expect("written");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_looks_after_itself_and_no_secret_is_an_argument() {
    let house = House::open().await;
    let token = house.app().await;
    let server = format!("http://{}", house.address);
    let perform = async |text: &str, secret: Option<&str>| {
        let (token, secret) = (token.clone(), secret.map(str::to_owned));
        let text = format!("tidings app {text} --server {server}");
        let ended = tokio::task::spawn_blocking(move || {
            let mut environment = vec![(TOKEN_VARIABLE, token.as_str())];
            environment.extend(secret.as_deref().map(|secret| (ENDPOINT_SECRET_VARIABLE, secret)));
            code(&text, &environment)
        });
        ended.await.expect("no panic")
    };
    let (header, password) = (private("the value\n"), private("the password\n"));
    let all = format!(
        "update --base-url https://new.example/in --disable --order phased --max-in-flight 3 --rate 7 \
         --batch-count 9 --synced true --header-file X-Key={} --basic user --auth-secret-file {}",
        header.path().display(),
        password.path().display()
    );
    assert_eq!(perform(&all, None).await, Ok(()));
    {
        let app = &house.apps().await[0];
        assert_eq!(
            (app.receives_at.base_url(), app.disabled.is_some()),
            (Some("https://new.example/in"), true)
        );
        let delivery = &app.delivery;
        assert_eq!((delivery.max_in_flight, delivery.rate, delivery.synced), (3, Some(7), true));
        assert_eq!(delivery.batch.map(|batch| batch.count), Some(9));
        assert_eq!(app.access.headers["x-key"].expose(), "the value");
        let is_kept = matches!(
            &app.access.auth,
            Some(EndpointAuth::Basic { username, password })
                if username == "user" && password.expose() == "the password"
        );
        assert!(is_kept);
    }
    for (text, secret, expected) in [
        ("update", None, Some(Code::Usage)),
        ("update --bearer", None, Some(Code::Usage)),
        ("update --bearer", Some("a-token"), None),
        ("update --basic a --bearer", Some("a-token"), Some(Code::Usage)),
        ("update --oauth2-client c", Some("s"), Some(Code::Usage)),
        ("update --oauth2-client c --oauth2-token-url https://t.example/ --oauth2-scope x", Some("s"), None),
        ("update --client-certificate /nonexistent", None, Some(Code::Usage)),
        ("update --ca-file /nonexistent", None, Some(Code::NoInput)),
        ("update --header-file x", None, Some(Code::Usage)),
        ("update --header-file x=/nonexistent", None, Some(Code::NoInput)),
        ("update --max-in-flight 0", None, Some(Code::Data)),
        ("update --remove-header X-Key --no-auth --enable --no-batch", None, None),
        ("test", None, None),
        ("rotate-key --overlap 1h", None, None),
        ("rotate-key --overlap 1year", None, Some(Code::Usage)),
        ("update --pull", None, None),
        ("test", None, Some(Code::Data)),
        ("test --base-url https://other.example --json", None, None),
        ("erase", None, Some(Code::Usage)),
    ] {
        assert_eq!(perform(text, secret).await.err().map(|(code, _)| code), expected, "{text}");
    }
    let (_, message) = perform("test", None).await.expect_err("no endpoint");
    assert!(message.contains("tidings app update --base-url URL"), "{message}");
    {
        let app = &house.apps().await[0];
        assert!(app.access.is_empty() && app.receives_at.base_url().is_none() && app.disabled.is_none());
        assert!(app.delivery.batch.is_none() && app.keys[0].expose().len() >= 32);
    }
    assert_eq!(perform("erase --yes", None).await, Ok(()));
    assert!(house.apps().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_environment_overrides_the_token_of_the_profile() {
    let house = House::open().await;
    let (of_profile, of_variable) = (house.app().await, house.app().await);
    let status = async |token: &str| house.call("GET", "/api/app", Some(token), None).await.status;
    let shown = house.call("GET", "/api/app", Some(&of_variable), None).await.json();
    let id = shown["app_id"].as_str().expect("an id").to_owned();
    let (folder, token_file) = (tempfile::tempdir().expect("a folder"), private(&of_profile));
    let profiles = folder.path().join("tidings/profiles.toml");
    let text = format!(
        "default = \"one\"\n[profiles.one]\nserver = \"http://{}\"\ntoken_file = {:?}\n",
        house.address,
        token_file.path()
    );
    std::fs::create_dir(profiles.parent().expect("a folder")).expect("made");
    std::fs::write(&profiles, text).expect("written");
    std::fs::set_permissions(&profiles, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let perform = async |text: &'static str| {
        let (home, token) = (folder.path().display().to_string(), of_variable.clone());
        let ended = tokio::task::spawn_blocking(move || {
            code(text, &[("XDG_CONFIG_HOME", home.as_str()), (TOKEN_VARIABLE, token.as_str())])
        });
        ended.await.expect("no panic")
    };
    let (code, said) = perform("tidings app erase").await.expect_err("it asks first");
    assert!(code == Code::Usage && said.contains(&id) && said.contains("--yes"), "{said}");
    assert_eq!((status(&of_profile).await, status(&of_variable).await), (200, 200), "nothing is erased yet");
    assert_eq!(perform("tidings app erase --yes").await, Ok(()));
    assert_eq!((status(&of_profile).await, status(&of_variable).await), (200, 401));
}

#[test]
fn a_text_that_is_no_token_is_blamed_on_the_file_or_variable_that_holds_it() {
    let file = private("{\"app_id\": \"app_x\",\n\"token\": \"tok_x\"}\n");
    let json = format!("tidings app show --server http://127.0.0.1:1 --token-file {}", file.path().display());
    let of_variable = "tidings app show --server http://127.0.0.1:1";
    for (text, variable, parts) in [
        (json.as_str(), "", ["the file ", "give the value of `token` in it"]),
        (of_variable, "tok_x\ntok_y", ["the variable TIDINGS_TOKEN", "more than one line"]),
        (of_variable, "t\u{f6}k\u{e9}n", ["the variable TIDINGS_TOKEN", "characters that no token has"]),
    ] {
        let (code, said) = code(text, &[(TOKEN_VARIABLE, variable)]).expect_err(text);
        assert!(code == Code::Permission && parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_requests_to_the_sink_of_a_subscription_is_given_and_taken_back() {
    let house = House::open().await;
    let token = house.app().await;
    let server = format!("http://{}", house.address);
    let perform = async |text: &str| {
        let (token, text) = (token.clone(), format!("tidings subscription {text} --server {server}"));
        let ended = tokio::task::spawn_blocking(move || code(&text, &[(TOKEN_VARIABLE, token.as_str())]));
        ended.await.expect("no panic")
    };
    let has_access = async || {
        let shown = house.call("GET", "/api/subscriptions/ops", Some(&token), None).await.json();
        shown["sink"]["has_access"].as_bool().expect("a sink")
    };
    let (header, password) = (private("the value\n"), private("the password\n"));
    let given = format!("--header-file X-Key={}", header.path().display());
    let add = format!(
        "add ops --url https://hooks.example/in --retry-base-ms 1000 {given} --basic user \
         --auth-secret-file {}",
        password.path().display()
    );
    assert_eq!(perform(&add).await, Ok(()));
    for (change, is_left) in [
        ("--no-auth", true),
        ("--remove-header X-Key", false),
        (given.as_str(), true),
        ("--no-headers --no-tls", false),
    ] {
        assert_eq!(perform(&format!("update ops {change}")).await, Ok(()), "{change}");
        assert_eq!(has_access().await, is_left, "{change}");
    }
    let (code, said) = perform("send ops 99").await.expect_err("there is no such entry");
    assert!(code == Code::Data && said.contains("tidings ledger list"), "{said}");
    for wrong in ["update ops", "update ops --no-auth --bearer", "add two --url https://a.example --no-auth"]
    {
        assert_eq!(perform(wrong).await.expect_err(wrong).0, Code::Usage, "{wrong}");
    }
}
