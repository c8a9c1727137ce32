//! Deliveries a second, durable, 1 KiB files, against the bare HTTP client on the same receiver in
//! the same run: one strict lane against one connection, 64 watches of one repository against 64
//! tasks.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

#[path = "support.rs"]
mod support;

use std::sync::Arc;

use reqwest::Method;
use support::{Receiver, app, figure, rate, repository, settings, timed, watch};
use tidings::{app::Adapters, egress::Egress};

const STRICT_FILES: usize = 10_000;
const LANES: usize = 64;
const LANE_FILES: usize = 1_000;
/// About what a delivery of a 1 KiB file weighs.
const BODY_BYTES: usize = 1_900;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = bare(&receiver, folder.path(), 1, STRICT_FILES).await;
    let many = bare(&receiver, folder.path(), LANES, LANES * LANE_FILES).await;
    let strict = tidings(&receiver, folder.path(), "strict", 1, STRICT_FILES).await;
    figure("one strict lane", "deliveries/s", strict, one, "0.60");
    let wide = tidings(&receiver, folder.path(), "wide", LANES, LANE_FILES).await;
    figure("64 watches of one repository", "deliveries/s", wide, many, "0.50");
}

async fn bare(receiver: &Receiver, folder: &std::path::Path, tasks: usize, requests: usize) -> f64 {
    let egress = Egress::new(&settings(folder).egress).expect("egress");
    let url = Arc::new(format!("http://{}/create", receiver.address).parse().expect("an address"));
    let body = bytes::Bytes::from(vec![b'x'; BODY_BYTES]);
    let work = async {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let (egress, url, body) = (egress.clone(), url.clone(), body.clone());
            set.spawn(async move {
                for _ in 0..requests / tasks {
                    let request = egress.request(Method::POST, &url).expect("allowed").body(body.clone());
                    let answer = request.send().await.expect("answered");
                    assert!(answer.status().is_success());
                }
            });
        }
        set.join_all().await;
    };
    let ((), took) = timed(work).await;
    rate(requests as u64, took)
}

async fn tidings(
    receiver: &Receiver,
    folder: &std::path::Path,
    name: &str,
    lanes: usize,
    files: usize,
) -> f64 {
    let path = folder.join(format!("{name}.git"));
    repository(&path, files, 1_024, lanes, false);
    let adapters = Adapters::open(settings(&folder.join(name))).await.expect("the house opens");
    let app = app(&adapters, &format!("http://{}", receiver.address)).await;
    for lane in 0..lanes {
        watch(&adapters, &app, path.to_str().expect("utf-8"), &format!("b{lane}")).await;
    }
    let expected = (lanes * files) as u64;
    let before = receiver.count();
    let (house, took) = timed(async {
        let house = adapters.start(None).await.expect("the tree starts");
        receiver.until(before + expected).await;
        house
    })
    .await;
    house.stop().await;
    rate(expected, took)
}
