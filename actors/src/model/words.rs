//! Numbers with their nouns, for texts that people read.

/// A number and its noun: `1 lane`, `2 lanes`, `0 branches`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    if number == 1 {
        return format!("1 {noun}");
    }
    let (before, ending) = noun.split_at(noun.len() - noun.len().min(2));
    let many = match (ending, ending.as_bytes()) {
        ("ch" | "sh" | "ss", _) | (_, [.., b'x']) => format!("{noun}es"),
        (_, [letter, b'y']) if !b"aeiou".contains(letter) => {
            format!("{before}{}ies", char::from(*letter))
        }
        _ => format!("{noun}s"),
    };
    format!("{number} {many}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_form_of_its_noun() {
        let told =
            [(1, "lane"), (0, "lane"), (2, "branch"), (1, "branch"), (3, "entry"), (2, "day"), (2, "app")]
                .map(|(number, noun)| counted(number, noun));
        assert_eq!(told, ["1 lane", "0 lanes", "2 branches", "1 branch", "3 entries", "2 days", "2 apps"]);
    }
}
