//! What a machine must have for the binary to run there.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::server::{Server, bare_command};

/// Libraries that every program of the language's standard library is linked with.
const EXPECTED: [&str; 7] = ["ld-linux", "libc.", "libdl.", "libgcc_s.", "libm.", "libpthread.", "librt."];

#[cfg(target_os = "linux")]
#[test]
fn the_binary_needs_no_library_of_the_machine_but_that_of_c() {
    let server = Server::start();
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.process())).expect("its memory");
    let mapped: BTreeSet<&str> =
        maps.lines().filter_map(|line| line.rsplit('/').next()).filter(|name| name.contains(".so")).collect();
    assert!(mapped.iter().any(|name| name.starts_with("libc.")), "{mapped:?}");
    let others: Vec<_> =
        mapped.iter().filter(|name| !EXPECTED.iter().any(|known| name.starts_with(known))).collect();
    assert!(others.is_empty(), "{others:?}");
}

const COMPOSE: &str = include_str!("../../deploy/compose.yaml");

fn service(home: &Path, arguments: &[&str]) -> Output {
    bare_command(home).arg("service").args(arguments).output().expect("it ran")
}

#[test]
fn a_unit_is_written_once_shown_and_removed() {
    let home = TempDir::new().expect("a folder");
    let root = home.path().join("root");
    let root = root.to_str().expect("a path");
    for (manager, path) in [
        ("systemd", "etc/systemd/system/tidings.service"),
        ("launchd", "Library/LaunchDaemons/tidings.plist"),
    ] {
        let place = ["--manager", manager, "--root", root];
        let with = |verb: &[&str]| service(home.path(), &[verb, &place].concat());
        let installed = Path::new(root).join(path);
        assert_eq!(with(&["status"]).status.code(), Some(1), "it is not there");
        let settings = ["install", "--binary", "/usr/bin/tidings", "--settings", "/etc/tidings/config.toml"];
        let file = Path::new(root).join("etc/tidings/config.toml");
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::remove_file(&file).ok();
        for binary in ["usr/bin/tidings", "opt/tidings"] {
            let binary = Path::new(root).join(binary);
            fs::create_dir_all(binary.parent().expect("a folder")).expect("made");
            fs::write(binary, "").expect("written");
        }
        let refused = |words: &str| {
            for more in [&[][..], &["--print"]] {
                let output = with(&[&settings[..], more].concat());
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(78), "{more:?}: {said}");
                assert!(said.contains(words) && !installed.exists() && output.stdout.is_empty(), "{said}");
            }
        };
        refused("etc/tidings/config.toml");
        fs::write(&file, "[git]\npoll_min = \"soon\"\n").expect("written");
        refused("git.poll_min");
        fs::write(&file, "data_dir = \"/srv/tidings\"\n").expect("written");
        refused("is /srv/tidings, but the service may write only");
        fs::write(&file, "[onboarding]\nmode = \"admin\"\n").expect("written");
        let printed = with(&[&settings[..], &["--print"]].concat());
        assert!(printed.status.success() && !installed.exists(), "{printed:?}");
        assert!(with(&settings).status.success());
        let text = fs::read_to_string(&installed).expect("a unit");
        assert_eq!(text.as_bytes(), printed.stdout);
        assert!(text.contains("/usr/bin/tidings") && text.contains("/etc/tidings/config.toml"), "{text}");
        let filled = text.replace("${CREDENTIALS_DIRECTORY}", "");
        assert!(!filled.contains('{'), "a place was not filled: {text}");
        assert!(with(&settings).status.success(), "the same again");
        assert_eq!(with(&["status", "--print"]).stdout, text.as_bytes());
        let other = ["install", "--binary", "/opt/tidings"];
        assert_eq!(with(&other).status.code(), Some(73), "another one is not written over");
        assert!(with(&[&other[..], &["--replace"]].concat()).status.success());
        assert!(fs::read_to_string(&installed).expect("a unit").contains("/opt/tidings"));
        assert!(with(&["uninstall", "--print"]).status.success() && installed.exists());
        assert!(with(&["uninstall"]).status.success());
        assert!(!installed.exists());
        for verb in [&["uninstall"][..], &["uninstall", "--print"]] {
            assert_eq!(with(verb).status.code(), Some(65), "{verb:?}");
        }
        for more in [&[][..], &["--print"]] {
            let missing = with(&[&["install", "--binary", "/usr/bin/nope"][..], more].concat());
            assert_eq!(missing.status.code(), Some(66), "{missing:?}");
            let nowhere = home.path().join("nowhere");
            let typo = ["install", "--manager", manager, "--root", nowhere.to_str().expect("a path")];
            let refused = service(home.path(), &[&typo[..], more].concat());
            assert!(refused.status.code() == Some(66) && !nowhere.exists(), "{refused:?}");
        }
    }
    for bad in ["/a b/tidings", "/x%n", "/x\n[Service]"] {
        let refused = service(home.path(), &["install", "--print", "--binary", bad]);
        assert_eq!(refused.status.code(), Some(64), "{bad}");
    }
}

#[test]
fn a_unit_names_files_by_paths_without_dots() {
    let home = TempDir::new().expect("a folder");
    fs::create_dir(home.path().join("sv")).expect("made");
    for file in ["tidings", "config.toml"] {
        fs::write(home.path().join(file), "").expect("written");
    }
    for manager in ["systemd", "launchd"] {
        let printed = |folder: &str| {
            let [binary, settings] = ["tidings", "config.toml"].map(|file| format!("{folder}/{file}"));
            let verb = ["install", "--print", "--manager", manager];
            let files = ["--binary", binary.as_str(), "--settings", settings.as_str()];
            let output = service(home.path(), &[&verb[..], &files].concat());
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        let folder = home.path().to_str().expect("a path");
        assert_eq!(printed(&format!("{folder}/sv/.././sv/..")), printed(folder), "systemd refuses dots");
    }
}

#[test]
fn variables_that_the_service_will_not_have_are_named_and_their_values_are_not() {
    let home = TempDir::new().expect("a folder");
    let settings = home.path().join("config.toml");
    fs::write(&settings, "").expect("written");
    let settings = settings.to_str().expect("a path");
    let printed = |manager: &str, more: &[&str]| {
        let mut command = bare_command(home.path());
        command.args(["service", "install", "--print", "--manager", manager]);
        command.args(more).env("TIDINGS__HOOKS__SECRET", "a-secret-of-hooks");
        let output = command.env("TIDINGS__SERVER__LISTEN", "127.0.0.1:9").output().expect("it ran");
        assert!(output.status.success(), "{output:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(!text(&output.stdout).contains("a-secret-of-hooks"));
        text(&output.stderr)
    };
    for (manager, more, place) in [
        ("systemd", &[][..], "into /etc/tidings/environment"),
        ("launchd", &[], "name the file with --settings"),
        ("systemd", &["--settings", settings], "into the settings file"),
    ] {
        let said = printed(manager, more);
        assert!(
            said.contains("TIDINGS__HOOKS__SECRET") && said.contains("TIDINGS__SERVER__LISTEN"),
            "{said}"
        );
        assert!(said.contains(place) && !said.contains("a-secret-of-hooks"), "{said}");
    }
}

#[test]
fn the_service_is_started_stopped_and_read_through_its_manager() {
    let home = TempDir::new().expect("a folder");
    let tools = home.path().join("tools");
    fs::create_dir(&tools).expect("a folder");
    for tool in ["systemctl", "journalctl", "launchctl", "tail"] {
        let path = tools.join(tool);
        fs::write(&path, format!("#!/bin/sh\necho {tool} \"$@\" >> {}/said\n", tools.display()))
            .expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let told = |arguments: &[&str]| {
        let mut command = bare_command(home.path());
        let output = command.env("PATH", &path).arg("service").args(arguments).output().expect("it ran");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let said = fs::read_to_string(tools.join("said")).expect("a manager was told");
        fs::remove_file(tools.join("said")).expect("removed");
        said
    };
    for (arguments, systemd, launchd) in [
        (
            &["start"][..],
            "systemctl start tidings.service",
            "launchctl bootstrap system /Library/LaunchDaemons/tidings.plist",
        ),
        (
            &["stop"],
            "systemctl stop tidings.service",
            "launchctl bootout system /Library/LaunchDaemons/tidings.plist",
        ),
        (&["restart"], "systemctl restart tidings.service", "launchctl kickstart -k system/tidings"),
        (
            &["logs", "--lines", "7", "--follow"],
            "journalctl --unit tidings.service --no-pager --lines 7 -f",
            "tail -n 7 -f /usr/local/var/log/tidings.log",
        ),
    ] {
        for (manager, expected) in [("systemd", systemd), ("launchd", launchd)] {
            let said = told(&[arguments, &["--manager", manager]].concat());
            assert_eq!(said.trim_end(), expected);
        }
        let elsewhere = service(home.path(), &[arguments, &["--root", "/x"]].concat());
        assert_eq!(elsewhere.status.code(), Some(64), "nothing runs there");
    }
}

/// As systemd does it: the file of `tidings init` belongs to root, and the user of the service gets a copy.
#[test]
fn the_file_of_init_is_handed_to_the_service_which_can_read_it() {
    let home = TempDir::new().expect("a folder");
    let run = |arguments: &[&str]| {
        let output = bare_command(home.path()).current_dir(home.path()).args(arguments).output();
        let output = output.expect("it ran");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let written = run(&["init"]);
    let next =
        written.lines().find_map(|line| line.strip_prefix("or       tidings ")).expect("the next step");
    let manager = ["--manager", "systemd", "--print"];
    let unit = run(&[&next.split(' ').collect::<Vec<_>>()[..], &manager].concat());
    let line = |name: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        found.strip_prefix('=').expect("a value").to_owned()
    };
    let (name, path) =
        line("LoadCredential").split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("two");
    assert!(Path::new(&path).is_absolute(), "{path}");
    let folder = home.path().join("credentials");
    fs::create_dir(&folder).expect("a folder");
    fs::copy(&path, folder.join(&name)).expect("handed over");
    let command = line("ExecStart").replace("${CREDENTIALS_DIRECTORY}", folder.to_str().expect("a path"));
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[1], "serve");
    let checked = bare_command(home.path()).arg("check-config").args(&words[2..]).output().expect("it ran");
    assert!(checked.status.success(), "{words:?}: {checked:?}");
    assert!(unit.contains("Environment=TIDINGS__DATA_DIR=/var/lib/tidings "), "{unit}");
}

/// Needs nothing but the checker of systemd, which most machines have; elsewhere it says so.
#[test]
fn systemd_accepts_the_unit_and_finds_it_closed() {
    let home = TempDir::new().expect("a folder");
    let unit = home.path().join("tidings.service");
    let binary = env!("CARGO_BIN_EXE_tidings");
    let print = ["install", "--manager", "systemd", "--print", "--binary", binary];
    let settings = home.path().join("tidings.toml");
    fs::write(&settings, "").expect("written");
    let settings = settings.to_str().expect("a path");
    let printed = service(home.path(), &[&print[..], &["--settings", settings]].concat());
    fs::write(&unit, &printed.stdout).expect("written");
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
        println!("skipped: there is no systemd-analyze on this machine");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("tidings.service:"), "{said}");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=20"]).arg(&unit);
    let security = security.output().expect("it ran");
    let said = String::from_utf8_lossy(&security.stdout);
    assert!(
        security.status.success(),
        "more exposed than 2.0: {said} {}",
        String::from_utf8_lossy(&security.stderr)
    );
}

/// The commands in the head of the compose file, each in one line.
fn compose_commands() -> Vec<String> {
    let head = COMPOSE.lines().map_while(|line| line.strip_prefix('#')).collect::<Vec<_>>().join("\n");
    let joined = head.replace("\\\n", " ");
    joined.lines().filter(|line| line.starts_with("   ")).map(|line| line.trim().to_owned()).collect()
}

/// A command of the binary by the user of the image, with the secret where an engine mounts it.
fn in_a_container(home: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-euc"]);
    command.arg(
        "mount -t tmpfs none /run && mkdir /run/secrets && cp -p deploy/sample-key /run/secrets/sample_key\n\
         exec setpriv --reuid 65532 --regid 65532 --clear-groups \"$@\"",
    );
    command.arg("sh").arg(env!("CARGO_BIN_EXE_tidings")).args(arguments);
    command.env("HOME", home.join("data")).current_dir(home);
    command
}

/// Needs root, for another user and a `/run` of its own; elsewhere it says so.
#[test]
fn the_commands_of_the_compose_file_can_read_the_secrets_that_it_makes() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let home = TempDir::new().expect("a folder");
    let data = home.path().join("data");
    for folder in [&data, &home.path().join("deploy")] {
        fs::create_dir(folder).expect("made");
    }
    let commands = compose_commands();
    let named = |part: &str| commands.iter().find(|command| command.contains(part)).expect("a command");
    let mut make = Command::new("sh");
    make.args(["-c", &format!("umask 077; {}", named("openssl"))]).current_dir(home.path());
    assert!(make.status().expect("it ran").success());

    let server = Server::start();
    fs::copy(server.data().join("admin-token"), data.join("admin-token")).expect("copied");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let owned = Command::new("chown").args(["-R", "65532:65532"]).arg(&data).status();
    assert!(owned.expect("it ran").success());
    let in_place = |word: &str| {
        let word = word.trim_matches('"').replace("/data/", &format!("{}/", data.display()));
        word.replace("//receiver:", "//127.0.0.1:").replace("0.0.0.0:9000", "127.0.0.1:0")
    };

    let create = named("app create").split_once("exec server /tidings ").expect("in the server").1;
    let mut create: Vec<String> = create.split_whitespace().map(in_place).collect();
    create.extend(["--server".to_owned(), format!("http://{}", server.address())]);
    let created = in_a_container(home.path(), &create).output().expect("it ran");
    assert!(created.status.success(), "{created:?}");

    let listen = COMPOSE.lines().find_map(|line| line.trim().strip_prefix("command: [listen, "));
    let listen = listen.expect("a receiver").trim_end_matches(']').split(", ").map(in_place);
    let listen: Vec<String> = std::iter::once("listen".to_owned()).chain(listen).collect();
    let mut listening = in_a_container(home.path(), &listen).stderr(Stdio::piped()).spawn().expect("it ran");
    let mut line = String::new();
    BufReader::new(listening.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    listening.kill().expect("killed");
    listening.wait().expect("ended");
    assert!(line.starts_with("listening on "), "{line}");
}
