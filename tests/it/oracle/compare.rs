//! What every app was told since the last rest, held against what git says.

use std::collections::BTreeSet;

use tidings_entity::id::ObjectId;

use super::{World, expected, objects::Files, rounds};

impl World {
    /// Holds what every watch was told since the last time against what git says.
    pub(super) fn compare(&mut self, is_stale: bool) {
        let (mut faults, mut leaps) = (Vec::new(), BTreeSet::new());
        for at in 0..self.watches.len() {
            self.watches[at].subscriber.assert_faultless();
            let changes = {
                let mut model = self.watches[at].subscriber.model();
                assert!(model.left.is_empty(), "rounds were left before their end: {:?}", model.left);
                model.take_applied()
            };
            self.counts.0 += changes.len();
            let mut rounds = rounds::gather(changes);
            for branch in self.watches[at].branches {
                let told = rounds.remove(*branch).unwrap_or_default();
                leaps.extend(told.iter().map(|told| (told.leap.from, told.leap.to)));
                faults.extend(self.compare_branch(at, branch, &told, is_stale));
            }
            assert!(rounds.is_empty(), "{}: rounds of {:?}", self.watches[at].name, rounds.keys());
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..faults.len().min(10)].join("\n"));
        self.check_reading(&leaps.into_iter().collect::<Vec<_>>());
    }

    /// That the oracle reads trees as git does.
    fn check_reading(&mut self, leaps: &[(Option<ObjectId>, Option<ObjectId>)]) {
        for ((from, to), shown) in leaps.iter().zip(self.truth.raw_differences(leaps)) {
            let ours = expected::differences(&self.truth.files(*from), &self.truth.files(*to));
            assert_eq!(expected::as_git_shows(&ours), shown, "{from:?} to {to:?}");
        }
    }

    fn compare_branch(
        &mut self,
        at: usize,
        branch: &'static str,
        told: &[rounds::Told],
        is_stale: bool,
    ) -> Vec<String> {
        let (watch, truth) = (&mut self.watches[at], &mut self.truth);
        let (lens, held) = (watch.lens, watch.held.get(branch).copied().flatten());
        let head = self.history.head(branch);
        self.counts.1 += told.len();
        let mut faults = Vec::new();
        if is_stale {
            faults.extend(rounds::fault_of_way(&lens, (held, head), told, truth));
        } else {
            let due = rounds::due(&lens, held, head, truth);
            let came: Vec<_> = told.iter().map(|told| told.leap).collect();
            if came != due {
                faults.push(format!("rounds {came:?} instead of {due:?}"));
            }
        }
        for told in told {
            let expected = rounds::changes(&lens, told.leap.from, told.leap.to, truth);
            faults.extend(rounds::faults_of_round(told, &expected, branch, &lens, truth));
        }
        if faults.is_empty() {
            let has = watch.has.entry(branch).or_default();
            told.iter().for_each(|told| rounds::apply(has, told));
            let mut tree = Files::clone(&truth.files(head));
            tree.retain(|path, entry| watch.lens.sees(path, *entry));
            assert_eq!(*has, tree, "{} has another {branch}", watch.name);
        }
        watch.held.insert(branch, head);
        faults.iter().map(|fault| format!("{} {branch}: {fault}", watch.name)).collect()
    }
}
