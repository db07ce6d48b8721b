//! Fault injection with `strace`, which makes system calls fail, or kills a program at one.

use std::process::Command;

/// A fault at a program's `when`-th call of one of `calls`, counted separately for each thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// System calls in the syntax of strace: `fsync,fdatasync`.
    pub calls: String,
    /// Effect on the program.
    pub effect: Effect,
    /// Calls affected, in the syntax of strace: `3`, `3+` (from the third on), `3..5`.
    pub when: String,
}

/// Effect of an injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// SIGKILL before the call has any effect.
    Kill,
    /// The call has no effect, and fails with this error, such as `EIO`.
    Error(&'static str),
}

impl Injection {
    /// Creates an injection of SIGKILL at the n-th call.
    pub fn kill(calls: &str, n: u32) -> Self {
        Self {
            calls: calls.to_owned(),
            effect: Effect::Kill,
            when: n.to_string(),
        }
    }

    /// Creates an injection that makes calls fail with `error`.
    pub fn error(calls: &str, error: &'static str, when: &str) -> Self {
        Self {
            calls: calls.to_owned(),
            effect: Effect::Error(error),
            when: when.to_owned(),
        }
    }

    /// The wrapper command for the program's own command line. The traced program has the process
    /// id of the started command, so that signals reach it: strace runs as a detached process.
    pub fn command(&self) -> Vec<String> {
        let effect = match self.effect {
            Effect::Kill => "signal=KILL".to_owned(),
            Effect::Error(error) => format!("error={error}"),
        };
        let inject = format!("inject={}:{effect}:when={}", self.calls, self.when);
        let trace = format!("trace={}", self.calls);
        [
            "strace",
            "-D",
            "-f",
            "-qqq",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
            "--",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// Checks whether programs can be traced, which containers may forbid.
///
/// # Errors
///
/// The reason, if they cannot.
pub fn allowed() -> Result<(), String> {
    let probe = Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "true"])
        .output();
    match probe {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("strace cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(injection: &Injection, script: &str) -> std::process::Output {
        let command = injection.command();
        let (program, arguments) = command.split_first().unwrap();
        Command::new(program)
            .args(arguments)
            .args(["sh", "-c", script])
            .output()
            .unwrap()
    }

    #[test]
    fn traced_programs_are_killed_at_the_call() {
        let output = run(
            &Injection::kill("chdir", 2),
            "cd /; echo one; cd /; echo two; cd /; echo three",
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one\n");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&output.status),
            Some(9)
        );
    }

    #[test]
    fn traced_programs_see_the_error() {
        let output = run(
            &Injection::error("chdir", "EIO", "2"),
            "for n in 1 2 3; do cd / 2>/dev/null && echo $n; done",
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n3\n");
    }
}
