//! A person at a page with a mouse, or with the keyboard alone: each does the same walk.

use serde_json::{Value, json};

use super::wait_until_shown;
use crate::support::{
    browser::Browser,
    patience::{SOON, eventually, on_page_or},
};

/// Keys of the keyboard, as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const END: &str = "\u{e010}";
const DOWN: &str = "\u{e015}";
const BACKSPACE: &str = "\u{e003}";
const SPACE: &str = " ";
/// More presses of a key than any page needs to anything on it.
const PRESSES_MAX: usize = 200;

/// The name of what has the focus.
const NAME: &str = "const at = document.activeElement;
    return at === document.body ? '' : (at.getAttribute('aria-label') ?? at.textContent ?? '').trim()";
/// The label of the field that has the focus.
const LABEL: &str = "return document.activeElement.labels?.[0]?.textContent.trim() ?? ''";

/// What a person acts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    Mouse,
    Keyboard,
}

impl Hand {
    /// Both, one after the other.
    pub(super) const BOTH: [Self; 2] = [Self::Mouse, Self::Keyboard];

    /// Presses the link or button with this name.
    pub(super) fn press(self, browser: &Browser, name: &str) {
        match self {
            Self::Mouse => browser.click_on(name),
            Self::Keyboard => {
                reach(browser, NAME, name);
                browser.press(ENTER);
            }
        }
    }

    /// The same with a link that leads to another view, which is there when this returns.
    pub(super) fn follow(self, browser: &Browser, name: &str) {
        self.press(browser, name);
        wait_until_shown(browser, name);
    }

    /// Presses a button, and then the one that means yes to its question.
    pub(super) fn confirm(self, browser: &Browser, button: &str, question: &str, yes: &str) {
        self.press(browser, button);
        browser.wait_for(question);
        self.press(browser, yes);
        let is_answered =
            "return document.querySelector('dialog[open] [type=submit]')?.textContent.trim() ?? ''";
        eventually(&format!("an end of {question:?}"), SOON, || {
            (browser.run(is_answered, &[]) != yes).then_some(())
        });
    }

    /// Writes into the field with this label, in place of what stands there.
    pub(super) fn write(self, browser: &Browser, label: &str, text: &str) {
        if self == Self::Mouse {
            let field = field_of(browser, label);
            browser.run("document.getElementById(arguments[0]).value = ''", &[json!(field)]);
            return browser.write(&format!("#{field}"), text);
        }
        reach(browser, LABEL, label);
        let length = browser.run("return document.activeElement.value.length", &[]);
        browser.press(END);
        for _ in 0..length.as_u64().expect("a length") {
            browser.press(BACKSPACE);
        }
        browser.press(text);
    }

    /// Chooses the option with this value of the list with this label.
    pub(super) fn choose(self, browser: &Browser, label: &str, value: &str) {
        if self == Self::Mouse {
            let field = field_of(browser, label);
            return browser.click(&format!("#{field} option[value='{value}']"));
        }
        reach(browser, LABEL, label);
        for _ in 0..PRESSES_MAX {
            if browser.run("return document.activeElement.value", &[]) == value {
                return;
            }
            browser.press(DOWN);
        }
        panic!("{value:?} of {label:?} cannot be chosen by keyboard on {}", browser.url());
    }

    /// Ticks the box with this name.
    pub(super) fn tick(self, browser: &Browser, name: &str) {
        match self {
            Self::Mouse => browser.click(&format!("input[aria-label='{name}']")),
            Self::Keyboard => {
                reach(browser, NAME, name);
                browser.press(SPACE);
            }
        }
    }
}

/// Presses Tab until a function body says this of what has the focus. A page, and a button that comes with an
/// answer, may not be there yet.
fn reach(browser: &Browser, said: &str, wanted: &str) {
    let is_there = "return document.querySelector('main[aria-busy=true]') === null";
    eventually("a page", SOON, || (browser.run(is_there, &[]) == true).then_some(()));
    eventually(&format!("{wanted:?} that the keyboard reaches on {}", browser.url()), SOON, || {
        (0..PRESSES_MAX).find_map(|_| {
            let is_reached = browser.run(said, &[]) == wanted;
            if !is_reached {
                browser.press(TAB);
            }
            is_reached.then_some(())
        })
    });
}

/// The id of the field with a label, in the question that is open or on the page.
fn field_of(browser: &Browser, label: &str) -> String {
    let found = "const within = document.querySelector('dialog[open]') ?? document;
        return [...within.querySelectorAll('label')].find((one) => one.textContent.trim() === arguments[0])?.htmlFor";
    eventually(&format!("a field {label:?} on {}", browser.url()), SOON, || {
        browser.run(found, &[json!(label)]).as_str().map(str::to_owned)
    })
}

/// Waits until a function body says this.
pub(super) fn wait_until(browser: &Browser, what: &str, said: &str, wanted: &Value) {
    let is_said = || (browser.run(said, &[]) == *wanted).then_some(());
    on_page_or(what, is_said, || browser.shown());
}
