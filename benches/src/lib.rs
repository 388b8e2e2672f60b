//! Measures the registry; see `README.md` in this folder.
