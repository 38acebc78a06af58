//! Takes out of text what would act on a terminal: text of repositories and logs is not trusted.

/// One line: without control characters, escape sequences and marks that turn the direction of writing.
pub(crate) fn line(text: &str) -> String {
    strip(text, |c| c == '\t').replace('\t', " ")
}

/// The same, but lines stay lines.
pub(crate) fn lines(text: &str) -> String {
    strip(text, |c| c == '\n' || c == '\t')
}

/// One line of no more than so many characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    let line = line(text);
    match line.char_indices().nth(most) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

fn strip(text: &str, keep: impl Fn(char) -> bool) -> String {
    // Nearly all text is plain.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            // The one-character form of `ESC [`.
            '\u{9b}' => skip_to_final(&mut rest),
            c if keep(c) => out.push(c),
            c if c.is_control() || is_direction(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// What follows an escape character.
fn skip_sequence(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            skip_to_final(rest);
        }
        // Strings for the terminal end at BEL or at `ESC \`; one without an end must not swallow the lines after it.
        Some(']' | 'P' | '_' | '^' | 'X') => {
            while let Some(&c) = rest.peek() {
                if c == '\n' {
                    return;
                }
                rest.next();
                if c == '\u{7}' || c == '\u{9c}' {
                    return;
                }
                if c == '\u{1b}' && rest.peek() == Some(&'\\') {
                    rest.next();
                    return;
                }
            }
        }
        Some(c) if c.is_ascii() && !c.is_control() => {
            rest.next();
        }
        Some(_) | None => {}
    }
}

fn skip_to_final(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(&c) = rest.peek() {
        if !(' '..='~').contains(&c) {
            return;
        }
        rest.next();
        if ('@'..='~').contains(&c) {
            return;
        }
    }
}

fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::{line, lines, short};
    use proptest::prelude::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_stays() {
        for (text, safe) in [
            ("plain ü 漢", "plain ü 漢"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://e\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("a\rb\u{8}c", "abc"),
            ("\u{9b}2Jx", "x"),
            ("\u{202e}evil", "evil"),
            ("a\tb\nc", "a bc"),
        ] {
            assert_eq!(line(text), safe, "{text:?}");
        }
        assert_eq!(lines("a\n\u{1b}]0;no end\nb"), "a\n\nb");
        assert_eq!(short("übel\n!", 5), "übel!");
        assert_eq!(short("übel\n!", 2), "üb…");
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text in "(\\PC|[\u{1b}\\[\\]P\n\u{7};0-9mH\\\\])*") {
            prop_assert!(!line(&text).contains(char::is_control));
        }
    }
}
