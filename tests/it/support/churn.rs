//! Commits of every kind, at random: what people and machines do to repositories.

use std::{collections::BTreeSet, time::Duration};

use super::{dice::Dice, project::Project};

/// Someone who keeps changing a project.
pub(crate) struct Churn {
    files: BTreeSet<String>,
    made: u64,
}

impl Churn {
    /// Begins with this many files in the first commit.
    pub(crate) fn begin(project: &Project, files: u64) -> Self {
        let mut churn = Self { files: BTreeSet::new(), made: 0 };
        for number in 0..files {
            churn.write(
                project,
                &format!("d{}/f{number}.txt", number % 7),
                format!("first {number}\n").as_bytes(),
            );
        }
        project.commit("first");
        churn
    }

    /// One more commit of some changes.
    pub(crate) fn commit(&mut self, project: &Project, dice: &mut Dice) {
        let changes = if dice.one_in(10) { 90 } else { 1 + dice.below(6) };
        for _ in 0..changes {
            self.change(project, dice);
        }
        self.made += 1;
        project.commit(&format!("change {}", self.made));
    }

    fn change(&mut self, project: &Project, dice: &mut Dice) {
        let known: Vec<String> = self.files.iter().cloned().collect();
        let some = dice.pick(&known).cloned();
        let name = format!("d{}/n{}.txt", dice.below(7), dice.below(100_000));
        match (dice.below(20), some) {
            (0..=6, Some(path)) => {
                self.write(project, &path, format!("edited {}\n", dice.number()).as_bytes());
            }
            (7..=10, Some(path)) => self.remove(project, &path),
            (11..=12, Some(path)) => {
                let content = std::fs::read(project.path().join(&path)).expect("it is there");
                self.remove(project, &path);
                self.write(project, &name, &content);
            }
            (13, Some(path)) => project.set_executable(&path, dice.one_in(2)),
            (14, _) => self.write(project, &format!("{name}.bin"), &dice.bytes(3_000)),
            (15, _) => self.write(project, &format!("{name}.empty"), b""),
            (16, _) if dice.one_in(8) => self.write(project, "large.bin", &dice.bytes(1_100_000)),
            (17, _) => self.write(project, &format!("ü/{name} ß"), "grüße\n".as_bytes()),
            _ => self.write(project, &name, format!("new {}\n", dice.number()).as_bytes()),
        }
    }

    fn write(&mut self, project: &Project, path: &str, content: &[u8]) {
        project.write(path, content);
        self.files.insert(path.to_owned());
    }

    fn remove(&mut self, project: &Project, path: &str) {
        project.remove(path);
        self.files.remove(path);
    }
}

/// The longest wait between two commits of a busy project.
pub(crate) const BETWEEN_COMMITS: Duration = Duration::from_millis(400);
