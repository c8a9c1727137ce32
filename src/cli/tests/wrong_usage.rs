//! Mistakes that people make on the command line: each is told with the thing, the reason and the mend,
//! and never with the name of a type of ours.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    thread,
};

use super::{ADMIN, Code, House, TOKEN_VARIABLE, code, json};

/// What a command says; it must fail, in one line.
fn said(text: &str, environment: &[(&str, &str)]) -> (Code, String) {
    let (code, message) = code(text, environment).expect_err(text);
    assert_eq!(message.lines().count(), 1, "{text}: {message}");
    for name in
        ["AppId", "WatchId", "DeadLetterId", "RedriveId", "CursorId", "ObjectId", "TokenId", "Status\""]
    {
        assert!(!message.contains(name), "{text} names a type: {message}");
    }
    (code, message)
}

#[test]
fn each_mistake_is_told_with_its_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let (empty, file) = (folder.path().join("empty"), folder.path().join("file"));
    std::fs::create_dir(&empty).expect("made");
    std::fs::write(&file, "text").expect("written");
    let (empty, file) = (empty.display(), file.display());
    for (text, expected, parts) in [
        ("tidings wach".to_owned(), Code::Usage, &["'watch'", "(see tidings --help)"][..]),
        ("tidings app lst".into(), Code::Usage, &["'list'", "(see tidings app --help)"]),
        ("tidings app list --nope".into(), Code::Usage, &["--nope", "(see tidings app list --help)"]),
        (
            "tidings app list --server 127.0.0.1:8080".into(),
            Code::Usage,
            &["127.0.0.1:8080 has no scheme; write http://127.0.0.1:8080"],
        ),
        ("tidings healthcheck --server localhost:1".into(), Code::Usage, &["write http://localhost:1"]),
        ("tidings repository replay o/r abc".into(), Code::Usage, &["40 hexadecimal digits"]),
        ("tidings repository skip o/r --cursor x".into(), Code::Usage, &["cur_", "tidings repository show"]),
        (
            "tidings dead-letter redrive dlq_nope".into(),
            Code::Usage,
            &["dlq_nope", "tidings dead-letter list"],
        ),
        ("tidings dead-letter show dlq_nope".into(), Code::Usage, &["dlq_nope", "tidings dead-letter list"]),
        ("tidings dead-letter redrives x".into(), Code::Usage, &["rdv_", "tidings dead-letter redrives"]),
        ("tidings dead-letter list --status shut".into(), Code::Usage, &["'shut'", "open", "superseded"]),
        ("tidings dead-letter list --kind rename".into(), Code::Usage, &["delete, create, update"]),
        ("tidings delivery list --kind rename".into(), Code::Usage, &["delete, create, update"]),
        ("tidings receipt list --verdict x".into(), Code::Usage, &["accepted"]),
        ("tidings receipt replay x".into(), Code::Usage, &["rct_", "tidings receipt list"]),
        ("tidings token revoke x".into(), Code::Usage, &["tok_", "tidings token list"]),
        ("tidings token create x --role Boss".into(), Code::Usage, &["viewer", "operator", "admin"]),
        ("tidings admin scan x".into(), Code::Usage, &["rep_", "tidings admin sources"]),
        ("tidings admin watches --for search".into(), Code::Usage, &["--for does nothing", "--of search"]),
        ("tidings admin overview --for search".into(), Code::Usage, &["--for does nothing"]),
        ("tidings app update --retry-policy never".into(), Code::Usage, &["'never'", "exp_full_jitter"]),
        ("tidings task create x --delay -1".into(), Code::Usage, &["'-1'", "a whole number, 0 or more"]),
        ("tidings repository update o/r --max-size -1".into(), Code::Usage, &["'-1'", "number of bytes"]),
        ("tidings task create x --priority -1".into(), Code::Usage, &["-1 is not in 0..=9"]),
        ("tidings subscription send ops x".into(), Code::Usage, &["'x'", "a whole number, 0 or more"]),
        ("tidings hook rotate x --overlap foo".into(), Code::Usage, &["'foo'", "such as 0s, 12h or 1d"]),
        ("tidings app rotate-key --overlap 40d".into(), Code::Usage, &["'40d'", "at most 30 days"]),
        ("tidings schedule add x --cron @daily".into(), Code::Usage, &["--command", "--resync"]),
        ("tidings token create x --staff".into(), Code::Usage, &["--role ROLE", "--permission"]),
        ("tidings task redrive".into(), Code::Usage, &["--command, --query, or --all"]),
        ("tidings delivery list --limit 0".into(), Code::Usage, &["'0'", "1 or more"]),
        ("tidings listen --listen nowhere".into(), Code::Usage, &["127.0.0.1:9000", "or a port"]),
        (
            format!("tidings restore {empty}"),
            Code::Data,
            &["is no backup", "no manifest.json", "tidings backup"],
        ),
        (format!("tidings restore {file}"), Code::Data, &["is no backup", "it is a file"]),
        ("tidings restore /nonexistent".into(), Code::Data, &["is no backup", "no such folder"]),
        ("tidings watch /nonexistent".into(), Code::NoInput, &["/nonexistent: there is no such folder"]),
        ("tidings watch no/where".into(), Code::NoInput, &["no such folder", "https://github.com/no/where"]),
        (format!("tidings watch {empty}"), Code::Data, &["is no Git repository", "holds no .git"]),
        (format!("tidings watch {file}"), Code::Data, &["is a file, no Git repository"]),
        (
            "tidings watch http://git.example/o/r".into(),
            Code::Usage,
            &["egress.allow_http", "set it to true"],
        ),
    ] {
        let (code, message) = said(&text, &[]);
        assert_eq!(code, expected, "{text}: {message}");
        for part in parts {
            assert!(message.contains(part), "{text} does not say {part:?}: {message}");
        }
    }
}

#[test]
fn options_that_a_verb_would_ignore_are_refused() {
    for (text, expected, parts) in [
        (
            "tidings app create --name abc --email a@b --for search".to_owned(),
            Code::Usage,
            &["--for does nothing with tidings app create"][..],
        ),
        ("tidings app list --for search".to_owned(), Code::Usage, &["tidings app show search"]),
        ("tidings app show abc --for search".to_owned(), Code::Usage, &["the app is named already"]),
        ("tidings admin resync".to_owned(), Code::Usage, &["--all", "--of APP"]),
        ("tidings token create x --role viewer --for search".to_owned(), Code::Usage, &["--role", "--for"]),
        ("tidings token list --staff --for search".to_owned(), Code::Usage, &["--staff", "--for"]),
        ("tidings listen --pull o/r --for search".to_owned(), Code::Usage, &["a token of the app itself"]),
        ("tidings listen --server http://h".to_owned(), Code::Usage, &["--server does nothing", "--pull"]),
        ("tidings listen --token-file x".to_owned(), Code::Usage, &["--token-file does nothing", "--pull"]),
        ("tidings listen --for x".to_owned(), Code::Usage, &["--for does nothing", "--pull"]),
        ("tidings repository update o/r --max-size 10MB".to_owned(), Code::Usage, &["whole number of bytes"]),
        ("tidings app update --rate abc".to_owned(), Code::Usage, &["requests a second"]),
        ("tidings listen --once".to_owned(), Code::Usage, &["--pull"]),
        ("tidings listen --settle".to_owned(), Code::Usage, &["--pull"]),
        ("tidings listen --pull o/r".to_owned(), Code::Usage, &["--mirror FOLDER", "--settle", "--once"]),
        ("tidings listen --pull o/r --settle --mirror x".to_owned(), Code::Usage, &["--settle", "--mirror"]),
    ] {
        let (code, message) = said(&text, &[]);
        assert_eq!(code, expected, "{text}: {message}");
        for part in parts {
            assert!(message.contains(part), "{text} does not say {part:?}: {message}");
        }
    }
}

#[test]
fn a_listener_refuses_a_secret_that_no_app_has() {
    for secret in ["hush", "whsec_aHVzaA=="] {
        let (code, message) = said(&format!("tidings listen --listen 0 --secret {secret}"), &[]);
        assert_eq!(code, Code::Usage, "{message}");
        for part in ["the secret is too short", "16 characters or more", "client_auth_key"] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn a_password_in_the_address_of_a_server_is_not_repeated() {
    let (_, message) = said("tidings app list --server https://me:hush@host", &[]);
    assert!(message.contains("'[redacted]@host' for '--server <URL>': the address holds"), "{message}");
}

#[test]
fn a_group_of_verbs_without_a_verb_fails_and_prints_its_verbs() {
    for text in ["tidings", "tidings app", "tidings admin breaker"] {
        assert_eq!(code(text, &[]), Err((Code::Usage, String::new())), "{text}");
    }
}

#[test]
fn a_file_with_a_secret_is_named_with_its_purpose_and_the_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let shown = path.display();
    let id = "repo_00000000000000000000000000";
    for (text, purpose) in [
        (format!("tidings app list --token-file {shown}"), "app or admin token"),
        (format!("tidings repository show {id} --token-file {shown}"), "app or admin token"),
        (format!("tidings listen --pull {id} --token-file {shown}"), "app or admin token"),
        (format!("tidings key rotate --token-file {shown}"), "app or admin token"),
        (format!("tidings repository add https://x.example/o/r --git-token-file {shown}"), "Git token"),
        (format!("tidings repository token {id} --git-token-file {shown}"), "Git token"),
        (
            format!(
                "tidings repository token {id} --github-app-id 1 --github-app-installation 1 \
                 --github-app-key-file {shown}"
            ),
            "key of the GitHub App",
        ),
        (format!("tidings app create --name abc --email a@b --signing-key-file {shown}"), "signing key"),
        (format!("tidings app rotate-key --signing-key-file {shown}"), "signing key"),
        (format!("tidings app update --bearer --auth-secret-file {shown}"), "auth secret of the endpoint"),
        (format!("tidings app update --header-file X-A={shown}"), "value of a header field"),
    ] {
        let write = |content: &str, mode: u32| {
            std::fs::write(&path, content).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
        };
        write("a secret", 0o644);
        let (_, exposed) = said(&text, &[]);
        let mode =
            format!("the file {shown} for the {purpose} can be read by others (mode 0644); run chmod 600");
        assert!(exposed.starts_with(&mode), "{text}: {exposed}");
        write("\n", 0o600);
        let (_, empty) = said(&text, &[]);
        assert!(empty.contains(&format!("{shown} for the {purpose} is empty; put the {purpose}")), "{empty}");
        assert!(!exposed.contains("delete it") && !empty.contains("delete it"), "{exposed} {empty}");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        let (_, is_folder) = said(&text, &[]);
        let mend = format!("{shown} for the {purpose} is a folder, no file; name the file in it");
        assert!(is_folder.contains(&mend), "{is_folder}");
        std::fs::remove_dir(&path).expect("removed");
        write("\n", 0o600);
        if purpose != "signing key" {
            std::fs::remove_file(&path).expect("removed");
            let (_, missing) = said(&text, &[]);
            assert!(missing.contains(&format!("{shown} for the {purpose} does not exist")), "{missing}");
        }
    }
}

#[test]
fn a_server_that_is_not_reached_is_told_with_the_cause_and_the_mend() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let shut = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = shut.local_addr().expect("an address");
    drop(shut);
    let (_, refused) = said(&format!("tidings app list --server http://{nobody}"), &[]);
    let parts = ["nothing listens at", &nobody.to_string(), "connection refused", "--server"];
    assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    let (_, refused) = said(&format!("tidings healthcheck --server http://{nobody}"), &[]);
    assert!(refused.contains("server.ops_listen") && !refused.contains("profile"), "{refused}");

    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = plain.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        // First TLS, which is answered in plain http; then plain http, which nobody answers.
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let (mut stream, _) = plain.accept().expect("a connection");
            let read = stream.read(&mut [0; 4096]).expect("a request");
            assert!(read > 0, "nothing was asked");
            stream.write_all(answer).expect("sent");
        }
    });
    let (_, no_tls) = said(&format!("tidings app list --server https://{address}"), &[]);
    assert!(no_tls.contains(&format!("does not speak TLS; write http://{address}")), "{no_tls}");
    let (_, no_http) = said(&format!("tidings app list --server http://{address}"), &[]);
    assert!(no_http.contains(&format!("if it speaks TLS, write https://{address}")), "{no_http}");
    serving.join().expect("no panic");
    let (_, nowhere) = said("tidings app list --server http://nowhere.invalid", &[]);
    assert!(nowhere.contains("the name nowhere.invalid has no address"), "{nowhere}");
}

/// A server with the apps `search` (one) and `twin` (two), and the tokens of the first app and the second.
async fn house() -> (House, String, String) {
    let house = House::open().await;
    let mut tokens = Vec::new();
    for name in ["search", "twin", "twin"] {
        let body = json!({ "app_name": name, "email": "a@b.c", "base_url": "https://app.example" });
        let answered = house.call("POST", "/api/apps/onboard", None, Some(&body)).await;
        tokens.push(answered.json()["token"].as_str().expect("a token").to_owned());
    }
    let [search, twin, _] = tokens.try_into().expect("three");
    (house, search, twin)
}

/// Runs a command against a server, with a token.
async fn ran(house: &House, text: &str, token: &str) -> Result<(), (Code, String)> {
    let text = format!("{text} --server http://{}", house.address);
    let token = token.to_owned();
    let environment = move || code(&text, &[(TOKEN_VARIABLE, &token), ("TIDINGS__DATA_DIR", "/nonexistent")]);
    tokio::task::spawn_blocking(environment).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_token_is_told_with_the_one_that_is_needed() {
    let (house, app, _) = house().await;
    for (text, token, parts) in [
        (
            "tidings app list",
            "",
            &["token of the staff", "none was given", "data_dir", "--token-file", "TIDINGS_TOKEN"][..],
        ),
        (
            "tidings app list",
            app.as_str(),
            &["token of the staff", "the given token is the token of an app", "admin-token"],
        ),
        (
            "tidings repository list",
            "",
            &["token of an app", "tidings app create", "--token-file", "--for APP"],
        ),
        ("tidings app list", "wrong", &["does not know the given token", "mistyped, revoked or expired"]),
        (
            "tidings repository list",
            "wrong",
            &["does not know the given token", "mistyped, revoked or expired"],
        ),
        ("tidings auth show", "wrong", &["does not know the given token", "mistyped, revoked or expired"]),
        (
            "tidings repository list",
            ADMIN,
            &["needs the token of an app", "is a token of the staff", "--for APP"],
        ),
        ("tidings token list", ADMIN, &["--for APP; for tokens of the staff give --staff"]),
        ("tidings token create t2", ADMIN, &["--for APP; for tokens of the staff give --role"]),
        (
            "tidings token revoke tok_00000000000000000000000000",
            ADMIN,
            &["--for APP; for tokens of the staff give --staff"],
        ),
    ] {
        let (code, message) = ran(&house, text, token).await.expect_err(text);
        assert_eq!(code, Code::Permission, "{text}: {message}");
        for part in parts {
            assert!(message.contains(part), "{text} does not say {part:?}: {message}");
        }
    }
    // Where the settings of this machine have an admin token, the message names its file.
    let data = tempfile::tempdir().expect("a folder");
    let file = data.path().join("admin-token");
    std::fs::write(&file, "a token").expect("written");
    let (server, data) = (format!("http://{}", house.address), data.path().display().to_string());
    let list = move || code(&format!("tidings app list --server {server}"), &[("TIDINGS__DATA_DIR", &data)]);
    let (_, message) = tokio::task::spawn_blocking(list).await.expect("no panic").expect_err("no token");
    assert!(message.contains(&file.display().to_string()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_named_by_their_names() {
    let (house, search, _) = house().await;
    house.repository(&search, "https://github.com/o/r").await;
    let id = house.app_named("search").await.id.to_string();
    for text in [
        "tidings repository list --for search".to_owned(),
        format!("tidings repository list --for {id}"),
        "tidings repository show o/r --for search".to_owned(),
        "tidings app show search".to_owned(),
        "tidings admin watches --of search".to_owned(),
        "tidings audit list --of search".to_owned(),
        "tidings admin resync --of search".to_owned(),
        "tidings auth show".to_owned(),
    ] {
        assert_eq!(ran(&house, &text, ADMIN).await, Ok(()), "{text}");
    }
    for text in [
        "tidings repository list --for",
        "tidings app show",
        "tidings app erase --yes",
        "tidings admin watches --of",
        "tidings audit list --of",
        "tidings admin resync --of",
        "tidings admin breaker reset endpoint",
    ] {
        let (code, none) = ran(&house, &format!("{text} nobody"), ADMIN).await.expect_err(text);
        let expected = "no app has the id or name \"nobody\"; `tidings app list` lists them";
        assert_eq!((code, none.as_str()), (Code::Data, expected), "{text}");
        let (code, two) = ran(&house, &format!("{text} twin"), ADMIN).await.expect_err(text);
        assert_eq!(code, Code::Data, "{text}");
        let apps = house.apps().await;
        let mut twins = apps.iter().filter(|app| app.name == "twin");
        assert!(twins.all(|app| two.contains(app.id.as_str())) && two.contains("several apps"), "{two}");
    }
    let gone = "tidings repository list --for app_00000000000000000000000000";
    let (_, none) = ran(&house, gone, ADMIN).await.expect_err("no such app");
    assert!(none.contains("no app has the id or name \"app_0000"), "{none}");
    assert_eq!(ran(&house, "tidings app erase search --yes", ADMIN).await, Ok(()));
    assert_eq!(house.apps().await.len(), 2, "that one and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_named_by_their_repositories() {
    let (house, search, twin) = house().await;
    house.repository(&search, "https://github.com/o/r").await;
    house.repository(&twin, "https://github.com/o/other").await;
    for named in
        ["o/r", "https://github.com/o/r", "https://github.com/O/r.git", "git@github.com:o/r.git", "r"]
    {
        for verb in ["show NAMED", "scan NAMED", "pause NAMED", "resume NAMED", "rounds NAMED"] {
            let text = format!("tidings repository {}", verb.replace("NAMED", named));
            assert_eq!(ran(&house, &text, &search).await, Ok(()), "{text}");
        }
        for verb in ["dead-letter list", "delivery list"] {
            let text = format!("tidings {verb} --repository {named}");
            assert_eq!(ran(&house, &text, &search).await, Ok(()), "{text}");
        }
    }
    let known = "tidings repository list";
    for text in [
        "tidings listen --pull nope --mirror MIRROR",
        "tidings listen --pull repo_00000000000000000000000000 --once --mirror MIRROR",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mirror = folder.path().join("mirror");
        let text = text.replace("MIRROR", mirror.to_str().expect("a path"));
        ran(&house, &text, &search).await.expect_err(&text);
        assert!(!mirror.exists(), "{text}: what failed leaves nothing");
    }
    for text in [
        "tidings repository show repo_nope",
        "tidings repository remove o/other",
        "tidings repository remove x/r",
        "tidings dead-letter list --repository nope",
        "tidings dead-letter redrive --repository nope",
        "tidings dead-letter cancel --repository nope",
        "tidings delivery list --repository nope",
        "tidings listen --pull nope --settle",
        "tidings repository show repo_00000000000000000000000000",
    ] {
        let (code, message) = ran(&house, text, &search).await.expect_err(text);
        assert_eq!(code, Code::Data, "{text}: {message}");
        assert!(message.contains(&format!("`{known}` lists")), "{text}: {message}");
    }
    assert_eq!(ran(&house, "tidings repository remove o/r", &search).await, Ok(()));
    assert_eq!(house.watches().await.len(), 1, "that one and no other");
}

#[test]
fn a_data_directory_that_cannot_be_is_told_before_a_start_meets_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "text").expect("written");
    for (path, part) in [(file.to_str().expect("a path"), "is a file"), ("/proc/none/such", "cannot be made")]
    {
        let (_, message) = said("tidings check-config", &[("TIDINGS__DATA_DIR", path)]);
        assert!(
            message.contains(path) && message.contains("data_dir") && message.contains(part),
            "{message}"
        );
        let at_start =
            crate::app::make_private_directory(std::path::Path::new(path)).expect_err(path).to_string();
        assert!(at_start.contains(path) && at_start.contains("TIDINGS__DATA_DIR"), "{at_start}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_watched_already_is_not_replaced_by_mistake() {
    let (house, token, other) = house().await;
    let add = |url: &str, more: &str| format!("tidings repository add {url} {more}");
    assert_eq!(ran(&house, &add("https://github.com/o/r", "--include docs/**"), &token).await, Ok(()));
    let id = house.watches().await[0].id.to_string();
    for url in ["https://github.com/o/r", "https://github.com/O/r.git", "git@github.com:o/r.git"] {
        let (code, message) = ran(&house, &add(url, ""), &token).await.expect_err(url);
        assert_eq!(code, Code::Data, "{message}");
        for part in [url, &format!("already watched as {id}"), "tidings repository update", "--again"] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    let include = async || house.watch(&id).await.view.include().to_vec();
    assert_eq!(include().await, ["docs/**"], "nothing was replaced");
    let others = [
        (add("https://github.com/o/r", "--branch main"), token.as_str()),
        (add("https://github.com/o/other", ""), token.as_str()),
        (add("https://github.com/o/r", ""), other.as_str()),
    ];
    // Another branch, another repository, another app.
    for (text, token) in &others {
        assert_eq!(ran(&house, text, token).await, Ok(()), "{text}");
    }
    assert_eq!(ran(&house, &add("https://github.com/o/r", "--again --include src/**"), &token).await, Ok(()));
    assert_eq!(include().await, ["src/**"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_repository_is_told_as_watch_tells_it() {
    let house = House::with(|settings| settings.git.allow_local = true).await;
    let token = house.app().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shown = folder.path().display();
    let relative =
        house.call("POST", "/api/repositories", Some(&token), Some(&json!({ "url": "./repo" }))).await;
    let said = relative.problem()["error"].as_str().unwrap_or_default().to_owned();
    assert!(said.starts_with("url must be an absolute path, such as /srv/git/site"), "{said}");
    for (url, parts) in [
        (shown.to_string(), &["is no Git repository: it holds no .git"][..]),
        (format!("{shown}/nowhere"), &["there is no such folder"]),
        ("owner/name".to_owned(), &["no such folder", "https://github.com/owner/name"]),
        ("ftp://h.example/o/r".to_owned(), &["only https addresses can be used", "by its path"]),
        ("nats://h.example/o".to_owned(), &["only https addresses can be used", "by its path"]),
    ] {
        let text = format!("tidings repository add {url}");
        let (_, message) = ran(&house, &text, &token).await.expect_err(&text);
        for part in parts {
            assert!(message.contains(part), "{text} does not say {part:?}: {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_that_is_missing_is_made_for_its_owner_alone() {
    let (house, token, _) = house().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let create = format!(
        "tidings app create --name made --email a@b.c --base-url https://app.example --signing-key-file {}",
        first.display()
    );
    assert_eq!(ran(&house, &create, "").await, Ok(()));
    let rotate = format!("tidings app rotate-key --signing-key-file {}", second.display());
    assert_eq!(ran(&house, &rotate, &token).await, Ok(()));
    let key = |path: &std::path::Path| {
        let mode = std::fs::metadata(path).expect("made").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
        let key = std::fs::read_to_string(path).expect("read").trim().to_owned();
        assert!(key.len() >= 43, "32 random bytes: {key}");
        key
    };
    assert_eq!(house.app_named("made").await.keys[0].expose(), key(&first));
    assert_eq!(house.app_named("search").await.keys[0].expose(), key(&second));
    let before = key(&first);
    assert_eq!(ran(&house, &create.replace("made", "again"), "").await, Ok(()));
    assert_eq!(key(&first), before, "a key that is there is taken");
}
