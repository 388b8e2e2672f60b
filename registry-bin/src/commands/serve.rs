//! t
pub(crate) fn run(_: &crate::cli::Serve) -> Result<(), crate::failure::Failure> {
    Ok(())
}
