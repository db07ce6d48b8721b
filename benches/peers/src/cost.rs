//! CPU time and memory of a process, from `/proc` (proc(5)).

use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub cpu: Duration,
    /// Peak resident memory, in bytes.
    pub peak_memory: u64,
}

/// Reads the cost of a process. Returns `None` if there is no such process, or no `/proc`.
pub fn cost(pid: u32) -> Option<Cost> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    parse(&stat, &status, rustix::param::clock_ticks_per_second())
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Cost> {
    // The program's name, in parentheses, may contain any character. After it, `utime` is the 12th
    // field, and `stime` the 13th.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Cost {
        cpu: Duration::from_millis(ticks * 1000 / ticks_per_second.max(1)),
        peak_memory: kibibytes * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_files_of_a_process() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 5 0 0 0 150 75 0 0 20 0 4 0 100 1 1";
        let expected = Cost {
            cpu: Duration::from_millis(2250),
            peak_memory: 2 << 20,
        };
        assert_eq!(
            parse(stat, "Name:\ta) b\nVmHWM:\t    2048 kB\n", 100),
            Some(expected)
        );
        assert_eq!(parse(stat, "Name:\ta\n", 100), None);
    }
}
