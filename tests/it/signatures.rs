//! Deliveries as they leave this machine, verified by libraries that others wrote: the one for Rust
//! here, those for Python and JavaScript by `.ci/signatures`, which has this story write down what
//! it sent.

use std::{fs::File, io::BufWriter, io::Write, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use standardwebhooks::{Webhook, WebhookError};
use tidings::sinks::signature::{STANDARD_HEADERS, SigningKey};
use tidings_actors::{
    model::round::DeliveryId,
    model::secret::Secret,
    ports::{Endpoint, ParcelBody},
};

use crate::support::{
    dice::Dice,
    receiver::{Receiver, Recorded},
    sender::{World, endpoint, parcel, world},
    setting, text_setting,
};

const OLD: &str = "the key before the rotation";
const NEW: &str = "the key after the rotation";
/// Bodies, unless `TIDINGS_STORY_BODIES` says otherwise.
const BODIES: u64 = 10_000;
/// Most bytes of nearly all bodies.
const SIZE_MOST: u64 = 64 << 10;
/// Most bytes of one in [`LARGE_ONE_IN`].
const SIZE_LARGE: u64 = 1 << 20;
const LARGE_ONE_IN: u64 = 400;

/// A part of a rotation: the keys that sign, and what receivers hold that must verify, or not.
struct Phase {
    signing: &'static [&'static str],
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

const ROTATION: [Phase; 3] = [
    Phase { signing: &[OLD], good: &[OLD], bad: &[NEW] },
    Phase { signing: &[NEW, OLD], good: &[NEW, OLD], bad: &["somebody else's key"] },
    Phase { signing: &[NEW], good: &[NEW], bad: &[OLD] },
];

/// A text of every kind of character, long enough to be cut from anywhere.
fn letters(dice: &mut Dice) -> String {
    let kinds =
        [(0, 0x80), (0x20, 0x7f), (0x80, 0x800), (0x800, 0xd800), (0xe000, 0x1_0000), (0x1_0000, 0x11_0000)];
    let mut text = String::new();
    while (text.len() as u64) < 2 * SIZE_LARGE {
        let (from, to) = kinds[usize::try_from(dice.below(6)).expect("small")];
        let code = from + u32::try_from(dice.below(u64::from(to - from))).expect("a character");
        text.extend(char::from_u32(code));
    }
    text
}

/// A piece of it: small ones are as frequent as large ones.
fn body<'a>(letters: &'a str, dice: &mut Dice) -> &'a str {
    let size = if dice.one_in(LARGE_ONE_IN) {
        SIZE_MOST + dice.below(SIZE_LARGE - SIZE_MOST + 1)
    } else {
        let bound = 1 << dice.below(u64::from(SIZE_MOST.ilog2()) + 2);
        dice.below(bound.min(SIZE_MOST + 1))
    };
    let place = |at: u64| letters.floor_char_boundary(usize::try_from(at).expect("within the letters"));
    let from = dice.below(letters.len() as u64 - size);
    &letters[place(from)..place(from + size)]
}

fn secret(key: &str) -> String {
    SigningKey::of_text(key).standard_secret()
}

fn libraries(keys: &[&str]) -> Vec<Webhook> {
    keys.iter().map(|key| Webhook::new(&secret(key)).expect("a secret")).collect()
}

/// The body with one bit of one of its letters flipped; still a text, so that nothing else is wrong
/// with it. An empty one gets a letter.
fn tampered(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut body = body.to_vec();
    let from = usize::try_from(dice.below(body.len() as u64)).expect("within the body");
    match (from..body.len()).chain(0..from).find(|at| body[*at].is_ascii()) {
        Some(at) => body[at] ^= 1,
        None => body.push(b'x'),
    }
    body
}

/// Sends the bodies one after another, as deliveries are sent; what arrived.
async fn sent(world: &World, endpoint: &Endpoint, receiver: &Receiver, bodies: &[&str]) -> Vec<Recorded> {
    for (number, body) in bodies.iter().enumerate() {
        let mut parcel = parcel("");
        parcel.id = DeliveryId::from_stored(format!("dlv_{number}"));
        parcel.body = ParcelBody::Whole(body.as_bytes().to_vec().into());
        let outcome = world.send(endpoint, &parcel).await;
        assert!(outcome.is_success(), "{number}: {outcome:?}");
    }
    receiver.requests()
}

/// One line for the libraries of other languages.
fn write_down(file: &mut impl Write, request: &Recorded, tampered: &[u8], phase: &Phase) {
    let secrets = |keys: &[&str]| keys.iter().map(|key| secret(key)).collect::<Vec<_>>();
    let headers: serde_json::Map<_, _> =
        STANDARD_HEADERS.map(|name| (name.to_owned(), json!(request.header(name)))).into_iter().collect();
    let line = json!({
        "headers": headers,
        "body": BASE64_STANDARD.encode(&request.body),
        "tampered": BASE64_STANDARD.encode(tampered),
        "good": secrets(phase.good),
        "bad": secrets(phase.bad),
    });
    writeln!(file, "{line}").expect("written");
}

#[tokio::test]
async fn ten_thousand_bodies_verify_with_the_library_over_a_rotation_and_nothing_else_does() {
    let count = setting("TIDINGS_STORY_BODIES").unwrap_or(BODIES);
    let mut lines = text_setting("TIDINGS_SIGNED_BODIES")
        .map(|path| BufWriter::new(File::create(path).expect("a file for the bodies")));
    let mut dice = Dice::thrown("signatures");
    let (world, letters) = (world(), letters(&mut dice));
    let mut sizes = Vec::new();
    for (part, phase) in ROTATION.iter().enumerate() {
        let receiver = Receiver::start().await;
        let mut endpoint = endpoint(receiver.url());
        endpoint.timeout = Duration::from_secs(60);
        endpoint.keys = phase.signing.iter().map(|key| Secret::new((*key).to_owned())).collect();
        let share = count / 3 + u64::from((part as u64) < count % 3);
        let mut bodies: Vec<&str> = (0..share).map(|_| body(&letters, &mut dice)).collect();
        bodies[0] = "";
        let requests = sent(&world, &endpoint, &receiver, &bodies).await;
        assert_eq!(requests.len(), bodies.len());
        let (good, bad) = (libraries(phase.good), libraries(phase.bad));
        for (request, body) in requests.iter().zip(&bodies) {
            assert_eq!(request.body, body.as_bytes());
            let tampered = tampered(&request.body, &mut dice);
            for library in &good {
                library.verify(&request.body, &request.headers).expect("it verifies");
                let forged = library.verify(&tampered, &request.headers);
                assert!(matches!(forged, Err(WebhookError::InvalidSignature)), "{forged:?}");
            }
            for library in &bad {
                let refused = library.verify(&request.body, &request.headers);
                assert!(matches!(refused, Err(WebhookError::InvalidSignature)), "{refused:?}");
            }
            if let Some(file) = &mut lines {
                write_down(file, request, &tampered, phase);
            }
            sizes.push(body.len());
        }
    }
    lines.into_iter().for_each(|mut file| file.flush().expect("written"));
    let (most, all) = (sizes.iter().max().expect("bodies"), sizes.iter().sum::<usize>());
    println!("{} bodies of 0 to {most} bytes, {all} in all", sizes.len());
}
