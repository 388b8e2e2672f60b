//! Quotas: how much repositories may have together.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};
use crate::name::RepositoryName;
use crate::policy::Glob;

/// What the repositories that match it may have together. Every quota that matches a repository applies.
///
/// ```
/// use registry_core::quota::{Amount, Quota};
/// let team = Quota { repositories: vec!["team/**".parse()?], bytes: Some(1000), manifests: None, tags: None };
/// let repository = "team/app".parse()?;
/// let used = Amount { bytes: 900, ..Amount::default() };
/// let more = Amount { bytes: 200, ..Amount::default() };
/// assert!(team.require_room(&repository, used, more).is_err());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// The repositories; one of the patterns must match.
    pub repositories: Vec<Glob>,
    /// The bytes of blobs and manifests; a blob counts in each repository that has it. `None` for any number.
    pub bytes: Option<u64>,
    /// The number of manifests; `None` for any.
    pub manifests: Option<u64>,
    /// The number of tags; `None` for any.
    pub tags: Option<u64>,
}

/// What quotas count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// The bytes of blobs and manifests.
    #[serde(default)]
    pub bytes: u64,
    /// Manifests.
    #[serde(default)]
    pub manifests: u64,
    /// Tags.
    #[serde(default)]
    pub tags: u64,
}

impl Amount {
    /// Nothing.
    pub const NONE: Self = Self {
        bytes: 0,
        manifests: 0,
        tags: 0,
    };

    /// Returns the sum, at most the largest number.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            manifests: self.manifests.saturating_add(other.manifests),
            tags: self.tags.saturating_add(other.tags),
        }
    }

    /// Returns the difference, at least zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            manifests: self.manifests.saturating_sub(other.manifests),
            tags: self.tags.saturating_sub(other.tags),
        }
    }
}

impl Quota {
    /// Returns the pattern that matches a repository; `None` if none does.
    #[must_use]
    pub fn pattern_of(&self, repository: &RepositoryName) -> Option<&Glob> {
        let mut patterns = self.repositories.iter();
        patterns.find(|pattern| pattern.matches(repository.as_str()))
    }

    /// Decides whether `more` may be added in a repository that matches, of what is `used` in all of them. What does not
    /// grow is not limited: a limit that was lowered below what is used only refuses more of the same.
    ///
    /// # Errors
    /// [`Denied`](ErrorCode::Denied), with the numbers.
    pub fn require_room(&self, repository: &RepositoryName, used: Amount, more: Amount) -> Result<(), Error> {
        let limits = [
            (self.bytes, used.bytes, more.bytes, "bytes"),
            (self.manifests, used.manifests, more.manifests, "manifests"),
            (self.tags, used.tags, more.tags, "tags"),
        ];
        for (limit, used, more, what) in limits {
            if let Some(limit) = limit.filter(|limit| more > 0 && used.saturating_add(more) > *limit) {
                let pattern = self.pattern_of(repository).map_or("", Glob::as_str);
                return Err(refusal(pattern, (limit, used, more), what));
            }
        }
        Ok(())
    }

    /// Decides whether anything of unknown size may be added: only if a byte is left.
    ///
    /// # Errors
    /// As of [`require_room`](Self::require_room).
    pub fn require_any_room(&self, repository: &RepositoryName, used: Amount) -> Result<(), Error> {
        let byte = Amount {
            bytes: 1,
            ..Amount::NONE
        };
        self.require_room(repository, used, byte)
    }
}

fn refusal(pattern: &str, (limit, used, more): (u64, u64, u64), what: &str) -> Error {
    let (readable, hint) = if what == "bytes" {
        let readable = [limit, used, more].map(|bytes| format!(" ({})", readable(bytes)));
        (readable, " (a layer counts until the collector has removed it)")
    } else {
        ([const { String::new() }; 3], "")
    };
    let [limit_readable, used_readable, more_readable] = readable;
    let message = format!(
        "the quota for {pattern} is {limit} {what}{limit_readable}, of which {used}{used_readable} are used, and this \
         needs {more}{more_readable} more: delete what is not needed{hint} or ask for a larger quota"
    );
    Error::new(ErrorCode::Denied, message)
}

/// Writes a number of bytes as a person reads it.
fn readable(bytes: u64) -> String {
    let mut unit = "B";
    let (mut whole, mut rest) = (bytes, 0);
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        (rest, whole, unit) = (whole % 1024, whole / 1024, larger);
    }
    if unit == "B" {
        return format!("{bytes} B");
    }
    format!("{whole}.{} {unit}", rest * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;

    fn quota() -> Quota {
        Quota {
            repositories: vec!["other".parse().unwrap(), "team/**".parse().unwrap()],
            bytes: Some(53_687_091_200),
            manifests: Some(3),
            tags: Some(500),
        }
    }

    fn amount(bytes: u64, manifests: u64, tags: u64) -> Amount {
        Amount {
            bytes,
            manifests,
            tags,
        }
    }

    #[test]
    fn a_refusal_has_the_numbers_and_what_to_do() {
        let repository = "team/app".parse().unwrap();
        let refusal = |used, more| quota().require_room(&repository, used, more).unwrap_err();
        let bytes = refusal(amount(53_687_091_100, 0, 0), amount(209_715_200, 1, 1));
        assert_eq!(bytes.code(), ErrorCode::Denied);
        assert_eq!(
            bytes.message(),
            "the quota for team/** is 53687091200 bytes (50.0 GiB), of which 53687091100 (49.9 GiB) are used, and this needs \
             209715200 (200.0 MiB) more: delete what is not needed (a layer counts until the collector has removed it) or ask \
             for a larger quota"
        );
        let tags = refusal(amount(0, 0, 500), amount(0, 0, 1)).message().to_string();
        assert!(tags.starts_with(
            "the quota for team/** is 500 tags, of which 500 are used, and this needs 1 more: delete"
        ));
    }

    #[test]
    fn exactly_the_limit_fits_and_what_does_not_grow_is_not_limited() {
        let repository = "team/app".parse().unwrap();
        let quota = quota();
        let fits = |used, more| quota.require_room(&repository, used, more).is_ok();
        assert!(fits(amount(0, 2, 499), amount(53_687_091_200, 1, 1)));
        assert!(!fits(amount(1, 0, 0), amount(53_687_091_200, 0, 0)));
        assert!(!fits(amount(0, 3, 0), amount(0, 1, 0)));
        assert!(!fits(amount(0, 0, 500), amount(0, 0, 1)));
        // The limits were lowered.
        assert!(fits(amount(u64::MAX, 3, 499), amount(0, 0, 1)));
        assert!(!fits(amount(u64::MAX, 0, 0), amount(u64::MAX, 0, 0)));
        assert!(
            quota
                .require_any_room(&repository, amount(53_687_091_199, 9, 999))
                .is_ok()
        );
        assert!(
            quota
                .require_any_room(&repository, amount(53_687_091_200, 0, 0))
                .is_err()
        );
        assert!(
            Quota::default()
                .require_room(&repository, amount(9, 9, 9), amount(9, 9, 9))
                .is_ok()
        );
    }

    #[test]
    fn sizes_are_written_as_people_read_them() {
        let written = [0, 1023, 1024, 1535, 1 << 20, (1 << 40) * 3 / 2, 1 << 60].map(readable);
        assert_eq!(
            written,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.4 KiB",
                "1.0 MiB",
                "1.5 TiB",
                "1048576.0 TiB"
            ]
        );
    }
}
