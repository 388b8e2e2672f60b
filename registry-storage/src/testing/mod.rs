//! For tests: what any [`Storage`](registry_core::Storage) must do, as functions and as one macro.

pub mod storage_conformance;
