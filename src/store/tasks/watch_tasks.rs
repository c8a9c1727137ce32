//! Tasks of watches: the changes of a round become tasks, and the end of each task settles its change.

pub(super) mod aside;
pub(super) mod branches;
pub(super) mod hand_over;
pub(super) mod late;
pub(super) mod settles;
