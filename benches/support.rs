//! What the benchmarks share: repositories made by fast-import, settings for loopback, and the words
//! in which a figure is printed.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mimalloc::MiMalloc;
use tidings::settings::Settings;

/// The same as the binary's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Makes a bare repository with `files` files of `size` bytes, spread over directories of 100, and
/// `branches` branches that all name the same commit; then one more commit on `main` that changes
/// one file, where `second` says so.
pub(crate) fn repository(path: &Path, files: usize, size: usize, branches: usize, second: bool) {
    git(path.parent().expect("a parent"), &["init", "-q", "--bare", path.to_str().expect("utf-8")]);
    let mut child = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut input = std::io::BufWriter::new(child.stdin.take().expect("piped"));
    let who = "A <a@example.org> 1700000000 +0000";
    write!(input, "commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n").expect("piped");
    for file in 0..files {
        let mut content = format!("file {file}\n");
        let mut state = file as u64 + 1;
        while content.len() < size {
            // Text that does not compress to nothing.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            writeln!(content, "{state:016x}").expect("a String takes all");
        }
        content.truncate(size);
        write!(input, "M 644 inline d{:04}/f{file:06}.txt\ndata {}\n{content}\n", file / 100, content.len())
            .expect("piped");
    }
    for branch in 0..branches {
        write!(input, "reset refs/heads/b{branch}\nfrom :1\n\n").expect("piped");
    }
    if second {
        write!(input, "commit refs/heads/main\ncommitter {who}\ndata 3\ntwo\nfrom :1\n").expect("piped");
        write!(input, "M 644 inline d0003/f000300.txt\ndata 8\nchanged\n\n").expect("piped");
    }
    drop(input);
    assert!(child.wait().expect("git ends").success());
    git(path, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    git(path, &["repack", "-adq"]);
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("git").args(arguments).current_dir(directory).output().expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Settings for loopback, with everything below `data_dir`.
pub(crate) fn settings(data_dir: &Path) -> Settings {
    let mut settings = Settings { data_dir: data_dir.to_owned(), ..Settings::default() };
    settings.egress.allow = vec!["127.0.0.0/8".to_owned()];
    settings.egress.allow_http = true;
    settings.git.allow_local = true;
    settings
}

/// Prints a figure beside its baseline of the same run.
pub(crate) fn figure(what: &str, unit: &str, figure: f64, baseline: f64, wanted: &str) {
    println!(
        "{what}: {figure:.1} {unit}, baseline {baseline:.1} {unit}, ratio {:.2} (wanted {wanted})",
        figure / baseline
    );
}

/// How many a second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// Runs a future to its end and returns its result with the time that it took.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let result = work.await;
    (result, start.elapsed())
}
