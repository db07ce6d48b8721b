//! The fuzz targets of `fuzz/` on the stable toolchain, run with their seeds and with random
//! mutations of them.
//!
//! `CIPHERMQ_FUZZ_SECONDS` sets the time for each target (by default 10), `CIPHERMQ_FUZZ_NUMBER`
//! the seed of the random number generator; a failure prints that number and the input, which
//! should then be added to `fuzz/seeds/<target>/`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ciphermq_tests::fuzz::{Mutator, TARGETS, Target};

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")),
    )
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "seeds", name]
        .iter()
        .collect();
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

fn check(target: Target, input: &[u8], what: impl FnOnce() -> String) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!(
            "{}: the input is {:?}",
            what(),
            String::from_utf8_lossy(input)
        );
    }
}

fn run(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(target, _)| *target == name)
        .unwrap();
    let seeds = seeds(name);
    assert!(seeds.len() >= 3, "{name} has too few seeds");
    for (path, seed) in &seeds {
        check(target, seed, || path.display().to_string());
    }
    let number = variable("CIPHERMQ_FUZZ_NUMBER").unwrap_or_else(rand::random);
    println!("CIPHERMQ_FUZZ_NUMBER={number}");
    let mut mutator = Mutator::new(number, seeds.into_iter().map(|(_, seed)| seed).collect());
    let time = Duration::from_secs(variable("CIPHERMQ_FUZZ_SECONDS").unwrap_or(10));
    let (start, mut inputs) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        let input = mutator.input();
        check(target, &input, || {
            format!("CIPHERMQ_FUZZ_NUMBER={number}, input {inputs} of {name}")
        });
        inputs += 1;
    }
    println!("{inputs} inputs");
}

#[test]
fn line() {
    run("line");
}

#[test]
fn command() {
    run("command");
}

#[test]
fn binary() {
    run("binary");
}

#[test]
fn reply() {
    run("reply");
}

#[test]
fn envelope() {
    run("envelope");
}

#[test]
fn signed_key() {
    run("signed_key");
}

#[test]
fn revocation_list() {
    run("revocation_list");
}

#[test]
fn key_file() {
    run("key_file");
}

/// Every new target must be added here and in `fuzz/`.
#[test]
fn every_target_is_run_and_has_a_program() {
    for (name, _) in TARGETS {
        let program = format!(
            "{}/../fuzz/fuzz_targets/{name}.rs",
            env!("CARGO_MANIFEST_DIR")
        );
        let text =
            std::fs::read_to_string(&program).unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(text.contains(&format!("fuzz::{name}(data)")), "{program}");
        assert!(
            include_str!("fuzz_targets.rs").contains(&format!("run(\"{name}\");")),
            "{name}"
        );
    }
}
