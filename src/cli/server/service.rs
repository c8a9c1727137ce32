//! `tidings service`: Tidings as a service of this machine, under systemd or launchd. The template of the
//! unit is in the folder of the same name; `install` writes it and lets the manager start it.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::{
    cli::{Code, Context, Failure, folder},
    settings::Settings,
};

const SYSTEMD_UNIT: &str = include_str!("service/tidings.service");
/// The name under which systemd hands the settings file to the service.
const CREDENTIAL: &str = "settings.toml";
const LAUNCHD_PLIST: &str = include_str!("service/tidings.plist");

#[derive(Subcommand, Debug)]
pub(crate) enum ServiceVerb {
    /// Write the unit, and start the service now and at each boot
    Install {
        #[command(flatten)]
        manager: Choice,
        #[command(flatten)]
        unit: Unit,
        /// Check everything and only print the unit. TIDINGS__ variables of this shell are not in the unit;
        /// standard error names those that are set
        #[arg(long)]
        print: bool,
        /// Overwrite a unit that has another content
        #[arg(long)]
        replace: bool,
    },
    /// Stop the service and remove its unit; data and settings stay
    Uninstall {
        #[command(flatten)]
        manager: Choice,
        /// Remove nothing: only print what would be removed
        #[arg(long)]
        print: bool,
    },
    /// Start the service that is installed
    Start {
        #[command(flatten)]
        manager: Choice,
    },
    /// Stop the service until it is started again, or until the next boot
    Stop {
        #[command(flatten)]
        manager: Choice,
    },
    /// Stop the service and start it again
    Restart {
        #[command(flatten)]
        manager: Choice,
    },
    /// Print the last log lines of the service
    Logs {
        #[command(flatten)]
        manager: Choice,
        /// Number of lines to print, the newest
        #[arg(long, default_value_t = 100)]
        lines: u32,
        /// Print further lines as they come, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
    },
    /// Print whether the service is installed and runs; exit code 1 if not
    Status {
        #[command(flatten)]
        manager: Choice,
        /// Print the unit that is installed
        #[arg(long)]
        print: bool,
    },
}

/// The service manager to use, and the root of the system.
#[derive(Args, Debug)]
pub(crate) struct Choice {
    /// The service manager; if missing, the one of this operating system
    #[arg(long, value_enum)]
    manager: Option<Manager>,
    /// The root of a system that is not running (an image), which must exist: nothing is started or stopped
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Manager {
    Systemd,
    Launchd,
}

impl Manager {
    /// Where the service keeps its data: the one directory that it may write.
    fn data_dir(self) -> &'static str {
        match self {
            Self::Systemd => "/var/lib/tidings",
            Self::Launchd => "/usr/local/var/tidings",
        }
    }
}

/// The arguments for the unit.
#[derive(Args, Debug)]
pub(crate) struct Unit {
    /// The program to run as the service; if missing, this program
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The settings file; if missing, that of --config; if none, settings come from /etc/tidings/environment.
    /// Under systemd only its owner need be able to read the file: systemd hands it to the user of the
    /// service
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Let the service read home directories, for local repositories there (systemd)
    #[arg(long)]
    read_homes: bool,
    /// The user of the service (launchd; systemd creates one)
    #[arg(long, default_value = "_tidings")]
    user: String,
}

pub(crate) fn run(verb: ServiceVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ServiceVerb::Install { manager, unit, print, replace } => {
            let unit = unit.absolute(context.config.as_deref())?;
            let text = unit.text(manager.kind())?;
            unit.check(&manager)?;
            let left_out: Vec<&str> = context.environment.settings().collect();
            if let Some(notice) = of_environment(&left_out, manager.kind(), unit.settings.is_some()) {
                // On standard error, apart from the unit. A closed standard error is no failure.
                drop(writeln!(io::stderr(), "tidings: {notice}"));
            }
            if print {
                return context.output.print(&json!({ "unit": text }), &[text.trim_end().to_owned()]);
            }
            install(&manager, &text, replace)?;
            let path = manager.path();
            let lines = [format!("installed  {}", path.display())];
            context.output.print(&json!({ "installed": path }), &lines)
        }
        ServiceVerb::Uninstall { manager, print } => {
            let path = manager.path();
            if !path.exists() {
                return Err(Failure::new(Code::Data, format!("{} is not there", path.display())));
            }
            if print {
                let lines = [format!("would remove  {}", path.display())];
                return context.output.print(&json!({ "would_remove": path }), &lines);
            }
            manager.tell(&manager.stopping())?;
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
            manager.tell(&manager.reloading())?;
            context.output.print(&json!({ "removed": path }), &[format!("removed  {}", path.display())])
        }
        ServiceVerb::Start { manager } => control(&manager, "started", manager.started(), context),
        ServiceVerb::Stop { manager } => control(&manager, "stopped", manager.stopped(), context),
        ServiceVerb::Restart { manager } => control(&manager, "restarted", manager.restarted(), context),
        ServiceVerb::Logs { manager, lines, follow } => logs(&manager, lines, follow),
        ServiceVerb::Status { manager, print } => status(&manager, print, context),
    }
}

/// The notice for settings in the environment of this process, which the service does not have. Their values
/// stay out of the unit, because every user of the machine may read the unit.
fn of_environment(names: &[&str], manager: Manager, has_file: bool) -> Option<String> {
    let first = names.first()?;
    let these = match names {
        [_] => format!("{first} is set here, and the service does not have this variable"),
        _ => format!("{} are set here, and the service does not have these variables", names.join(", ")),
    };
    let place = match (manager, has_file) {
        (_, true) => "the settings file",
        (Manager::Systemd, false) => "/etc/tidings/environment",
        (Manager::Launchd, false) => "a settings file, and name the file with --settings",
    };
    Some(format!("{these}; for the service, write the same into {place}"))
}

/// Refuses settings with which the service could not start, and a `data_dir` that the service would not use.
fn check_settings(manager: &Choice, file: &Path) -> Result<(), Failure> {
    let there = manager.in_root(file);
    let settings = Settings::load(Some(&there), std::iter::empty());
    let settings = settings.map_err(|faults| Failure::of_settings(&faults))?;
    let (own, data_dir) = (manager.kind().data_dir(), &settings.data_dir);
    if *data_dir == Settings::default().data_dir || data_dir == Path::new(own) {
        return Ok(());
    }
    let said = format!(
        "data_dir of {} is {}, but the service may write only {own}: remove data_dir from the file, or set \
         it to {own}",
        there.display(),
        data_dir.display()
    );
    Err(Failure::new(Code::Config, said))
}

fn install(manager: &Choice, text: &str, replace: bool) -> Result<(), Failure> {
    let path = manager.path();
    match fs::read_to_string(&path) {
        Ok(there) if there != text && !replace => {
            let said =
                format!("{} exists with another content: compare it, then add --replace", path.display());
            return Err(Failure::new(Code::CannotCreate, said));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&path, &error)),
    }
    if let (Some(folder), Some(_)) = (path.parent(), &manager.root) {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let aside = path.with_extension("new");
    fs::write(&aside, text)
        .and_then(|()| fs::rename(&aside, &path))
        .map_err(|error| failed(&path, &error))?;
    manager.tell(&manager.reloading())?;
    manager.tell(&manager.starting())
}

/// Runs a command of the manager on the service, and prints `done`.
fn control(manager: &Choice, done: &str, command: Vec<String>, context: &Context) -> Result<(), Failure> {
    manager.check_runs()?;
    manager.tell(&command)?;
    context.output.print(&json!({ done: "tidings" }), &[format!("{done}  tidings")])
}

/// Prints the log of the service as its manager keeps it.
fn logs(manager: &Choice, lines: u32, follow: bool) -> Result<(), Failure> {
    manager.check_runs()?;
    let command = manager.logging(lines, follow);
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let ended = Command::new(program).args(arguments).status();
    let ended = ended.map_err(|error| Failure::new(Code::Unavailable, format!("{program}: {error}")))?;
    if ended.success() {
        return Ok(());
    }
    Err(Failure::new(Code::Unavailable, format!("{}: {ended}", command.join(" "))))
}

fn status(manager: &Choice, print: bool, context: &Context) -> Result<(), Failure> {
    let path = manager.path();
    let unit = fs::read_to_string(&path).ok();
    if print {
        let unit =
            unit.ok_or_else(|| Failure::new(Code::NoInput, format!("{} is not there", path.display())))?;
        return context.output.print(&json!({ "unit": unit }), &[unit.trim_end().to_owned()]);
    }
    let runs = unit.is_some() && manager.root.is_none() && manager.tell(&manager.asking()).is_ok();
    let word = |yes| if yes { "yes" } else { "no" };
    let lines = [
        format!("installed  {}  {}", word(unit.is_some()), path.display()),
        format!("runs       {}", word(runs)),
    ];
    let value = json!({ "installed": unit.is_some(), "runs": runs, "path": path });
    context.output.print(&value, &lines)?;
    if runs { Ok(()) } else { Err(Failure::new(Code::Failed, "it does not run")) }
}

impl Unit {
    /// The same with absolute paths, because a service has another working directory, and without `..`, which
    /// systemd refuses; `config` is the settings file if the unit names none.
    fn absolute(self, config: Option<&Path>) -> Result<Self, Failure> {
        let absolute = |path: PathBuf| {
            folder::plain(&path)
                .map_err(|error| Failure::new(Code::Usage, format!("{} is no path: {error}", path.display())))
        };
        let settings = self.settings.or_else(|| config.map(Path::to_owned)).map(absolute).transpose()?;
        Ok(Self { binary: self.binary.map(absolute).transpose()?, settings, ..self })
    }

    /// Refuses a unit whose service could not start. A printed unit is one that could be installed.
    fn check(&self, manager: &Choice) -> Result<(), Failure> {
        if let Some(root) = manager.root.as_deref().filter(|root| !root.is_dir()) {
            let said = format!("there is no folder {}: --root names the root of a system", root.display());
            return Err(Failure::new(Code::NoInput, said));
        }
        let binary = self.binary.as_deref().map(|binary| manager.in_root(binary));
        if let Some(binary) = binary.filter(|binary| !binary.is_file()) {
            let said = format!("there is no program {}: --binary names the one to run", binary.display());
            return Err(Failure::new(Code::NoInput, said));
        }
        self.settings.as_deref().map_or(Ok(()), |file| check_settings(manager, file))
    }

    fn text(&self, manager: Manager) -> Result<String, Failure> {
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().map_err(|error| Failure::of_error(Code::Software, &error))?,
        };
        let word = |path: &Path| {
            let text = path.to_str().filter(|text| text.starts_with('/'));
            let plain =
                |text: &&str| text.chars().all(|c| c.is_ascii_graphic() && !"%$\\\"'<>&;".contains(c));
            text.filter(plain).map(str::to_owned).ok_or_else(|| {
                let said = format!(
                    "{} has characters that do not belong in a unit, such as spaces: use a path of letters, \
                     digits, dots, - and _",
                    path.display()
                );
                Failure::new(Code::Usage, said)
            })
        };
        let settings = self.settings.as_deref().map(word).transpose()?;
        let user = self.user.as_str();
        if !user.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err(Failure::new(Code::Usage, format!("{user:?} is no name of a user")));
        }
        let arguments = settings.as_ref().map(|path| match manager {
            Manager::Systemd => format!(" --config ${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}"),
            Manager::Launchd => {
                format!("\n        <string>--config</string>\n        <string>{path}</string>")
            }
        });
        let credential = settings.as_ref().map(|path| {
            format!(
                "\n# The settings, which their owner alone need be able to read: systemd reads the file at \
                 each start and hands it to the service.\nLoadCredential={CREDENTIAL}:{path}"
            )
        });
        let text = if manager == Manager::Systemd { SYSTEMD_UNIT } else { LAUNCHD_PLIST };
        Ok(text
            .replace("{binary}", &word(&binary)?)
            .replace("{arguments}", &arguments.unwrap_or_default())
            .replace("{credential}", &credential.unwrap_or_default())
            .replace("{data_dir}", manager.data_dir())
            .replace("{home}", if self.read_homes { "read-only" } else { "yes" })
            .replace("{user}", user))
    }
}

impl Choice {
    fn kind(&self) -> Manager {
        let of_this_machine = if cfg!(target_os = "macos") { Manager::Launchd } else { Manager::Systemd };
        self.manager.unwrap_or(of_this_machine)
    }

    /// Where a file of the system lies, seen from here.
    fn in_root(&self, file: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(file.strip_prefix("/").unwrap_or(file)),
            None => file.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        let path = match self.kind() {
            Manager::Systemd => "etc/systemd/system/tidings.service",
            Manager::Launchd => "Library/LaunchDaemons/tidings.plist",
        };
        self.root.as_deref().unwrap_or(Path::new("/")).join(path)
    }

    /// Runs a command of the manager; does nothing for a system that is not running.
    fn tell(&self, command: &[String]) -> Result<(), Failure> {
        let (Some((program, arguments)), None) = (command.split_first(), &self.root) else { return Ok(()) };
        let shown = command.join(" ");
        let output = Command::new(program)
            .args(arguments)
            .output()
            .map_err(|error| Failure::new(Code::Unavailable, format!("{shown}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        Err(Failure::new(Code::Unavailable, format!("{shown}: {said} ({})", output.status)))
    }

    fn words(&self, systemd: &[&str], launchd: &[&str]) -> Vec<String> {
        let words = if self.kind() == Manager::Systemd { systemd } else { launchd };
        let path = self.path().display().to_string();
        words.iter().map(|word| word.replace("{path}", &path)).collect()
    }

    fn reloading(&self) -> Vec<String> {
        self.words(&["systemctl", "daemon-reload"], &[])
    }

    fn starting(&self) -> Vec<String> {
        self.words(
            &["systemctl", "enable", "--now", "tidings.service"],
            &["launchctl", "bootstrap", "system", "{path}"],
        )
    }

    fn stopping(&self) -> Vec<String> {
        self.words(
            &["systemctl", "disable", "--now", "tidings.service"],
            &["launchctl", "bootout", "system", "{path}"],
        )
    }

    fn started(&self) -> Vec<String> {
        self.words(
            &["systemctl", "start", "tidings.service"],
            &["launchctl", "bootstrap", "system", "{path}"],
        )
    }

    fn stopped(&self) -> Vec<String> {
        self.words(&["systemctl", "stop", "tidings.service"], &["launchctl", "bootout", "system", "{path}"])
    }

    fn restarted(&self) -> Vec<String> {
        self.words(
            &["systemctl", "restart", "tidings.service"],
            &["launchctl", "kickstart", "-k", "system/tidings"],
        )
    }

    fn logging(&self, lines: u32, follow: bool) -> Vec<String> {
        let mut words = self
            .words(&["journalctl", "--unit", "tidings.service", "--no-pager", "--lines"], &["tail", "-n"]);
        words.push(lines.to_string());
        words.extend(follow.then(|| "-f".to_owned()));
        words.extend(self.words(&[], &["/usr/local/var/log/tidings.log"]));
        words
    }

    /// Only of this system services can be started, stopped and looked at.
    fn check_runs(&self) -> Result<(), Failure> {
        match &self.root {
            None => Ok(()),
            Some(root) => {
                let said = format!("{} does not run: leave --root out for this system", root.display());
                Err(Failure::new(Code::Usage, said))
            }
        }
    }

    fn asking(&self) -> Vec<String> {
        self.words(
            &["systemctl", "is-active", "--quiet", "tidings.service"],
            &["launchctl", "print", "system/tidings"],
        )
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::CannotCreate, format!("{} cannot be used: {error}", path.display()))
}
