//! The words of a result, which may be a backend's own.

/// The most of them, in characters.
const MOST: usize = 512;

/// One line of bounded length without control characters, wherever it goes: to a
/// terminal, the log, or the environment of a program.
pub fn clean(words: String) -> String {
    let is_clean = words.len() <= MOST && !words.contains(char::is_control);
    if is_clean {
        return words;
    }
    let more = if words.chars().nth(MOST).is_some() {
        "..."
    } else {
        ""
    };
    let harmless = |letter: char| if letter.is_control() { '?' } else { letter };
    let shown = words.chars().take(MOST).map(harmless);
    shown.chain(more.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_backend_says_becomes_one_short_line() {
        let check = |words: &str, expected: &str| assert_eq!(clean(words.to_owned()), expected);
        check("", "");
        check("CN=Größe", "CN=Größe");
        check("CN=a\0b\x1b[2J\r\n\u{9b}x", "CN=a?b?[2J???x");
        let whole = "ü".repeat(MOST);
        check(&whole, &whole);
        check(&format!("{whole}ü"), &format!("{whole}..."));
    }
}
