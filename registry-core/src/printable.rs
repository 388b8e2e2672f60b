//! Foreign text, written so that it stays on its line and shows what it is.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Returns whether a character may be shown as it is: it begins no line, moves no cursor, changes no direction and is
/// not invisible.
///
/// The following may not: the controls of ASCII and Latin-1 (C0, DEL, C1), the separators of lines and paragraphs,
/// controls of the direction of writing (UAX #9), characters that programs leave out when they show text
/// (`Default_Ignorable_Code_Point`), and characters that have a width and are blank but not a space.
#[must_use]
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{13441}'..='\u{13442}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d159}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Displays a text with an escape, such as `\n` or `\u{202e}`, for each character that is not
/// [printable](is_printable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, |f, character| {
            write!(f, "{}", character.escape_default())
        })
    }
}

/// Writes JSON with an escape for each character that is not [printable](is_printable). The meaning stays the same: in
/// JSON without white space, such characters occur only in strings.
#[must_use]
pub fn printable_json(json: String) -> String {
    // Most text is ASCII, and this runs for each line of a log.
    if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || json.chars().all(is_printable) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 32);
    let written = write_escaped(&mut escaped, &json, |escaped, character| {
        let mut units = [0; 2];
        (character.encode_utf16(&mut units).iter()).try_for_each(|unit| write!(escaped, "\\u{unit:04x}"))
    });
    // Writing to a string cannot fail.
    debug_assert!(written.is_ok(), "a string takes what is written");
    escaped
}

fn write_escaped<W: Write + ?Sized>(
    out: &mut W,
    text: &str,
    escape: impl Fn(&mut W, char) -> fmt::Result,
) -> fmt::Result {
    let mut rest = text;
    while let Some(place) = rest.find(|character| !is_printable(character)) {
        let (before, after) = rest.split_at(place);
        out.write_str(before)?;
        let mut characters = after.chars();
        if let Some(character) = characters.next() {
            escape(out, character)?;
        }
        rest = characters.as_str();
    }
    out.write_str(rest)
}

/// Cuts a text to at most `most` bytes, followed by how many are missing.
#[must_use]
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let kept = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    Cow::Owned(format!("{kept}...[{} more bytes]", text.len() - kept.len()))
}

/// Adds the causes of an error to a message, each after `: `.
///
/// A cause that the text includes already is left out, because some errors include their causes. A cause of several
/// lines, or with `<`, is one short line: a service, or a proxy before it, may answer with a page.
#[must_use]
pub fn with_causes(message: String, cause: Option<&(dyn core::error::Error + 'static)>) -> String {
    let causes = core::iter::successors(cause, |cause| cause.source());
    causes.fold(message, |mut text, cause| {
        let cause = one_line(cause.to_string());
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        text
    })
}

/// The longest page in a text, in bytes.
const PAGE_BYTES: usize = 300;

fn one_line(cause: String) -> String {
    if !cause.contains(['\n', '<']) {
        return cause;
    }
    let words: Vec<&str> = cause.split_whitespace().collect();
    shortened(&words.join(" "), PAGE_BYTES).into_owned()
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::string::ToString as _;
    use core::error::Error;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Self>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn each_cause_is_shown_once() {
        let chain = |texts: &[&'static str]| {
            let link = |cause: Option<Box<Link>>, text: &&'static str| Some(Box::new(Link(text, cause)));
            texts.iter().rev().fold(None, link).unwrap()
        };
        for (texts, shown) in [
            (&["a"][..], "a"),
            (
                &["no answer", "it was refused", "port 1"],
                "no answer: it was refused: port 1",
            ),
            (
                &["no answer: refused", "refused", "port 1"],
                "no answer: refused: port 1",
            ),
        ] {
            let error = chain(texts);
            assert_eq!(with_causes(error.to_string(), error.source()), shown);
        }
    }

    #[test]
    fn what_would_forge_or_hide_text_is_escaped() {
        for (text, shown) in [
            ("a b ü 漢 👍", "a b ü 漢 👍"),
            ("a\nb\t\u{1b}[31m\u{7f}", "a\\nb\\t\\u{1b}[31m\\u{7f}"),
            ("\u{80}\u{85}\u{9b}31m\u{9f}", "\\u{80}\\u{85}\\u{9b}31m\\u{9f}"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}",
                "\\u{202a}\\u{202e}\\u{2066}\\u{2069}",
            ),
            ("\u{200e}\u{200f}\u{61c}", "\\u{200e}\\u{200f}\\u{61c}"),
            ("\u{2028}\u{2029}\u{feff}", "\\u{2028}\\u{2029}\\u{feff}"),
            (
                "\u{34f}\u{115f}\u{1160}\u{3164}\u{ffa0}\u{2800}",
                "\\u{34f}\\u{115f}\\u{1160}\\u{3164}\\u{ffa0}\\u{2800}",
            ),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcde", 3), "abc...[2 more bytes]");
        assert_eq!(shortened("aüü", 2), "a...[4 more bytes]");
    }

    proptest! {
        #[test]
        fn any_text_is_one_printable_line(text in any::<String>()) {
            prop_assert!(Printable(&text).to_string().chars().all(is_printable));
        }

        #[test]
        fn what_programs_leave_out_or_show_as_nothing_is_escaped(
            text in "[\\p{Default_Ignorable_Code_Point}\\p{Cc}\\p{Zl}\\p{Zp}\\u{2800}\\u{fff9}-\\u{fffb}]{1,20}",
        ) {
            prop_assert!(!text.chars().any(is_printable), "{:?}", text);
            prop_assert!(Printable(&text).to_string().is_ascii());
        }

        #[test]
        fn escaped_json_is_printable_and_means_the_same(text in any::<String>()) {
            let json = printable_json(serde_json::to_string(&text).unwrap());
            prop_assert!(json.chars().all(is_printable));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
