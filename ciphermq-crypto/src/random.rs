//! Randomness from the operating system, which alone knows when a machine was copied or restored.

use rand::rngs::{StdRng, SysRng};
use rand::{SeedableRng, TryRng};

use crate::error::RandomError;

/// Fills `out` with fresh bytes.
pub(crate) fn fill(out: &mut [u8]) -> Result<(), RandomError> {
    Ok(SysRng.try_fill_bytes(out)?)
}

/// A generator for what cannot handle an error: it is seeded now, and never fails. For a single
/// use.
pub(crate) fn generator() -> Result<StdRng, RandomError> {
    Ok(StdRng::try_from_rng(&mut SysRng)?)
}
