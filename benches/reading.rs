//! Reading and hashing every content of a commit, as rendering does: what a machine can at most.

use sha2::{Digest, Sha256};
use tidings_actors::{
    deliverer::lane::{AHEAD, AHEAD_BYTES},
    model::round::{Change, RoundSpec, TreeEnd},
    ports::{BlobWanted, Content, GitSource, Remote, Seek},
};
use tidings_entity::kind::RoundKind;

/// How many contents there are, and how many bytes.
pub(crate) async fn read_and_hash(
    source: &dyn GitSource,
    remote: &Remote,
    target: Option<TreeEnd>,
) -> (u64, u64) {
    let spec = RoundSpec { kind: RoundKind::Sync, held: None, target, bases: vec![], letters: vec![] };
    let (mut seek, mut files, mut bytes) = (Seek::Position(0), 0_u64, 0_u64);
    loop {
        let window = source.window(remote, &spec, &seek, 256).await.expect("read");
        let blob = |change: &Change| BlobWanted { blob: change.new.expect("a create").blob, limit: 1 << 26 };
        let wanted: Vec<BlobWanted> = window.iter().map(blob).collect();
        // As many at once as a lane renders.
        for some in wanted.chunks(AHEAD) {
            let contents = source.contents(remote, some, AHEAD_BYTES).await.expect("read");
            assert_eq!(contents.len(), some.len());
            for content in contents {
                let Content::Whole(content) = content else { panic!("too large") };
                files += 1;
                bytes += content.len() as u64;
                std::hint::black_box(Sha256::digest(&content));
            }
        }
        match window.last() {
            Some(last) if window.len() == 256 => seek = Seek::After(last.clone()),
            _ => return (files, bytes),
        }
    }
}
