//! Paths of the built programs.

use std::path::{Path, PathBuf};

/// The path of the built program `name`, in the target folder and profile of the running test.
///
/// # Panics
///
/// If it has not been built. The message names the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    find(&profile_folder(), name).unwrap_or_else(|error| panic!("{error}"))
}

/// The folder into which `scripts/test` installs programs that the system lacks.
pub fn tools() -> PathBuf {
    let profile = profile_folder();
    profile
        .parent()
        .map_or(profile.join("tools/bin"), |target| target.join("tools/bin"))
}

/// `target/<profile>`, which contains the programs, and the tests in its `deps/`.
fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    own.ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .map(Path::to_path_buf)
        .unwrap_or_else(|| panic!("{} is not in a target folder", own.display()))
}

fn find(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let release = if folder.ends_with("release") {
        " --release"
    } else {
        ""
    };
    Err(format!(
        "{} has not been built.\nBuild it with: cargo build --workspace --bins \
         --locked{release}\n(scripts/test does that before it runs the tests.)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_names_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let debug = find(&folder.path().join("debug"), "ciphermq-server").unwrap_err();
        assert!(debug.contains("debug/ciphermq-server"), "{debug}");
        assert!(
            debug.contains("cargo build --workspace --bins --locked\n"),
            "{debug}"
        );
        let release = find(&folder.path().join("release"), "ciphermq-server").unwrap_err();
        assert!(
            release.contains("cargo build --workspace --bins --locked --release"),
            "{release}"
        );
    }

    #[test]
    fn a_built_binary_is_found_in_the_folder_of_the_test() {
        let own = std::env::current_exe().unwrap();
        let name = format!("deps/{}", own.file_name().unwrap().to_str().unwrap());
        assert_eq!(binary(&name), own);
    }
}
