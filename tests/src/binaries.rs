//! Where the built programs are.

use std::path::{Path, PathBuf};

/// The built program of this name, of the same target folder and profile as the running test.
///
/// # Panics
///
/// If it has not been built; the message says how to.
pub fn binary(name: &str) -> PathBuf {
    find(&profile_folder(), name).unwrap_or_else(|error| panic!("{error}"))
}

/// The folder beside the build that `scripts/test` puts programs into which the system lacks.
pub fn tools() -> PathBuf {
    let profile = profile_folder();
    profile
        .parent()
        .map_or(profile.join("tools/bin"), |target| target.join("tools/bin"))
}

/// `target/<profile>`: programs lie in it, tests in its `deps/`.
fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    own.ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .map(Path::to_path_buf)
        .unwrap_or_else(|| panic!("{} lies in no target folder", own.display()))
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
    fn a_built_binary_is_found_where_the_test_lies() {
        let own = std::env::current_exe().unwrap();
        let name = format!("deps/{}", own.file_name().unwrap().to_str().unwrap());
        assert_eq!(binary(&name), own);
    }
}
