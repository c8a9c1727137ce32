//! Every form of a body, byte for byte.

use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use tidings_actors::{
    model::round::{Change, Entry, RoundSpec, Summary, TreeEnd},
    model::view::View,
    ports::{CommitFacts, LaneFacts, Location, Remote, RepositoryFacts},
};
use tidings_entity::{
    id::{RepositoryId, WatchId},
    kind::{PayloadFormat, RoundKind},
};
use ulid::Ulid;

use super::*;

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn entry(mode: u32, blob: u8) -> Entry {
    Entry { mode, blob: ObjectId::new([blob; 20]) }
}

fn order(operation: Operation, path: &[u8], old: Option<Entry>, new: Option<Entry>) -> DeliveryOrder {
    let cursor = CursorId::new(Ulid::from_parts(1, 1));
    let end = |byte| Some(TreeEnd { commit: ObjectId::new([byte; 20]), view: View::default() });
    let change = Change { operation, path: path.to_vec(), old, new, replay_of: None };
    let round = Round {
        cursor: cursor.clone(),
        number: 1_767_225_600_000,
        spec: RoundSpec {
            kind: RoundKind::Sync,
            held: end(0xbb),
            target: end(0xcc),
            bases: vec![],
            letters: vec![],
        },
        summary: Summary { deletes: 1, creates: 2, updates: 3, digest: Sha256Hash::of(b"") },
        rules: 1,
        began_at: Timestamp(1_767_225_600_000),
        branch: "refs/heads/main".into(),
        url: "https://github.com/o/r".into(),
        format: PayloadFormat::Docora,
        history_rewritten: false,
        skipped_commits: false,
        complete: false,
        position: 0,
    };
    let lane = LaneFacts {
        inline_max: None,
        remote: Remote {
            repository: RepositoryId::new(Ulid::from_parts(1, 2)),
            location: Location::Local("/nowhere".into()),
            credential: None,
            apps: Vec::new(),
        },
        repository: RepositoryFacts {
            repository_id: WatchId::new(Ulid::from_parts(1, 3)),
            github_url: "https://github.com/o/r".into(),
            owner: "o".into(),
            name: "r".into(),
        },
        round: Arc::new(round),
        commit: Some(Arc::new(CommitFacts {
            author: "Ada <ada@example.org>".into(),
            time: 1_767_225_599,
            subject: "Say hello".into(),
            first_parent: None,
        })),
    };
    DeliveryOrder {
        id: DeliveryId::from_stored("dlv_x".into()),
        lane: Arc::new(lane),
        change,
        renamed_from: None,
        position: 4,
        unobtainable: vec![],
    }
}

fn create() -> DeliveryOrder {
    order(Operation::Create, b"README.md", None, Some(entry(0o100_644, 1)))
}

fn inline(bytes: &[u8]) -> Material {
    let new = NewContent::Inline { sha: Sha256Hash::of(bytes), bytes: Bytes::copy_from_slice(bytes) };
    Material { new, old_sha: None }
}

fn rendered(order: &DeliveryOrder, material: &Material) -> ParcelBody {
    render(order, &Shared::of(&order.lane), material, CHUNK_THRESHOLD)
}

fn whole(order: &DeliveryOrder, material: &Material) -> String {
    match rendered(order, material) {
        ParcelBody::Whole(body) => String::from_utf8(body.to_vec()).expect("JSON is UTF-8"),
        ParcelBody::Chunked { .. } => panic!("not chunked"),
    }
}

/// The body without the parts that every body has alike.
fn check(order: &DeliveryOrder, material: &Material, expected: &Expect) {
    let body = whole(order, material);
    let file = body.find(r#""file":"#).expect("a file");
    let commit = body.find(r#","commit_sha""#).expect("a commit");
    expected.assert_eq(&body[file..commit]);
}

#[test]
fn a_create_has_these_bytes() {
    expect![[r#"{"repository":{"repository_id":"repo_00000000010000000000000003","github_url":"https://github.com/o/r","owner":"o","name":"r"},"file":{"path":"README.md","sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"content":"hello","mode":"100644","blob":"0101010101010101010101010101010101010101"},"commit_sha":"cccccccccccccccccccccccccccccccccccccccc","timestamp":"2026-01-01T00:00:00.000Z","event":{"id":"dlv_x","type":"file.created","cursor":"cur_00000000010000000000000001","branch":"main","previous_commit_sha":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","round":1767225600000,"position":4,"total":6,"commit":{"author":"Ada <ada@example.org>","time":"2025-12-31T23:59:59.000Z","subject":"Say hello"}}}"#]]
        .assert_eq(&whole(&create(), &inline(b"hello")));
}

/// The same change of a round that was begun for an app which takes CloudEvents.
fn as_event(mut order: DeliveryOrder) -> DeliveryOrder {
    let lane = Arc::make_mut(&mut order.lane);
    Arc::make_mut(&mut lane.round).format = PayloadFormat::Cloudevents;
    order
}

#[test]
fn an_event_carries_the_same_body_as_its_data() {
    let plain: serde_json::Value = serde_json::from_str(&whole(&create(), &inline(b"hello"))).expect("JSON");
    let text = whole(&as_event(create()), &inline(b"hello"));
    let mut event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(event["data"].take(), plain);
    expect![[r#"{"data":null,"datacontenttype":"application/json","id":"dlv_x","partitionkey":"cur_00000000010000000000000001","sequence":"00000001767225600000.00000000000000000004","source":"/api/repositories/repo_00000000010000000000000003","specversion":"1.0","subject":"README.md","time":"2026-01-01T00:00:00.000Z","type":"dev.tidings.file.created"}"#]]
        .assert_eq(&sorted(&event).to_string());
    let lawful = |name: &str| {
        name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    assert!(event.as_object().expect("an object").keys().all(|name| lawful(name)));
}

fn sorted(event: &serde_json::Value) -> serde_json::Value {
    let names: std::collections::BTreeMap<_, _> = event.as_object().expect("an object").iter().collect();
    serde_json::to_value(names).expect("an object")
}

#[test]
fn the_chunks_of_an_event_are_events_with_ids_of_their_own() {
    let bytes = vec![0; CHUNK_THRESHOLD + 1];
    let ParcelBody::Chunked { before, content, after } = rendered(&as_event(create()), &inline(&bytes))
    else {
        panic!("chunked");
    };
    let slices: Vec<&[u8]> = chunks(&content).collect();
    for (index, slice) in slices.iter().enumerate() {
        let after = cloud_event::end_of_chunk(&after, "c-1", index);
        let body = chunk_body(&before, slice, &after, "c-1", index, slices.len());
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(event["id"], format!("dlv_x.c-1.{index}"));
        assert_eq!(event["data"]["file"]["chunk"]["index"], index);
        assert_eq!(event["data"]["event"]["id"], "dlv_x");
    }
}

#[test]
fn an_update_puts_the_previous_hash_between_file_and_commit() {
    let mut change = order(Operation::Update, b"a", Some(entry(0o100_644, 1)), Some(entry(0o100_755, 1)));
    let mut material = inline(b"hello");
    material.old_sha = Some(HELLO.parse().expect("a hash"));
    check(
        &change,
        &material,
        &expect![[
            r#""file":{"path":"a","sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"content":"hello","mode":"100755","blob":"0101010101010101010101010101010101010101","previous_mode":"100644"},"previous_sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824""#
        ]],
    );
    material.old_sha = None;
    change.change.old = Some(entry(0o100_755, 2));
    check(
        &change,
        &material,
        &expect![[
            r#""file":{"path":"a","sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"content":"hello","mode":"100755","blob":"0101010101010101010101010101010101010101"}"#
        ]],
    );
}

#[test]
fn a_delete_has_its_path_and_the_last_hash() {
    let gone = order(Operation::Delete, b"a/b.txt", Some(entry(0o100_644, 1)), None);
    let material = Material { new: NewContent::Unseen, old_sha: Some(HELLO.parse().expect("a hash")) };
    check(
        &gone,
        &material,
        &expect![[
            r#""file":{"path":"a/b.txt","sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}"#
        ]],
    );
    let unknown = Material { new: NewContent::Unseen, old_sha: None };
    let odd = order(Operation::Delete, b"caf\xe9", Some(entry(0o100_644, 1)), None);
    check(&odd, &unknown, &expect![[r#""file":{"path":"caf�","path_base64":"Y2Fm6Q=="}"#]]);
}

#[test]
fn binary_empty_latin1_and_nul_content() {
    let sha = |body: &str| body.find(r#","mode""#).map(|end| body[..end].to_owned());
    for (bytes, expected) in [
        (&b""[..], r#""size":0,"content":"""#),
        (b"\xef\xbb\xbfx\r\n", "\"size\":6,\"content\":\"\u{feff}x\\r\\n\""),
        (b"caf\xe9", r#""size":4,"content":"Y2Fm6Q==","content_encoding":"base64""#),
        (b"a\0b", r#""size":3,"content":"YQBi","content_encoding":"base64""#),
        (b"\xff\xfeh\0i\0", r#""size":6,"content":"//5oAGkA","content_encoding":"base64""#),
    ] {
        let body = sha(&whole(&create(), &inline(bytes))).expect("a mode");
        assert!(body.ends_with(expected), "{body}");
    }
}

#[test]
fn additions_come_after_the_known_keys_and_in_order() {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{HELLO}\nsize 12345\n");
    let mut moved = order(Operation::Create, b"b\xff", None, Some(entry(0o100_644, 1)));
    moved.renamed_from = Some(b"a\xfe".to_vec());
    check(
        &moved,
        &inline(pointer.as_bytes()),
        &expect![[
            r#""file":{"path":"b�","sha":"af31e479a9ea380175755a66234dfc1ecad7136583bfbb34611f465059c648b5","size":130,"content":"version https://git-lfs.github.com/spec/v1\noid sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\nsize 12345\n","mode":"100644","blob":"0101010101010101010101010101010101010101","path_base64":"Yv8=","renamed_from":"a�","renamed_from_base64":"Yf4=","lfs":{"oid":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":12345}}"#
        ]],
    );
}

#[test]
fn content_that_is_too_large_or_unwanted_is_left_out() {
    let large = Material { new: NewContent::TooLarge { size: 70_000_000 }, old_sha: None };
    check(
        &create(),
        &large,
        &expect![[
            r#""file":{"path":"README.md","size":70000000,"mode":"100644","blob":"0101010101010101010101010101010101010101","content_omitted":"too_large","content_url":"/api/repositories/repo_00000000010000000000000003/blobs/0101010101010101010101010101010101010101"}"#
        ]],
    );
    let unseen = Material { new: NewContent::Unseen, old_sha: None };
    check(
        &create(),
        &unseen,
        &expect![[
            r#""file":{"path":"README.md","mode":"100644","blob":"0101010101010101010101010101010101010101"}"#
        ]],
    );
}

#[test]
fn an_event_tells_of_rewritten_skipped_and_replayed() {
    let mut odd = create();
    let round = Arc::make_mut(&mut Arc::make_mut(&mut odd.lane).round);
    (round.history_rewritten, round.skipped_commits, round.spec.held) = (true, true, None);
    round.branch = "refs/heads/release/1".into();
    Arc::make_mut(&mut odd.lane).commit = None;
    odd.change.replay_of = Some(DeliveryId::from_stored("dlv_before".into()));
    let body = whole(&odd, &inline(b""));
    let event = body.find(r#""event":"#).expect("an event");
    expect![[r#""event":{"id":"dlv_x","type":"file.created","cursor":"cur_00000000010000000000000001","branch":"release/1","previous_commit_sha":null,"round":1767225600000,"position":4,"total":6,"commit":null,"history_rewritten":true,"skipped_commits":true,"replay_of":"dlv_before"}}"#]]
        .assert_eq(&body[event..]);
}

#[test]
fn a_branch_that_vanished_is_the_zero_commit() {
    let mut gone = order(Operation::Delete, b"a", Some(entry(0o100_644, 1)), None);
    Arc::make_mut(&mut Arc::make_mut(&mut gone.lane).round).spec.target = None;
    let body = whole(&gone, &Material { new: NewContent::Unseen, old_sha: None });
    assert!(body.contains(r#""commit_sha":"0000000000000000000000000000000000000000""#));
}

#[test]
fn a_large_binary_file_goes_in_chunks_that_join_to_it() {
    let mut bytes = vec![0xff; CHUNK_THRESHOLD];
    assert!(matches!(rendered(&create(), &inline(&bytes)), ParcelBody::Whole(_)), "not above the threshold");
    bytes.push(7);
    let mut tricky = create();
    // A path that holds what the split looks for, as far as JSON allows.
    tricky.change.path = br#"x","content":"","content_encoding":"base64""#.to_vec();
    let ParcelBody::Chunked { before, content, after } = rendered(&tricky, &inline(&bytes)) else {
        panic!("chunked")
    };
    let slices: Vec<&[u8]> = chunks(&content).collect();
    assert_eq!(slices.iter().map(|slice| slice.len()).collect::<Vec<_>>(), [524_288, 524_288, 349_528]);
    let mut joined = String::new();
    for (index, slice) in slices.iter().enumerate() {
        let body = chunk_body(&before, slice, &after, "an-id", index, slices.len());
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        joined.push_str(value["file"]["content"].as_str().expect("text"));
        assert_eq!(value["file"]["chunk"]["index"], index);
        assert_eq!(value["file"]["path"], String::from_utf8_lossy(&tricky.change.path).as_ref());
        let text = std::str::from_utf8(&body).expect("UTF-8");
        let tail = format!(
            r#"","content_encoding":"base64","chunk":{{"id":"an-id","index":{index},"total":3,"offset":{}}},"mode":"100644","blob":"#,
            index * 393_216
        );
        assert!(text.contains(&tail), "key order");
        let before = BASE64_STANDARD.decode(&joined).expect("each chunk decodes alone").len();
        let decoded = BASE64_STANDARD.decode(slice).expect("base64");
        assert_eq!(decoded, bytes[index * 393_216..before], "the offset is where its bytes begin");
    }
    assert_eq!(BASE64_STANDARD.decode(joined).expect("base64"), bytes);
    let text = vec![b'a'; 2 * CHUNK_THRESHOLD];
    assert!(matches!(rendered(&create(), &inline(&text)), ParcelBody::Whole(_)), "text is never chunked");
    let order = create();
    for (threshold, is_chunked) in [(bytes.len(), false), (bytes.len() - 1, true), (600_000, true)] {
        let body = render(&order, &Shared::of(&order.lane), &inline(&bytes), threshold);
        assert_eq!(matches!(body, ParcelBody::Chunked { .. }), is_chunked, "{threshold}");
    }
}

/// What memory is taken for must hold for every kind of content.
#[test]
fn the_bytes_that_rendering_takes_are_known_before() {
    for (content, threshold, bytes) in
        [(&b"a\"\x01"[..], 0, 1 + 2 + 6), (&[0xff; 4], 4, 2 * 8), (&[0xff; 4], 3, 8), (b"", 0, 0)]
    {
        assert_eq!(rendered_bytes(content, threshold), bytes, "{content:?}");
    }
    let large = "\n".repeat(EXACT_FROM);
    let ParcelBody::Whole(body) = rendered(&create(), &inline(large.as_bytes())) else { panic!("text") };
    assert!((2 * EXACT_FROM..buffer_bytes(&large)).contains(&body.len()), "the buffer does not grow");
}

/// How `JSON.stringify` writes a text.
fn stringify(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

proptest! {
    #[test]
    fn texts_are_escaped_as_javascript_does(text in "[\\x01-\\x20\"\\\\/\\x7f\u{80}-\u{2030}\u{fffd}\u{10000}-\u{10010}a-c]{0,40}") {
        let body = whole(&create(), &inline(text.as_bytes()));
        let expected = format!(r#""content":{},"mode""#, stringify(&text));
        prop_assert!(body.contains(&expected), "{body}");
        let quotes = 2;
        prop_assert_eq!(text_bytes(&text), stringify(&text).len() - quotes);
    }

    #[test]
    fn content_always_hashes_to_its_sha(bytes: Vec<u8>) {
        let body = whole(&create(), &inline(&bytes));
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let content = value["file"]["content"].as_str().expect("content");
        let raw = match value["file"].get("content_encoding") {
            Some(_) => BASE64_STANDARD.decode(content).expect("base64"),
            None => content.as_bytes().to_vec(),
        };
        prop_assert_eq!(Sha256Hash::of(&raw).to_string(), value["file"]["sha"].as_str().expect("a sha"));
        prop_assert_eq!(raw, bytes);
    }
}

#[test]
fn only_whole_lfs_pointers_are_recognised() {
    let pointer = |oid: &str, size: &str| {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
    };
    assert_eq!(lfs_pointer(&pointer(HELLO, "5")), Some(LfsPointer { oid: HELLO, size: 5 }));
    for bad in [
        pointer(&HELLO.to_uppercase(), "5"),
        pointer("abc", "5"),
        pointer(HELLO, "-1"),
        format!(" {}", pointer(HELLO, "5")),
        format!("{}{}", pointer(HELLO, "5"), "x".repeat(1024)),
        "version https://git-lfs.github.com/spec/v1\n".into(),
    ] {
        assert_eq!(lfs_pointer(&bad), None, "{bad}");
    }
}

#[test]
fn moments_are_iso_8601_with_milliseconds() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600_123, "2026-01-01T00:00:00.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (i64::MAX, "9999-12-31T23:59:59.999Z"),
        (i64::MIN, "0000-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(iso(Timestamp(millis)), text);
    }
}
