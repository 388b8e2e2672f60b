//! Measures the registry; see `README.md` in this folder. The front page's examples are compiled here too, because this
//! crate may depend on all the others.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
