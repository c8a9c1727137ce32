//! A server that may open 1,024 files only, as a shell gives by default. More silent connections than that
//! are made to it; a new commit still arrives, and requests are answered.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use serde_json::json;
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    hard_edge::descriptors,
    support::{api::App, http::ask, project::Project, remote::Host, server::Server, subscriber::Subscriber},
};

/// Silent connections, and the addresses that they come from.
const SILENT: u16 = 1_500;
const ADDRESSES: u16 = 8;
/// A connection that is not taken within this time stays in line.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_server_with_few_descriptors_keeps_some_for_its_work() {
    // Half of them may be those of another story.
    if descriptors() < 4 * u64::from(SILENT) {
        return println!("skipped: this process may have too few sockets");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("tidings");
    let binary = env!("CARGO_BIN_EXE_tidings");
    // Another process writes it: what this one writes may be open in a program that it starts at that moment.
    let lines = format!("'#!/bin/sh' 'ulimit -n 1024' 'exec \"{binary}\" \"$@\"'");
    let write = format!("printf '%s\\n' {lines} > {0} && chmod 755 {0}", script.display());
    assert!(Command::new("sh").args(["-c", &write]).status().expect("a shell").success());
    let mut server = Server::prepare().with("server.header_timeout", "1h");
    server.becomes(Some(script));
    server.run();
    let (host, subscriber) = (Host::start(), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = server.address();
    let silent: Vec<_> = runtime.block_on(async {
        let connect = |number: u16| async move {
            let last = u8::try_from(number % ADDRESSES + 1).expect("small");
            let socket = TcpSocket::new_v4().ok()?;
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 8, 0, last), 0))).ok()?;
            timeout(TAKEN_WITHIN, socket.connect(address)).await.ok()?.ok()
        };
        let mut silent = Vec::new();
        for number in 0..SILENT {
            silent.extend(connect(number).await);
        }
        silent
    });
    assert!(silent.len() > 1_024, "{} connections were made", silent.len());
    for round in 0..3 {
        project.write("a", format!("beside {round}").as_bytes());
        let head = project.commit("beside silent connections");
        host.push_main(&project, "o/r");
        app.wait_until_held(&server, &id, &head);
        assert_eq!(ask(address, "GET", "/readyz", None, None).expect("an answer").status, 200);
    }
    drop(silent);
    subscriber.assert_straight();
}
