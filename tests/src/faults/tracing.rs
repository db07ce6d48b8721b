//! `strace`, which lets system calls fail, or kills a program on its way into one.

use std::process::Command;

/// What happens to a program at its `when`-th call of one of `calls`. Every thread counts for
/// itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The system calls, as strace takes them: `fsync,fdatasync`.
    pub calls: String,
    /// What happens.
    pub effect: Effect,
    /// At which call, as strace takes it: `3`, `3+` (from then on), `3..5`.
    pub when: String,
}

/// What happens at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// SIGKILL before the call has done anything.
    Kill,
    /// The call does nothing, and fails with this error: `EIO`.
    Error(&'static str),
}

impl Injection {
    /// SIGKILL at the n-th call.
    pub fn kill(calls: &str, n: u32) -> Self {
        Self {
            calls: calls.to_owned(),
            effect: Effect::Kill,
            when: n.to_string(),
        }
    }

    /// These calls fail.
    pub fn error(calls: &str, error: &'static str, when: &str) -> Self {
        Self {
            calls: calls.to_owned(),
            effect: Effect::Error(error),
            when: when.to_owned(),
        }
    }

    /// The command that the program's own command line is to follow. The program has the process id
    /// of what is started, so that signals reach it: strace detaches itself.
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

/// Whether programs can be traced here. Containers may forbid it.
///
/// # Errors
///
/// Why not, in words.
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
