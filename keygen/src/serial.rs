//! Serial numbers of certificates.

use ciphermq_crypto::RandomError;
use rand::TryRng as _;
use rand::rngs::SysRng;
use rcgen::SerialNumber;

use crate::error::Error;

/// Returns a random serial number of 20 bytes, the most that there may be, and positive (RFC 5280,
/// section 4.1.2.2): 158 of its bits are random.
pub(crate) fn random() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 20];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(RandomError::from)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_positive_of_full_length_and_differ() {
        let numbers: Vec<_> = (0..64).map(|_| random().unwrap().to_bytes()).collect();
        for (index, number) in numbers.iter().enumerate() {
            assert_eq!(number.len(), 20);
            assert!((0x40..0x80).contains(&number[0]), "{number:?}");
            assert!(!numbers[..index].contains(number));
        }
    }
}
