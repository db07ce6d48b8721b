use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Generates inputs by mutating seeds, deterministically for a given state of the random generator.
pub struct Mutator {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
}

/// Tokens that are significant to a parser of lines and JSON.
const DICTIONARY: [&[u8]; 24] = [
    b" ",
    b"  ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xae",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"null",
    b"1e999",
    b"-0",
    b"\"message_id\":\"x\",",
    b" for message ",
];

impl Mutator {
    /// Creates a mutator of `seeds`, whose random choices follow from `number`. Without seeds it
    /// mutates the empty input.
    pub fn new(number: u64, mut seeds: Vec<Vec<u8>>) -> Self {
        if seeds.is_empty() {
            seeds.push(Vec::new());
        }
        Self {
            random: StdRng::seed_from_u64(number),
            seeds,
        }
    }

    /// Generates the next input.
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        // Mostly small changes, because completely invalid input is refused at the first byte.
        for _ in 0..self.random.random_range(1..=4) {
            self.mutate(&mut input);
        }
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.random.random_range(0..self.seeds.len());
        self.seeds[index].clone()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let length = input.len();
        let at = self.random.random_range(0..=length);
        let end = (at + self.random.random_range(0..=16)).min(length);
        match self.random.random_range(0..9) {
            0 if at < length => input[at] ^= 1 << self.random.random_range(0..8),
            1 if at < length => input[at] = self.random.random(),
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let copy: Vec<u8> = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let other = self.seed();
                let from = self.random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let byte = self.random.random();
                let count = self.random.random_range(1..300);
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            7 if at < length => {
                let other = self.random.random_range(0..length);
                input.swap(at, other);
            }
            _ => {
                let word = DICTIONARY[self.random.random_range(0..DICTIONARY.len())];
                input.splice(at..at, word.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_determined_by_the_number() {
        let inputs = |number| {
            let mut mutator =
                Mutator::new(number, vec![b"declare_queue q".to_vec(), b"ping".to_vec()]);
            (0..50).map(|_| mutator.input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(1).iter().any(|input| input != b"ping"));
    }
}
