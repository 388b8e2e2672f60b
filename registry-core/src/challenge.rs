//! Challenges: how a response says which credentials would help (RFC 9110, section 11.6.1).

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::scope::Scope;

/// The value of `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// A name and a password (RFC 7617).
    Basic {
        /// What they are for, as shown to a person.
        realm: String,
    },
    /// A token (RFC 6750), from the server at `realm`.
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The registry's name at the token server.
        service: String,
        /// What the token must grant.
        scopes: Vec<Scope>,
        /// What was wrong with the token that was sent, if one was.
        error: Option<ChallengeError>,
    },
}

/// What is wrong with a token (RFC 6750, section 3.1). Clients give up on it, so it is sent only if it is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChallengeError {
    /// It is malformed, expired, or not signed by a trusted issuer.
    InvalidToken,
    /// It is valid, but grants less than the request needs.
    InsufficientScope,
}

impl ChallengeError {
    /// Returns the error code of RFC 6750.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

impl Challenge {
    /// Creates a challenge for a token.
    #[must_use]
    pub const fn bearer(
        realm: String,
        service: String,
        scopes: Vec<Scope>,
        error: Option<ChallengeError>,
    ) -> Self {
        Self::Bearer {
            realm,
            service,
            scopes,
            error,
        }
    }

    /// Parses the challenges of a field `WWW-Authenticate`. Those of another scheme, or without a required parameter,
    /// are left out, and so is everything after a part that cannot be parsed.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        let mut challenges = Vec::new();
        let mut rest = text.trim_start_matches(is_between);
        while let Some((scheme, parameters, after)) = next_challenge(rest) {
            challenges.extend(Self::new(scheme, &parameters));
            rest = after;
        }
        challenges
    }

    fn new(scheme: &str, parameters: &[(&str, String)]) -> Option<Self> {
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let realm = get("realm")?;
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic { realm });
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let errors = [ChallengeError::InvalidToken, ChallengeError::InsufficientScope];
        let error = get("error").and_then(|error| errors.into_iter().find(|known| known.as_str() == error));
        Some(Self::Bearer {
            realm,
            service: get("service").unwrap_or_default(),
            scopes: Scope::parse_list(&get("scope").unwrap_or_default()).unwrap_or_default(),
            error,
        })
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { realm } => write!(f, "Basic realm={}", Quoted(realm)),
            Self::Bearer {
                realm,
                service,
                scopes,
                error,
            } => {
                // No space after a comma: not every client's parser accepts one.
                write!(f, "Bearer realm={}", Quoted(realm))?;
                if !service.is_empty() {
                    write!(f, ",service={}", Quoted(service))?;
                }
                if !scopes.is_empty() {
                    write!(f, ",scope={}", Quoted(&Scope::join(scopes)))?;
                }
                match error {
                    Some(error) => write!(f, ",error=\"{}\"", error.as_str()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A quoted string (RFC 9110, section 5.6.4). Characters that it must not contain are left out.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars().filter(|character| !character.is_control()) {
            if matches!(character, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{character}")?;
        }
        f.write_str("\"")
    }
}

const fn is_between(character: char) -> bool {
    matches!(character, ' ' | '\t' | ',')
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

/// A scheme, its parameters, and what follows them.
type Parsed<'a> = (&'a str, Vec<(&'a str, String)>, &'a str);

fn next_challenge(text: &str) -> Option<Parsed<'_>> {
    let (scheme, mut rest) = split_token(text)?;
    let mut parameters = Vec::new();
    loop {
        let next = rest.trim_start_matches(is_between);
        match next_parameter(next) {
            Some((name, value, after)) => {
                parameters.push((name, value));
                rest = after;
            }
            // The next scheme, the end, or something that cannot be parsed.
            None => return Some((scheme, parameters, next)),
        }
    }
}

fn next_parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = split_token(text)?;
    let rest = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    let rest = rest.trim_start_matches([' ', '\t']);
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = split_token(rest)?;
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some((name, value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

fn split_token(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim_start_matches(is_token);
    let token = text.strip_suffix(rest)?;
    (!token.is_empty()).then_some((token, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_challenge_has_the_form_that_clients_read() {
        let basic = Challenge::Basic {
            realm: "a \"b\" \\".into(),
        };
        assert_eq!(basic.to_string(), r#"Basic realm="a \"b\" \\""#);
        let mut bearer = Challenge::Bearer {
            realm: "https://host/auth/token".into(),
            service: "host".into(),
            scopes: vec![
                "repository:a/b:pull,push".parse().unwrap(),
                "repository:c:pull".parse().unwrap(),
            ],
            error: None,
        };
        assert_eq!(
            bearer.to_string(),
            r#"Bearer realm="https://host/auth/token",service="host",scope="repository:a/b:pull,push repository:c:pull""#
        );
        if let Challenge::Bearer { error, scopes, .. } = &mut bearer {
            *error = Some(ChallengeError::InsufficientScope);
            scopes.clear();
        }
        assert_eq!(
            bearer.to_string(),
            r#"Bearer realm="https://host/auth/token",service="host",error="insufficient_scope""#
        );
    }

    #[test]
    fn several_challenges_and_other_schemes_are_told_apart() {
        let text = r#"Negotiate, bearer Realm="https://h/t" , service=x,Basic realm="y""#;
        let expected = [
            Challenge::Bearer {
                realm: "https://h/t".into(),
                service: "x".into(),
                scopes: vec![],
                error: None,
            },
            Challenge::Basic { realm: "y".into() },
        ];
        assert_eq!(Challenge::parse_all(text), expected);
        for text in [
            "",
            "Bearer",
            "Bearer service=x",
            "Bearer realm=\"x",
            "\"",
            "Digest realm=\"x\"",
        ] {
            assert_eq!(Challenge::parse_all(text), [], "{text}");
        }
    }

    fn challenge() -> impl Strategy<Value = Challenge> {
        let text = "[ -~\u{e4}]{0,20}";
        let scope = "[a-z]{1,4}:[a-z/]{1,9}:[a-z]{1,4}(,[a-z]{1,4})?";
        let scopes = proptest::collection::vec(scope.prop_map(|scope| scope.parse().unwrap()), 0..3);
        let error = prop_oneof![
            Just(None),
            Just(Some(ChallengeError::InvalidToken)),
            Just(Some(ChallengeError::InsufficientScope))
        ];
        prop_oneof![
            text.prop_map(|realm| Challenge::Basic { realm }),
            (text, text, scopes, error).prop_map(|(realm, service, scopes, error)| Challenge::Bearer {
                realm,
                service,
                scopes,
                error
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_itself(challenges in proptest::collection::vec(challenge(), 1..4)) {
            let text = challenges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(Challenge::parse_all(&text), challenges);
        }

        #[test]
        fn no_text_makes_reading_panic(text: String) {
            drop(Challenge::parse_all(&text));
        }
    }
}
