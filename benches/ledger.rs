//! The ledger while very many sources of one app go down and come back: how many entries that makes, and how
//! long it takes until the last entry of each source says how the source is.
//!
//! `cargo bench --bench ledger`; `TIDINGS_BENCH_SOURCES` is the number of sources (100,000).

#![expect(clippy::disallowed_methods, reason = "the benchmark reads its own setting")]

#[path = "registered.rs"]
#[expect(dead_code, reason = "no repository is read here")]
mod registered;
#[path = "support.rs"]
#[expect(dead_code, reason = "there is no repository here")]
mod support;
#[path = "unread.rs"]
mod unread;

use std::{collections::HashMap, time::Duration};

use support::{figure, rate, settings, timed};
use tidings::app::Adapters;
use tidings_actors::ports::{BreakerRow, DeliverySettings, LedgerFilter, Ledgers, UpkeepStore, WatchStore};
use tidings_entity::{
    id::{AppId, ObjectId, SourceId},
    kind::{BreakerKind, EntryType},
};

/// How often each source changes its state, within a minute.
const FLAPS: u64 = 5;
/// What folding waits for, and a moment.
const MINUTE: Duration = Duration::from_secs(61);
const PAGE: u64 = 10_000;

#[tokio::main]
async fn main() {
    let count: usize =
        std::env::var("TIDINGS_BENCH_SOURCES").map_or(100_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = Adapters::open(settings(&folder.path().join("data"))).await.expect("the house opens");
    let app = registered::app(&adapters, None, DeliverySettings::default()).await;
    let commit: ObjectId = "1111111111111111111111111111111111111111".parse().expect("an id");
    let mut sources = Vec::with_capacity(count);
    for number in 0..count {
        let url = format!("https://git.example/o/r{number}.git");
        let watch = unread::watch(&*adapters.random, &*adapters.clock, &app, url, commit);
        sources.push(adapters.store.register_watch(&watch).await.expect("a watch").source);
    }
    println!("{count} sources are watched");

    // Every second source ends in failure, each other one in health.
    let mut spans = [Duration::ZERO; 2];
    for flap in 0..FLAPS {
        let ((), took) = timed(async {
            for (number, source) in sources.iter().enumerate() {
                if flap + 1 < FLAPS || number % 2 == 0 {
                    record(&adapters, source, flap % 2 == 0).await;
                }
            }
        })
        .await;
        spans[usize::from(flap > 0)] += took;
    }
    let first = rate(count as u64, spans[0]);
    let changes = count as u64 * (FLAPS - 2) + count.div_ceil(2) as u64;
    let folded = rate(changes, spans[1]);
    figure("a change of state that is folded, beside one with an entry", "1/s", folded, first, "no slower");

    let later = adapters.clock.now().after(MINUTE);
    let (looks, took) = timed(async {
        let mut looks = 1;
        while adapters.store.tell_folded(later, 500).await.expect("told") >= 500 {
            looks += 1;
        }
        looks
    })
    .await;
    println!("the last states were told after {took:.1?}, in {looks} looks (wanted <= 60 s)");

    let (entries, last) = read(&adapters, &app).await;
    let expected = |number: usize| {
        if number.is_multiple_of(2) { EntryType::SourceFailing } else { EntryType::SourceRecovered }
    };
    let wrong =
        sources.iter().enumerate().filter(|(number, source)| last[source.as_str()] != expected(*number));
    println!(
        "{entries} entries for {} changes of state (wanted at most {}), {} sources with a wrong last entry \
         (wanted 0)",
        changes + count as u64,
        2 * count,
        wrong.count()
    );
    adapters.store.close().await;
}

/// The number of entries, and the type of the last entry of each subject.
async fn read(adapters: &Adapters, app: &AppId) -> (usize, HashMap<String, EntryType>) {
    let (mut count, mut after, mut last) = (0, 0, HashMap::new());
    loop {
        let filter = LedgerFilter::default();
        let found =
            adapters.store.entries_between(app, &filter, after, i64::MAX, PAGE).await.expect("entries").found;
        let Some(newest) = found.last() else { return (count, last) };
        after = newest.id.number;
        count += found.len();
        last.extend(found.into_iter().map(|entry| (entry.subject, entry.entry_type)));
    }
}

async fn record(adapters: &Adapters, source: &SourceId, is_open: bool) {
    let row = BreakerRow {
        kind: BreakerKind::Source,
        id: source.to_string(),
        failures: if is_open { 5 } else { 0 },
        opened_at: is_open.then(|| adapters.clock.now()),
        probe_at: None,
        last_error: "status 503".to_owned(),
    };
    adapters.store.record_breaker(&row).await.expect("recorded");
}
