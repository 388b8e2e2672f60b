//! Faults of the record store that only its inside can be made to have.
