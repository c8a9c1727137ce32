//! Tokens that an issuer did not sign, or not like this.

use super::*;

#[tokio::test]
async fn an_algorithm_that_the_settings_leave_out_is_refused_although_a_key_fits() {
    let served = serve().await;
    let settings =
        IssuerSettings { algorithms: vec!["ES256".to_owned()], ..served.settings.all()["staff"].clone() };
    let egress = Egress::new(&served.egress).expect("valid");
    let issuer = Issuer::of("staff", &settings, &egress).expect("an issuer");
    for (algorithm, kid, is_known) in [("ES256", "ec", true), ("RS256", "rsa", false), ("EdDSA", "ed", false)]
    {
        let token = served.signers.token(&json!({ "alg": algorithm, "kid": kid }), &claims());
        let subject = issuer.subject_at(&token, NOW, served.began).await;
        assert_eq!(subject.is_ok(), is_known, "{algorithm}");
    }
}

/// Tokens that no library would make.
fn built_by_hand(served: &Served, good: &str) -> Vec<(&'static str, String)> {
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let parts: Vec<&str> = good.split('.').collect();
    let admin = base64(with("realm", json!({ "roles": ["tidings-admin"] })).to_string());
    let strangers = Signers::new();
    let mut forged = vec![
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("other claims", format!("{}.{admin}.{}", parts[0], parts[2])),
        ("four parts", format!("{good}.x")),
        ("not base64", format!("{}.{}.!!", parts[0], parts[1])),
        ("somebody else's key", strangers.token(&header, &claims())),
        ("nothing", "..".to_owned()),
        ("its own key", strangers.token(
            &json!({ "alg": "EdDSA", "kid": "ed", "jwk": strangers.keys()["keys"][2], "jku": "http://127.0.0.1:1/" }),
            &claims(),
        )),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "HS512", "RS512", "PS256", "ES384"] {
        let text = json!({ "alg": alg, "kid": "ed" }).to_string();
        forged.push((
            "an algorithm that is none of ours",
            format!("{}.{}.{}", base64(&text), parts[1], parts[2]),
        ));
        forged.push(("the same unsigned", format!("{}.{}.", base64(&text), parts[1])));
    }
    // The public key as the secret of a keyed hash, in the forms in which people have it.
    let keys = served.signers.keys();
    for (kid, place) in [("rsa", 0), ("ed", 2)] {
        for name in ["n", "x"] {
            let Some(public) = keys["keys"][place][name].as_str() else { continue };
            let raw = BASE64URL_NOPAD.decode(public.as_bytes()).expect("base64");
            for secret in [raw.as_slice(), public.as_bytes()] {
                let text = json!({ "alg": "HS256", "kid": kid }).to_string();
                let message = format!("{}.{}", base64(&text), parts[1]);
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                let tag = ring::hmac::sign(&key, message.as_bytes());
                forged.push(("a keyed hash", format!("{message}.{}", base64(tag))));
            }
        }
    }
    forged
}

#[tokio::test]
async fn forgeries_of_every_kind_are_refused() {
    let served = serve().await;
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let good = served.signers.token(&header, &claims());
    assert_eq!(served.role(&good, NOW).await, Ok(Role::Operator));
    let mut told = Vec::new();
    for (fault, header) in [
        (TokenFault::NoKey, json!({ "alg": "EdDSA", "kid": "ec" })),
        (TokenFault::NoKey, json!({ "alg": "RS256", "kid": "ed" })),
        (TokenFault::NoKey, json!({ "alg": "EdDSA", "kid": "unknown" })),
        (TokenFault::NoKey, json!({ "alg": "RS256", "kid": "sealing" })),
        // An extension that must be understood.
        (TokenFault::Kind, json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false })),
        (TokenFault::Kind, json!({ "alg": "EdDSA", "kid": "ed", "typ": "secevent+jwt" })),
    ] {
        told.push((fault, served.signers.token(&header, &claims())));
    }
    for (fault, claims) in [
        (TokenFault::UnknownIssuer, with("iss", json!("https://issuer.example/realm/"))),
        (TokenFault::Claims, with("iss", json!([ISSUER, "other"]))),
        (TokenFault::Audience, with("aud", json!("tidings2"))),
        (TokenFault::Claims, with("aud", Value::Null)),
        (TokenFault::Claims, with("sub", json!(""))),
        (TokenFault::Claims, with("sub", Value::Null)),
        (TokenFault::Claims, with("exp", Value::Null)),
        (TokenFault::Claims, with("exp", json!("1900000000"))),
        (TokenFault::Expired, with("exp", json!(NOW_SECONDS - 31))),
        (TokenFault::NotYetValid, with("nbf", json!(NOW_SECONDS + 31))),
        (TokenFault::Claims, with("nbf", json!("now"))),
        (TokenFault::Malformed, json!("claims")),
    ] {
        told.push((fault, served.signers.token(&header, &claims)));
    }
    // A moment at which nothing may be fetched: what is refused is refused by what is known.
    for (fault, token) in told {
        assert_eq!(served.role(&token, NOW).await, Err(Refusal::Invalid(fault)));
    }
    for (what, token) in built_by_hand(&served, &good) {
        assert!(matches!(served.role(&token, NOW).await, Err(Refusal::Invalid(_))), "{what}");
    }
    for claims in [with("exp", json!(NOW_SECONDS - 29)), with("nbf", json!(NOW_SECONDS + 29))] {
        let token = served.signers.token(&header, &claims);
        assert_eq!(served.role(&token, NOW).await, Ok(Role::Operator), "clocks differ");
    }
}
