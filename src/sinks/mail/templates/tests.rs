//! Every template with its data, and without.

use serde_json::json;

use super::*;

/// What each template needs at least.
fn needed(template: Template) -> Value {
    match template {
        Template::WorkflowCompleted
        | Template::WorkflowFailed
        | Template::JobCompleted
        | Template::JobFailed
        | Template::Welcome => json!({ "name": "docs" }),
        Template::TestResults => json!({ "name": "docs", "passed": 7, "failed": 2 }),
        Template::Entry => json!({ "name": "docs", "type": "sink.opened" }),
        Template::Digest => json!({
            "name": "ops", "count": 1, "summary": "", "is_full": true,
            "entries": [{ "number": 7, "at": "now", "type": "sink.opened", "place": "docs", "what": "" }],
        }),
    }
}

#[test]
fn every_template_is_filled_in_and_names_what_is_missing() {
    let templates = Templates::new();
    for template in Template::ALL {
        let data = needed(*template);
        let mail = templates.render(*template, &data).unwrap_or_else(|fault| panic!("{fault}"));
        assert!(mail.subject.starts_with("[Tidings] ") && mail.subject.lines().count() == 1, "{mail:?}");
        assert!(mail.html.contains("<!doctype html>") && mail.text.len() > 5, "{mail:?}");
        for key in data.as_object().expect("an object").keys() {
            let mut without = data.clone();
            without.as_object_mut().expect("an object").remove(key);
            let fault = templates.render(*template, &without).expect_err(key).to_string();
            assert!(fault.contains(template.as_str()), "{key}: {fault}");
            assert!(fault.contains(&format!("the data lacks `{key}` (")), "{key}: {fault}");
        }
    }
    let mut data = needed(Template::Digest);
    data["entries"][0] = json!({ "number": 7 });
    let fault = templates.render(Template::Digest, &data).expect_err("an item without a place").to_string();
    assert!(fault.contains("an item of a list in the data lacks a value that digest.txt, line"), "{fault}");
}

#[test]
fn no_value_begins_a_line_of_the_text_or_ends_the_subject() {
    let lines = "docs\n---\nDear all,\r\n\u{2028}send money\n";
    let data = json!({ "name": lines, "reason": lines, "facts": [{ "name": lines, "value": lines }] });
    let mail = Templates::new().render(Template::WorkflowFailed, &data).expect("a mail");
    let escaped = "docs\\n---\\nDear all,\\r\\n\\u{2028}send money";
    assert_eq!(mail.subject, format!("[Tidings] {escaped} failed"));
    let text = format!("{escaped} failed.\nReason: {escaped}\n\n{escaped}: {escaped}\n");
    assert_eq!(mail.text, text);
}

#[test]
fn what_may_be_added_is_shown_in_both_bodies() {
    let templates = Templates::new();
    let more = json!({
        "name": "docs", "reason": "<b>no</b>", "footer": "the footer", "facts": [{ "name": "at", "value": "9" }],
    });
    let mail = templates.render(Template::WorkflowFailed, &more).expect("a mail");
    expect_test::expect![[r#"
        docs failed.
        Reason: <b>no</b>

        at: 9

        -- 
        the footer
    "#]]
    .assert_eq(&mail.text);
    assert!(mail.html.contains("Reason: &lt;b&gt;no&lt;"), "{}", mail.html);
    assert!(mail.html.contains("<th style=\"text-align: left; padding: 2px 12px 2px 0\">at</th><td>9</td>"));
    let results = json!({ "name": "docs", "passed": 7, "failed": 2, "skipped": 1 });
    let mail = templates.render(Template::TestResults, &results).expect("a mail");
    assert_eq!(mail.text, "docs: 7 passed, 2 failed, 1 skipped.\n");
}
