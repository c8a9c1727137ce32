//! What a folder of objects promises: whole objects or nothing, parts of them, lists in pages, and an end of
//! what was never finished.

use std::os::unix::fs::PermissionsExt;

use futures_util::TryStreamExt;
use tempfile::TempDir;
use ulid::Ulid;

use super::*;

fn id(moment: u64, random: u128) -> ArtifactId {
    ArtifactId::new(Ulid::from_parts(moment, random))
}

fn folder() -> (Folder, TempDir) {
    let home = tempfile::tempdir().expect("a folder");
    (Folder::new(home.path().join("artifacts"), 0), home)
}

async fn put(folder: &Folder, id: &ArtifactId, parts: &[&'static [u8]]) {
    let mut writer = folder.begin(id, 1).await.unwrap_or_else(|error| panic!("begun: {error}"));
    for part in parts {
        writer.write(Bytes::from_static(part)).await.expect("written");
    }
    writer.finish().await.expect("finished");
}

async fn read(folder: &Folder, id: &ArtifactId, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
    let parts: Vec<Bytes> = folder.open(id, range).await?.try_collect().await?;
    Ok(parts.concat())
}

#[tokio::test]
async fn an_object_is_there_as_a_whole_or_not_at_all() {
    let (folder, home) = folder();
    let (whole, half) = (id(1, 1), id(1, 2));
    put(&folder, &whole, &[b"hello ", b"world"]).await;
    assert_eq!(read(&folder, &whole, 0..11).await.expect("read"), b"hello world");
    assert_eq!(read(&folder, &whole, 6..9).await.expect("read"), b"wor");
    assert_eq!(read(&folder, &whole, 0..12).await, Err(ObjectError::Missing), "it is shorter");
    let mut writer = folder.begin(&half, 1).await.unwrap_or_else(|error| panic!("begun: {error}"));
    writer.write(Bytes::from_static(b"hal")).await.expect("written");
    assert_eq!(read(&folder, &half, 0..3).await, Err(ObjectError::Missing));
    drop(writer);
    let left = fs::read_dir(home.path().join("artifacts/unfinished")).expect("a folder").count();
    assert_eq!(left, 0, "a writer that goes leaves nothing");
    assert_eq!(folder.list(None, 10).await.expect("listed"), [whole]);
}

#[tokio::test]
async fn objects_and_their_folders_are_for_their_user_alone() {
    let (folder, home) = folder();
    let object = id(1, 1);
    put(&folder, &object, &[b"private"]).await;
    let (root, file) = (home.path().join("artifacts"), folder.path(&object));
    for path in [&root, &root.join(UNFINISHED), &folder.shard(&object), &file] {
        let mode = fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[tokio::test]
async fn a_reader_keeps_an_object_that_is_removed() {
    let (folder, _home) = folder();
    let object = id(1, 1);
    put(&folder, &object, &[b"kept"]).await;
    let body = folder.open(&object, 0..4).await.unwrap_or_else(|error| panic!("opened: {error}"));
    folder.remove(&object).await.expect("removed");
    folder.remove(&object).await.expect("removed twice is no error");
    let parts: Vec<Bytes> = body.try_collect().await.expect("read");
    assert_eq!(parts.concat(), b"kept");
    assert_eq!(read(&folder, &object, 0..4).await, Err(ObjectError::Missing));
}

#[tokio::test]
async fn pages_of_a_list_name_each_object_once() {
    let (folder, home) = folder();
    let mut all: Vec<ArtifactId> = (0..100).map(|number| id(number, u128::from(number) * 7)).collect();
    for object in &all {
        put(&folder, object, &[b""]).await;
    }
    fs::write(home.path().join("artifacts/AB-strange"), b"").expect("written");
    let mut found: Vec<ArtifactId> = Vec::new();
    loop {
        let page = folder.list(found.last(), 7).await.expect("listed");
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    found.sort();
    all.sort();
    assert_eq!(found, all);
}

#[tokio::test]
async fn what_was_never_finished_goes_by_its_age() {
    let (folder, _home) = folder();
    let (old, new) = (id(1_000, 1), id(2_000, 2));
    put(&folder, &id(1, 3), &[b"whole"]).await;
    for object in [&old, &new] {
        std::mem::forget(folder.begin(object, 1).await.unwrap_or_else(|error| panic!("begun: {error}")));
    }
    assert_eq!(folder.drop_unfinished(Timestamp(1_500), 10).await, Ok(1));
    assert_eq!(folder.drop_unfinished(Timestamp(1_500), 10).await, Ok(0));
    assert_eq!(folder.drop_unfinished(Timestamp(9_000), 10).await, Ok(1));
    assert_eq!(folder.list(None, 10).await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_disk_with_too_little_room_takes_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(home.path().join("artifacts"), u64::MAX);
    let refused = folder.begin(&id(1, 1), 1).await.err().expect("refused");
    assert!(matches!(refused, ObjectError::Full { .. }), "{refused}");
    assert_eq!(folder.drop_unfinished(Timestamp(i64::MAX), 10).await, Ok(0), "nothing is left behind");
}
