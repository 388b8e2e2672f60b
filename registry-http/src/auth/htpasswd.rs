//! The htpasswd file.

use std::collections::BTreeMap;
use std::fmt;

use bcrypt::HashParts;

/// The highest cost of a hash: each step doubles the time that one login takes, and this one takes seconds.
const HIGHEST_COST: u32 = 16;

/// The cost where no user tells another.
const USUAL_COST: u32 = 10;

/// The users of an htpasswd file and the bcrypt hashes of their passwords.
#[derive(Clone, Default)]
pub struct Htpasswd {
    users: BTreeMap<String, String>,
    unusable: Vec<UnusableHash>,
}

/// A line that is no line of an htpasswd file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: a line is NAME:HASH")]
pub struct InvalidHtpasswd {
    /// The number of the line, from 1.
    pub line: usize,
}

/// A hash that does not serve, so that no password is right for its user: only bcrypt's do, of a cost of at most 16.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: the password of {user:?} {reason}, so {user:?} cannot log in; set it again with `htpasswd -B` or `registry-bin htpasswd add`"
)]
pub struct UnusableHash {
    /// The number of the line, from 1.
    pub line: usize,
    /// The user.
    pub user: String,
    /// What is wrong with the hash.
    pub reason: &'static str,
}

impl Htpasswd {
    /// Reads a file. Empty lines and those that begin with `#` are left out; of two lines for one user the last holds.
    ///
    /// A hash that does not serve refuses its user and nobody else, as in the distribution registry.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(text: &str) -> Result<Self, InvalidHtpasswd> {
        let mut users = BTreeMap::new();
        let mut unusable = BTreeMap::new();
        for (number, content) in text.lines().enumerate() {
            let (line, content) = (number + 1, content.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (user, hash) = content
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or(InvalidHtpasswd { line })?;
            users.insert(user.to_owned(), hash.to_owned());
            match check(hash) {
                Ok(()) => unusable.remove(user),
                Err(reason) => unusable.insert(user.to_owned(), (line, reason)),
            };
        }
        let unusable = unusable
            .into_iter()
            .map(|(user, (line, reason))| UnusableHash { line, user, reason });
        Ok(Self {
            users,
            unusable: unusable.collect(),
        })
    }

    /// Returns the users who cannot log in, in order, and why.
    #[must_use]
    pub fn unusable(&self) -> &[UnusableHash] {
        &self.unusable
    }

    /// Returns the names of the users, in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Sets the password of a user, who is added if there is none of this name.
    ///
    /// # Errors
    /// Where the name cannot stand in such a file, or the password is empty, has more than 72 bytes or a zero byte.
    pub fn set(&mut self, user: &str, password: &str) -> Result<(), InvalidCredentials> {
        if user.is_empty()
            || user.starts_with('#')
            || user.contains(|c: char| c == ':' || c.is_control())
            || user.trim() != user
        {
            return Err(InvalidCredentials::Name);
        }
        if password.is_empty() || password.contains(['\0', '\n', '\r']) {
            return Err(InvalidCredentials::Password);
        }
        let hash = bcrypt::non_truncating_hash_with_result(password, USUAL_COST)
            .map_err(|_| InvalidCredentials::Password)?;
        self.unusable.retain(|unusable| unusable.user != user);
        self.users
            .insert(user.to_owned(), hash.format_for_version(bcrypt::Version::TwoY));
        Ok(())
    }

    /// Removes a user; `false` where there is none of this name.
    pub fn remove(&mut self, user: &str) -> bool {
        self.unusable.retain(|unusable| unusable.user != user);
        self.users.remove(user).is_some()
    }

    pub(super) fn hash_of(&self, user: &str) -> Option<&str> {
        let hash = self.users.get(user).map(String::as_str);
        hash.filter(|_| !self.unusable.iter().any(|unusable| unusable.user == user))
    }

    /// Returns the highest cost of a user's hash.
    pub(super) fn highest_cost(&self) -> u32 {
        let costs = self
            .users
            .keys()
            .filter_map(|user| self.hash_of(user).and_then(cost));
        costs.max().unwrap_or(USUAL_COST)
    }
}

/// Returns the cost of a hash: each step doubles the time that a comparison takes.
pub(super) fn cost(hash: &str) -> Option<u32> {
    hash.parse::<HashParts>().ok().map(|parts| parts.get_cost())
}

/// Returns a hash that no password has.
pub(super) fn hash_of_nobody(cost: u32) -> String {
    format!("$2y${cost:02}${}", ".".repeat(53))
}

/// Why a name or a password cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// The name.
    #[error(
        "a user's name is not empty, does not begin with '#', and has no ':', no control character and no space at its ends"
    )]
    Name,
    /// The password.
    #[error("a password has 1 to 72 bytes, all on one line")]
    Password,
}

fn check(hash: &str) -> Result<(), &'static str> {
    if !["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| hash.starts_with(prefix))
    {
        return Err(match hash {
            _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => {
                "is hashed by MD5, and only bcrypt serves"
            }
            _ if hash.starts_with("{SHA}") => "is hashed by SHA-1, and only bcrypt serves",
            _ if hash.starts_with("$5$") || hash.starts_with("$6$") => {
                "is hashed by SHA-2, and only bcrypt serves"
            }
            _ => "is not hashed by bcrypt",
        });
    }
    match cost(hash) {
        Some(cost) if cost > HIGHEST_COST => {
            Err("has a bcrypt hash of a cost above 16, which takes too long")
        }
        Some(_) => Ok(()),
        None => Err("has a malformed bcrypt hash"),
    }
}

impl fmt::Display for Htpasswd {
    /// Writes the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.users
            .iter()
            .try_for_each(|(user, hash)| writeln!(f, "{user}:{hash}"))
    }
}

impl fmt::Debug for Htpasswd {
    /// Leaves the hashes out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "alice:$2y$05$.....................................................";

    #[test]
    fn a_file_is_read_and_written() {
        let text = format!(
            "# users\n\n  {ALICE}  \r\nbob:$2b$04${}\n{ALICE}\n",
            ".".repeat(53)
        );
        let read = Htpasswd::parse(&text).unwrap();
        assert_eq!(read.users().collect::<Vec<_>>(), ["alice", "bob"]);
        assert_eq!(Htpasswd::parse(&read.to_string()).unwrap().users, read.users);
        assert_eq!(format!("{read:?}"), r#"{"alice", "bob"}"#);
        assert_eq!(read.highest_cost(), 5);
        assert_eq!(cost(&hash_of_nobody(5)), Some(5));
        assert_eq!(bcrypt::verify("", &hash_of_nobody(5)).ok(), Some(false));
    }

    #[test]
    fn a_hash_that_does_not_serve_refuses_its_user_only() {
        let slow = format!("carol:$2y$31${}", ".".repeat(53));
        for (line, part) in [
            ("carol:$apr1$x$y", "MD5"),
            ("carol:{SHA}x", "SHA-1"),
            ("carol:$6$x", "SHA-2"),
            ("carol:plain", "not hashed by bcrypt"),
            ("carol:$2y$05$short", "malformed"),
            (&slow, "cost above 16"),
        ] {
            let mut read = Htpasswd::parse(&format!("{ALICE}\n{line}")).unwrap();
            assert!(read.hash_of("alice").is_some() && read.hash_of("carol").is_none());
            assert_eq!(read.highest_cost(), 5);
            let message = read.unusable()[0].to_string();
            assert!(
                message.contains("line 2") && message.contains("carol") && message.contains(part),
                "{message}"
            );
            // Changing somebody else loses nothing.
            assert!(read.to_string().contains(line));
            read.set("carol", "open sesame").unwrap();
            assert!(read.unusable().is_empty() && read.hash_of("carol").is_some());
        }
    }

    #[test]
    fn of_two_lines_for_one_user_the_last_holds() {
        let bad = "alice:{SHA}x";
        let read = Htpasswd::parse(&format!("{bad}\n{ALICE}")).unwrap();
        assert!(read.unusable().is_empty() && read.hash_of("alice").is_some());
        let read = Htpasswd::parse(&format!("{ALICE}\n{bad}")).unwrap();
        assert!(read.hash_of("alice").is_none());
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for line in ["carol", ":hash"] {
            assert_eq!(Htpasswd::parse(line).unwrap_err(), InvalidHtpasswd { line: 1 });
        }
    }

    #[test]
    fn a_password_is_set_and_a_user_removed() {
        let mut file = Htpasswd::default();
        file.set("carol", "open sesame").unwrap();
        let hash = file.hash_of("carol").unwrap();
        assert_eq!(bcrypt::verify("open sesame", hash).ok(), Some(true));
        assert!(hash.starts_with("$2y$10$"));
        assert!(file.remove("carol") && !file.remove("carol"));
        for name in ["", "a:b", "a\nb", "#a", " a"] {
            assert_eq!(file.set(name, "x"), Err(InvalidCredentials::Name));
        }
        for password in ["", "a\nb", &"x".repeat(73)] {
            assert_eq!(file.set("carol", password), Err(InvalidCredentials::Password));
        }
    }
}
