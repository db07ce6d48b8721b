//! CPU time and memory of processes, from `/proc` (proc(5)).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub cpu: Duration,
    /// Peak resident memory, in bytes.
    pub peak_memory: u64,
}

/// Reads the cost of this process, without that of its children. Returns `None` if there is no
/// `/proc`.
pub fn own_cost() -> Option<Cost> {
    let own = std::process::id();
    cost(own, Stat::read(own)?.own_ticks)
}

/// Reads the cost of a process: the CPU time is that of all its descendants, too, those that have
/// ended included; the memory is its own. Returns `None` if there is no such process.
pub fn family_cost(pid: u32) -> Option<Cost> {
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
    cost(pid, ticks)
}

fn cost(pid: u32, ticks: u64) -> Option<Cost> {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Cost {
        cpu: Duration::from_millis(ticks * 1000 / ticks_per_second),
        peak_memory: peak_memory(&std::fs::read_to_string(file(pid, "status")).ok()?)?,
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
        // The program's name, in parentheses, may contain any character. After it, the parent is
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
}

fn file(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
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
    fn parses_the_files_of_a_process() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 5 0 0 0 150 75 20 5 20 0 4 0 100 1 1";
        let expected = Stat {
            parent: 7,
            own_ticks: 225,
            ended_ticks: 25,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("42 (a) S"), None);
        assert_eq!(
            peak_memory("Name:\ta) b\nVmHWM:\t    2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(peak_memory("Name:\ta\n"), None);
        assert!(own_cost().is_some() && family_cost(u32::MAX).is_none());
    }
}
