//! The htpasswd file.

use std::collections::BTreeMap;
use std::fmt;

#[cfg(feature = "token-server")]
use aws_lc_rs::digest::{SHA256, digest};
#[cfg(feature = "token-server")]
use base64::Engine as _;
#[cfg(feature = "token-server")]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bcrypt::HashParts;
use registry_core::policy::Identity;

/// The highest cost of a hash: each step doubles the time of a login, and this one takes seconds.
const HIGHEST_COST: u32 = 16;

/// The most bytes of a name that a message shows.
const SHOWN_NAME_BYTES: usize = 40;

/// The cost of new hashes, and the one assumed if no user can log in.
const USUAL_COST: u32 = 10;

/// The users of an htpasswd file and the bcrypt hashes of their passwords.
#[derive(Clone, Default)]
pub struct Htpasswd {
    users: BTreeMap<String, User>,
    unusable: Vec<UnusableUser>,
    replaced: Vec<ReplacedLine>,
    ends_within_a_line: bool,
}

#[derive(Clone)]
struct User {
    line: usize,
    hash: String,
    #[cfg(feature = "token-server")]
    credential: String,
    can_log_in: bool,
}

/// A line that is not of the form `NAME:HASH`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: a line is NAME:HASH")]
pub struct InvalidHtpasswd {
    /// The number of the line, from 1.
    pub line: usize,
}

/// A user who cannot log in, because the hash of the password is unusable (only bcrypt with a cost of at most 16 is
/// supported) or because access rules reserve the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {} cannot log in: {reason}", self.shown())]
pub struct UnusableUser {
    /// The number of the line, from 1.
    pub line: usize,
    /// The user.
    pub user: String,
    /// What is wrong, and what to do.
    pub reason: &'static str,
    has_hash: bool,
}

impl UnusableUser {
    fn shown(&self) -> String {
        shown(&self.user, self.has_hash, "its user")
    }
}

/// A line without effect, because a later line gives the same user another password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has no effect: line {later} gives {} another password", self.shown())]
pub struct ReplacedLine {
    /// The number of the line, from 1.
    pub line: usize,
    /// The user.
    pub user: String,
    /// The number of the line that applies instead.
    pub later: usize,
    has_hash: bool,
}

impl ReplacedLine {
    fn shown(&self) -> String {
        shown(&self.user, self.has_hash, "the same user")
    }
}

/// Returns a name for a message. In a broken file, a hash or a password may be in its place: what precedes something
/// that looks like a hash is certainly a name.
fn shown(user: &str, has_hash: bool, other: &str) -> String {
    if has_hash && user.len() <= SHOWN_NAME_BYTES && !looks_like_hash(user) {
        format!("{user:?}")
    } else {
        other.to_owned()
    }
}

/// Returns whether a text looks like a hash of any kind except DES, whose hashes look like words.
fn looks_like_hash(text: &str) -> bool {
    text.starts_with(['$', '{'])
}

impl Htpasswd {
    /// Reads a file. Empty lines and lines that begin with `#` are skipped; of two lines for one user, the last
    /// applies.
    ///
    /// An unusable hash refuses only its user, as in the distribution registry. So does a name with a special meaning
    /// in access rules ([`Identity::is_name_of_user`]).
    ///
    /// # Errors
    /// The first line that is not of the form `NAME:HASH`.
    pub fn parse(text: &str) -> Result<Self, InvalidHtpasswd> {
        let mut users: BTreeMap<String, User> = BTreeMap::new();
        let mut unusable = BTreeMap::new();
        let mut replaced = Vec::new();
        for (number, content) in text.lines().enumerate() {
            let (line, content) = (number + 1, content.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (user, hash) = content
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or(InvalidHtpasswd { line })?;
            let checked = check_name(user).and_then(|()| check(hash));
            let entry = User {
                line,
                hash: hash.to_owned(),
                #[cfg(feature = "token-server")]
                credential: credential(user, hash),
                can_log_in: checked.is_ok(),
            };
            let earlier = users.insert(user.to_owned(), entry);
            if let Some(earlier) = earlier.filter(|earlier| earlier.hash != hash) {
                replaced.push(ReplacedLine {
                    line: earlier.line,
                    user: user.to_owned(),
                    later: line,
                    has_hash: looks_like_hash(hash) && looks_like_hash(&earlier.hash),
                });
            }
            match checked {
                Ok(()) => unusable.remove(user),
                Err(reason) => unusable.insert(user.to_owned(), (line, reason, looks_like_hash(hash))),
            };
        }
        let unusable = unusable
            .into_iter()
            .map(|(user, (line, reason, has_hash))| UnusableUser {
                line,
                user,
                reason,
                has_hash,
            });
        let unusable: Vec<_> = unusable.collect();
        let last = text.lines().count();
        Ok(Self {
            users,
            ends_within_a_line: !text.ends_with('\n') && unusable.iter().any(|hash| hash.line == last),
            unusable,
            replaced,
        })
    }

    /// Returns the users who cannot log in, ordered by name, and why.
    #[must_use]
    pub fn unusable(&self) -> &[UnusableUser] {
        &self.unusable
    }

    /// Returns the lines that have no effect because of a later line for the same user.
    #[must_use]
    pub fn replaced(&self) -> &[ReplacedLine] {
        &self.replaced
    }

    /// Returns what keeps users from logging in, one sentence per line of the file: [`unusable`](Self::unusable) and
    /// [`replaced`](Self::replaced). The sentences contain no hash.
    pub fn defects(&self) -> impl Iterator<Item = String> {
        let unusable = self.unusable.iter().map(ToString::to_string);
        unusable.chain(self.replaced.iter().map(ToString::to_string))
    }

    /// Returns whether the last line has no line break and an unusable hash, as in a file that was only partly written.
    #[must_use]
    pub const fn ends_within_a_line(&self) -> bool {
        self.ends_within_a_line
    }

    /// Returns the names of the users, in order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Returns the text of a file without a user and with all other lines unchanged, or `None` if there is no such
    /// user.
    #[must_use]
    pub fn without(text: &str, user: &str) -> Option<String> {
        let left: String = lines(text).filter(|line| user_of(line) != Some(user)).collect();
        (left.len() < text.len()).then_some(left)
    }

    pub(super) fn hash_of(&self, user: &str) -> Option<&str> {
        Some(self.usable(user)?.hash.as_str())
    }

    /// Returns an identifier of a user's password that does not reveal its hash. It changes with each change of the
    /// password, even to the same one.
    #[cfg(feature = "token-server")]
    pub(super) fn credential_of(&self, user: &str) -> Option<&str> {
        Some(self.usable(user)?.credential.as_str())
    }

    fn usable(&self, user: &str) -> Option<&User> {
        self.users.get(user).filter(|user| user.can_log_in)
    }

    /// Returns the highest cost among the hashes of users who can log in.
    pub(super) fn highest_cost(&self) -> u32 {
        let users = self.users.values().filter(|user| user.can_log_in);
        users
            .filter_map(|user| cost(&user.hash))
            .max()
            .unwrap_or(USUAL_COST)
    }
}

/// Half of a digest: enough to be unique. Without the random bits of the hash, it cannot be used to try passwords.
#[cfg(feature = "token-server")]
fn credential(name: &str, hash: &str) -> String {
    let hashed = digest(&SHA256, format!("{name}:{hash}").as_bytes());
    URL_SAFE_NO_PAD.encode(hashed.as_ref().get(..16).unwrap_or_default())
}

/// A line of an htpasswd file: a user and the bcrypt hash of a password.
pub struct HtpasswdLine {
    user: String,
    hash: String,
}

impl HtpasswdLine {
    /// Hashes a password, which takes about a tenth of a second of processor time.
    ///
    /// # Errors
    /// [`Reserved`](InvalidCredentials::Reserved) if the name has a special meaning in access rules,
    /// [`Name`](InvalidCredentials::Name) if it cannot be written to such a file, and
    /// [`Password`](InvalidCredentials::Password) if the password is empty, longer than 72 bytes, or contains a zero
    /// byte or a line break.
    pub fn new(user: &str, password: &str) -> Result<Self, InvalidCredentials> {
        if !user.is_empty() && !Identity::is_name_of_user(user) {
            return Err(InvalidCredentials::Reserved);
        }
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
        Ok(Self {
            user: user.to_owned(),
            hash: hash.format_for_version(bcrypt::Version::TwoY),
        })
    }

    /// Returns the text of a file with this line in place of the last one of the same user, or at its end if there is
    /// none. Other lines of the user are removed. All other lines stay as they are, including comments and malformed
    /// ones.
    #[must_use]
    pub fn put_into(&self, text: &str) -> String {
        let mut last = None;
        for (place, line) in lines(text).enumerate() {
            if user_of(line) == Some(self.user.as_str()) {
                last = Some(place);
            }
        }
        let mut result = String::with_capacity(text.len() + self.user.len() + self.hash.len() + 3);
        for (place, line) in lines(text).enumerate() {
            if Some(place) == last {
                let content = line.trim_end_matches(['\n', '\r']);
                let end = line.strip_prefix(content).filter(|end| !end.is_empty());
                result.push_str(&format!("{self}{}", end.unwrap_or("\n")));
            } else if user_of(line) != Some(self.user.as_str()) {
                result.push_str(line);
            }
        }
        if last.is_none() {
            if !result.is_empty() && !result.ends_with('\n') {
                result.push('\n');
            }
            result.push_str(&format!("{self}\n"));
        }
        result
    }
}

/// Writes the line without a line break.
impl fmt::Display for HtpasswdLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.hash)
    }
}

/// Omits the hash.
impl fmt::Debug for HtpasswdLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HtpasswdLine").field(&self.user).finish()
    }
}

/// Returns the lines of a text, including their line breaks.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

/// Returns the user of a line, if it has one.
fn user_of(line: &str) -> Option<&str> {
    let content = line.trim();
    let (user, _) = content.split_once(':').filter(|_| !content.starts_with('#'))?;
    Some(user)
}

/// Returns the cost of a hash: each step doubles the time that a comparison takes.
pub(super) fn cost(hash: &str) -> Option<u32> {
    hash.parse::<HashParts>().ok().map(|parts| parts.get_cost())
}

/// Returns a hash that no password matches.
pub(super) fn hash_of_nobody(cost: u32) -> String {
    format!("$2y${cost:02}${}", ".".repeat(53))
}

/// Why a name or a password was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCredentials {
    /// The name cannot be written to an htpasswd file.
    #[error(
        "a user's name is not empty, does not begin with '#', and has no ':', no control character and no space at its ends"
    )]
    Name,
    /// The name has a special meaning in access rules.
    #[error(
        "no user can be called `anonymous`, `authenticated`, `*` or `group:…`, because rules of `access` mean others by it"
    )]
    Reserved,
    /// The password cannot be hashed.
    #[error("a password has 1 to 72 bytes, all on one line")]
    Password,
}

fn check_name(user: &str) -> Result<(), &'static str> {
    if Identity::is_name_of_user(user) {
        Ok(())
    } else {
        Err("rules of `access` mean others by this name; give the user another one")
    }
}

/// Describes what is wrong with a hash.
macro_rules! unusable {
    ($what:literal) => {
        concat!(
            "the password ",
            $what,
            "; set it again with `htpasswd -B` or `registry-bin htpasswd add`"
        )
    };
}

fn check(hash: &str) -> Result<(), &'static str> {
    if !["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| hash.starts_with(prefix))
    {
        return Err(match hash {
            _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => {
                unusable!("is hashed by MD5, and only bcrypt serves")
            }
            _ if hash.starts_with("{SHA}") => unusable!("is hashed by SHA-1, and only bcrypt serves"),
            _ if hash.starts_with("$5$") || hash.starts_with("$6$") => {
                unusable!("is hashed by SHA-2, and only bcrypt serves")
            }
            _ => unusable!("is not hashed by bcrypt"),
        });
    }
    match cost(hash) {
        Some(cost) if cost > HIGHEST_COST => Err(unusable!(
            "has a bcrypt hash of a cost above 16, which takes too long"
        )),
        Some(_) => Ok(()),
        None => Err(unusable!("has a malformed bcrypt hash")),
    }
}

impl fmt::Debug for Htpasswd {
    /// Omits the hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "alice:$2y$05$.....................................................";

    #[test]
    fn a_file_is_read() {
        let text = format!(
            "# users\n\n  {ALICE}  \r\nbob:$2b$04${}\n{ALICE}\n",
            ".".repeat(53)
        );
        let read = Htpasswd::parse(&text).unwrap();
        assert_eq!(read.users().collect::<Vec<_>>(), ["alice", "bob"]);
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
            let text = format!("{ALICE}\n{line}");
            let read = Htpasswd::parse(&text).unwrap();
            assert!(read.hash_of("alice").is_some() && read.hash_of("carol").is_none());
            assert_eq!(read.highest_cost(), 5);
            let message = read.unusable()[0].to_string();
            // What comes before something that is not a hash may be a password.
            let is_named = !line.contains(":plain");
            assert_eq!(message.contains("carol"), is_named, "{message}");
            assert!(message.contains("line 2") && message.contains(part), "{message}");
            let set = HtpasswdLine::new("carol", "open sesame").unwrap().put_into(&text);
            let read = Htpasswd::parse(&set).unwrap();
            assert!(read.unusable().is_empty() && read.hash_of("carol").is_some());
        }
    }

    #[test]
    fn a_name_that_means_others_in_a_rule_refuses_its_user_only() {
        let (_, hash) = ALICE.split_once(':').unwrap();
        for name in ["anonymous", "authenticated", "*", "group"] {
            // The name of `group:developers` ends at the colon, and the rest is not a hash.
            let line = match name {
                "group" => format!("group:developers:{hash}"),
                name => format!("{name}:{hash}"),
            };
            let read = Htpasswd::parse(&format!("{ALICE}\n{line}\n")).unwrap();
            assert!(read.hash_of("alice").is_some() && read.hash_of(name).is_none());
            let message = read.unusable()[0].to_string();
            assert!(message.contains("line 2"), "{message}");
            assert!(name == "group" || message.contains(name), "{message}");
        }
        for name in ["anonymous", "authenticated", "*", "group:developers"] {
            let refused = HtpasswdLine::new(name, "x").unwrap_err();
            assert_eq!(refused, InvalidCredentials::Reserved, "{name}");
        }
    }

    #[test]
    fn a_hash_in_the_place_of_a_name_is_not_shown() {
        for line in [
            "$2y$05$canary:alice",
            "{SHA}canary:alice",
            "canary:alice",
            "{SHA}canary:{SHA}x",
        ] {
            let read = Htpasswd::parse(&format!("{line}\n{line}2\n")).unwrap();
            for said in read.defects() {
                assert!(said.contains("line ") && !said.contains("canary"), "{said}");
            }
        }
    }

    #[test]
    fn of_two_lines_for_one_user_the_last_holds() {
        let bad = "alice:{SHA}x";
        let read = Htpasswd::parse(&format!("{bad}\n{ALICE}")).unwrap();
        assert!(read.unusable().is_empty() && read.hash_of("alice").is_some());
        let read = Htpasswd::parse(&format!("{ALICE}\n{bad}")).unwrap();
        assert!(read.hash_of("alice").is_none());
        let said: Vec<String> = read.defects().collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(
            said[1],
            "line 1 has no effect: line 2 gives \"alice\" another password"
        );
        // Repeating a line changes nothing.
        let read = Htpasswd::parse(&format!("{ALICE}\n{ALICE}")).unwrap();
        assert_eq!(read.defects().count(), 0);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for line in ["carol", ":hash"] {
            assert_eq!(Htpasswd::parse(line).unwrap_err(), InvalidHtpasswd { line: 1 });
        }
    }

    #[test]
    fn a_password_is_hashed() {
        let line = HtpasswdLine::new("carol", "open sesame").unwrap();
        let file = Htpasswd::parse(&line.to_string()).unwrap();
        let hash = file.hash_of("carol").unwrap();
        assert_eq!(bcrypt::verify("open sesame", hash).ok(), Some(true));
        assert!(hash.starts_with("$2y$10$"));
        for name in ["", "a:b", "a\nb", "#a", " a"] {
            let refused = HtpasswdLine::new(name, "x").unwrap_err();
            assert_eq!(refused, InvalidCredentials::Name);
        }
        for password in ["", "a\nb", &"x".repeat(73)] {
            let refused = HtpasswdLine::new("carol", password).unwrap_err();
            assert_eq!(refused, InvalidCredentials::Password);
        }
    }

    #[test]
    fn whoever_is_changed_all_other_lines_stay_as_they_are() {
        let text = "# people\r\nbob:1\r\n\nno line\n  alice:2  \nalice:3\r\n#alice:4\ncarol:5";
        let line = HtpasswdLine {
            user: "alice".into(),
            hash: "new".into(),
        };
        assert_eq!(
            line.put_into(text),
            "# people\r\nbob:1\r\n\nno line\nalice:new\r\n#alice:4\ncarol:5"
        );
        let line = HtpasswdLine {
            user: "dora".into(),
            ..line
        };
        assert_eq!(line.put_into(text), format!("{text}\ndora:new\n"));
        assert_eq!(line.put_into(""), "dora:new\n");
        assert_eq!(line.put_into("dora:old"), "dora:new\n");
        assert_eq!(
            Htpasswd::without(text, "alice").unwrap(),
            "# people\r\nbob:1\r\n\nno line\n#alice:4\ncarol:5"
        );
        assert_eq!(Htpasswd::without(text, "dora"), None);
        assert_eq!(Htpasswd::without(text, "#alice"), None);
    }

    #[cfg(feature = "token-server")]
    #[test]
    fn the_same_password_set_again_is_another_credential() {
        let credential = || {
            let line = HtpasswdLine::new("carol", "open sesame").unwrap();
            let file = Htpasswd::parse(&line.to_string()).unwrap();
            file.credential_of("carol").unwrap().to_owned()
        };
        assert_ne!(credential(), credential());
        let both = format!("{ALICE}\n{}", ALICE.replace("alice", "bob"));
        let file = Htpasswd::parse(&both).unwrap();
        assert_ne!(file.credential_of("alice"), file.credential_of("bob"));
        assert_eq!(file.credential_of("carol"), None);
    }
}
