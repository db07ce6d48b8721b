//! The resources that the processes of a benchmark use, read from Linux (proc(5)).

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::exit::Failure;

/// The processes of a benchmark besides this one, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Processes {
    pub(super) server: Option<u32>,
    pub(super) database: Option<u32>,
}

/// The resources that each of the processes has used so far; `None` if they are unknown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usages {
    pub(super) server: Option<ResourceUsage>,
    pub(super) database: Option<ResourceUsage>,
    /// This process, without those that it has started.
    pub(super) client: Option<ResourceUsage>,
}

/// The resources that a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ResourceUsage {
    /// Of a server, that of its children, too.
    pub(super) cpu: Duration,
    /// Peak resident memory of the process itself, in bytes.
    pub(super) peak_memory: u64,
}

impl Processes {
    pub(super) fn usages(self) -> Usages {
        let own = std::process::id();
        Usages {
            server: self.server.and_then(family_usage),
            database: self.database.and_then(family_usage),
            client: Stat::read(own).and_then(|stat| stat.usage(own)),
        }
    }
}

impl Usages {
    /// What has been used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        let since = |before: Option<ResourceUsage>, now: Option<ResourceUsage>| {
            let (before, now) = (before?, now?);
            Some(ResourceUsage {
                cpu: now.cpu.saturating_sub(before.cpu),
                ..now
            })
        };
        Self {
            server: since(before.server, self.server),
            database: since(before.database, self.database),
            client: since(before.client, self.client),
        }
    }
}

/// Refuses a process whose usage cannot be read.
///
/// # Errors
///
/// [`Failure`] that names the option.
pub(super) fn check(pid: Option<u32>, option: &str) -> Result<(), Failure> {
    match pid {
        Some(pid) if family_usage(pid).is_none() => Err(Failure::usage(
            format!("There is no process {pid} on this machine whose times can be read."),
            format!("Name another process id, or leave {option} out."),
        )),
        _ => Ok(()),
    }
}

/// Reads the usage of a process and all its descendants, such as the backends of PostgreSQL. Those
/// that have ended count as well, as soon as their parents know.
fn family_usage(pid: u32) -> Option<ResourceUsage> {
    let mut children: HashMap<u32, Vec<(u32, Stat)>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some((number, stat)) = number.and_then(|pid| Some((pid, Stat::read(pid)?))) {
            children
                .entry(stat.parent)
                .or_default()
                .push((number, stat));
        }
    }
    let root = Stat::read(pid)?;
    let mut ticks = root.own_ticks + root.ended_ticks;
    let mut left = vec![pid];
    while let Some(parent) = left.pop() {
        for (child, stat) in children.remove(&parent).unwrap_or_default() {
            ticks += stat.own_ticks + stat.ended_ticks;
            left.push(child);
        }
    }
    let usage = root.usage(pid)?;
    Some(ResourceUsage {
        cpu: cpu(ticks),
        ..usage
    })
}

/// The fields of `/proc/PID/stat` that count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Those of its children that have ended.
    ended_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(file(pid, "stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The program's name, in parentheses, may contain any characters. After it, the parent is
        // the 2nd field, and `utime`, `stime`, `cutime` and `cstime` are those from the 12th on.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let parent = fields.nth(1)?.parse().ok()?;
        let mut ticks = fields.skip(9).map(|field| field.parse::<u64>().ok());
        let mut next = || ticks.next().flatten();
        Some(Self {
            parent,
            own_ticks: next()? + next()?,
            ended_ticks: next()? + next()?,
        })
    }

    /// The usage of the process alone.
    fn usage(self, pid: u32) -> Option<ResourceUsage> {
        let status = std::fs::read_to_string(file(pid, "status")).ok()?;
        Some(ResourceUsage {
            cpu: cpu(self.own_ticks),
            peak_memory: peak_memory(&status)?,
        })
    }
}

fn file(pid: u32, name: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

fn cpu(ticks: u64) -> Duration {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks * 1000 / ticks_per_second)
}

fn peak_memory(status: &str) -> Option<u64> {
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_parsed_from_proc() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 5 0 0 0 150 75 20 5 20 0 4 0 100 1 1";
        let expected = Stat {
            parent: 7,
            own_ticks: 225,
            ended_ticks: 25,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("42 (a) S"), None);
        let status = "Name:\ta) b\nVmPeak:\t  9999 kB\nVmHWM:\t    2048 kB\n";
        assert_eq!(peak_memory(status), Some(2 << 20));
        assert_eq!(peak_memory("Name:\ta\n"), None);
    }

    #[test]
    fn children_count_while_they_run_and_afterwards() {
        let script = "while :; do :; done & child=$!; read line; kill $child; wait; read line";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = shell.id();
        let stat = || Stat::read(pid).unwrap();
        let is_counted = || family_usage(pid).unwrap().cpu > cpu(stat().own_ticks + 5);
        let wait_until = |condition: &dyn Fn() -> bool| {
            let start = std::time::Instant::now();
            while !condition() {
                assert!(start.elapsed() < Duration::from_secs(60));
                std::thread::yield_now();
            }
        };
        wait_until(&is_counted);
        let mut input = shell.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        wait_until(&|| stat().ended_ticks > 0);
        assert!(is_counted());
        drop(input);
        shell.wait().unwrap();
    }

    #[test]
    fn this_process_uses_memory() {
        let usages = Processes::default().usages();
        assert!(usages.client.unwrap().peak_memory > 1 << 20);
        assert!(usages.server.is_none());
        assert!(check(Some(u32::MAX), "--server-pid").is_err());
        assert!(check(Some(std::process::id()), "--server-pid").is_ok());
    }
}
