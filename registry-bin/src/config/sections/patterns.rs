//! Patterns of repositories that match none.

use registry_core::RepositoryName;
use registry_core::policy::Glob;

/// Returns what is surprising about the `repositories` below a key: the key of each pattern that matches none, and a sentence
/// of which it is the subject.
pub(super) fn patterns_of_none(path: &str, repositories: &[Glob]) -> Vec<(String, String)> {
    let patterns = repositories.iter().enumerate();
    let of_none = patterns.filter(|(_, glob)| !matches_some(glob));
    let remark = |(index, glob): (usize, &Glob)| {
        let has_capitals = glob.as_str().bytes().any(|byte| byte.is_ascii_uppercase());
        let why = if has_capitals {
            "names of repositories have no capital letters"
        } else {
            "no repository can have such a name"
        };
        (
            format!("{path}.repositories[{index}]"),
            format!("matches nothing: {why}"),
        )
    };
    of_none.map(remark).collect()
}

/// Returns whether a name of a repository matches: a letter is right wherever a star is, unless the name is too long.
fn matches_some(glob: &Glob) -> bool {
    ["1", ""].into_iter().any(|star| {
        let name = glob.as_str().replace("**", "*").replace('*', star);
        name.parse::<RepositoryName>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_no_name_matches_are_found() {
        let matches = |text: &str| matches_some(&text.parse().unwrap());
        for text in [
            "**", "*", "a", "a/*", "**/a", "a-*", "a_*_b", "*-*", "*/**/*", "a**",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in ["Team/*", "a/B", "/a", "a/", "**/", "-*", "*.", "a//b", "a..b*"] {
            assert!(!matches(text), "{text}");
        }
    }
}
