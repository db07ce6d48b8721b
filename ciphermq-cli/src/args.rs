//! The command line as a whole: the flags of every command, and the exit codes.
//!
//! Each command's own arguments are defined in the command's module.

use clap::{ArgAction, Parser};

use crate::commands::Command;
use crate::console::Verbosity;
use crate::exit;

/// The end of `--help`: the exit codes, and where output goes.
fn after_help() -> String {
    let codes = exit::CODES.map(|(codes, meaning)| format!("  {codes:<3}  {meaning}\n"));
    format!(
        "Exit codes:\n{}\nData goes to standard output, everything else to standard error.",
        codes.concat()
    )
}

/// CipherMQ: end-to-end encrypted messages through a broker that cannot read them
#[derive(Debug, Parser)]
#[command(name = "ciphermq-cli", version, after_help = after_help(), propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// Show more: -v a line or more per message, -vv the messages themselves and the SDK's log
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 900)]
    verbose: u8,
    /// Show errors and warnings only
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 901
    )]
    quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The verbosity of the flags.
    pub(crate) fn verbosity(&self) -> Verbosity {
        Verbosity::of(self.quiet, self.verbose)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn every_documented_command_is_accepted() {
        for line in [
            "ciphermq-cli send --to receiver_1",
            "ciphermq-cli send --to receiver_1 --exchange e --routing-key k --file f --batch-size \
             10 -v",
            "ciphermq-cli send --to receiver_1 --message a --message b",
            "ciphermq-cli receive",
            "ciphermq-cli receive --queue q --exchange e --routing-key k --output - --count 3 \
             --idle-exit 2.5",
            "ciphermq-cli -q receive --private-key a --private-key b",
            "ciphermq-cli bench --messages 10 --size 100 --window 1 --batch 2 --senders 2 \
             --receivers 2 --json",
            "ciphermq-cli bench --spawn sqlite --mode drain --backlog 10 --idle-queues 2 \
             --idle-connections 2",
            "ciphermq-cli bench --spawn postgres://u@h/d --rate 100.5 --post-quantum \
             --no-log-messages",
            "ciphermq-cli bench --server localhost:5672 --server-pid 1 --mode publish",
            "ciphermq-cli demo",
            "ciphermq-cli demo --file f --out d",
            "ciphermq-cli keygen --out certs",
            "ciphermq-cli keygen authority --out issuing --under root --days 100",
            "ciphermq-cli keygen csr --server-name localhost --server-name 127.0.0.1",
            "ciphermq-cli keygen sign a.csr --client a --out issuing --hours 24",
            "ciphermq-cli keygen renew sender_1 --ca issuing --due --new-key",
            "ciphermq-cli keygen revoke sender_1 --reason superseded",
            "ciphermq-cli keygen crl --list-days 7",
            "ciphermq-cli certs --out certs --server-name localhost --client sender_1 --client \
             receiver_1",
            "ciphermq-cli register-key",
            "ciphermq-cli get-key receiver_1 --save",
            "ciphermq-cli verify-key receiver_1",
            "ciphermq-cli keys",
            "ciphermq-cli send --to receiver_1 --message m --allow-unsigned-keys --suite LEGACY-A",
            "ciphermq-cli send --to receiver_1 --message m --allow-unsigned-keys --suite LEGACY-0",
            "ciphermq-cli fetch --queue q --ack",
            "ciphermq-cli ack a b c",
            "ciphermq-cli resend a",
            "ciphermq-cli rejected",
            "ciphermq-cli can-i publish --exchange e --routing-key k --to r",
            "ciphermq-cli can-i consume --queue q --json",
            "ciphermq-cli can-i register_key",
            "ciphermq-cli status --server localhost:5672 --ca a --cert b --key c --config d",
            "ciphermq-cli queues list --columns queue,messages",
            "ciphermq-cli queues show q --json --server localhost:5672",
            "ciphermq-cli queues declare q",
            "ciphermq-cli queues purge q --yes",
            "ciphermq-cli queues delete q --if-empty --if-unused --yes",
            "ciphermq-cli exchanges list --json",
            "ciphermq-cli exchanges show e",
            "ciphermq-cli exchanges declare e",
            "ciphermq-cli exchanges delete e --if-unused --yes",
            "ciphermq-cli bindings list --queue q --exchange e --columns made_by",
            "ciphermq-cli bindings bind q e k",
            "ciphermq-cli bindings unbind q e k --yes",
            "ciphermq-cli status --json",
            "ciphermq-cli completions bash",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for line in [
            "ciphermq-cli",
            "ciphermq-cli send",
            "ciphermq-cli send --to",
            "ciphermq-cli send --to a --file f --message m",
            "ciphermq-cli send --to a --batch-size 0",
            "ciphermq-cli send --to a --checkpoint x --message y",
            "ciphermq-cli send --to a --again --message y",
            "ciphermq-cli send --to a --server-moved --message y",
            "ciphermq-cli send --to a --allow-unsigned-keys",
            "ciphermq-cli send --to a --suite LEGACY-A",
            "ciphermq-cli send --to a --allow-unsigned-keys --suite XWING-AES256GCM",
            "ciphermq-cli send --to a --allow-unsigned-keys --suite LEGACY-D",
            "ciphermq-cli send --to a\u{a0}b",
            "ciphermq-cli receive --count 0",
            "ciphermq-cli bench --spawn mysql",
            "ciphermq-cli bench --spawn sqlite --server localhost:5672",
            "ciphermq-cli bench --backlog 10",
            "ciphermq-cli bench --size 23",
            "ciphermq-cli bench --window 0",
            "ciphermq-cli bench --rate 0",
            "ciphermq-cli receive --idle-exit 0",
            "ciphermq-cli receive --queue ",
            "ciphermq-cli ack",
            "ciphermq-cli can-i",
            "ciphermq-cli can-i send",
            "ciphermq-cli can-i consume --queue ",
            "ciphermq-cli keygen csr",
            "ciphermq-cli keygen csr --client a --server-name b",
            "ciphermq-cli keygen sign a.csr --client a --server-name b",
            "ciphermq-cli keygen renew a --signed b --ca c",
            "ciphermq-cli status --retries 0",
            "ciphermq-cli queues",
            "ciphermq-cli queues list --columns queue,size",
            "ciphermq-cli queues list --columns queue --json",
            "ciphermq-cli exchanges delete e --if-empty",
            "ciphermq-cli bindings bind q e",
            "ciphermq-cli -q -v status",
            "ciphermq-cli completions tcsh",
            "ciphermq-cli sned",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn files_that_are_written_are_not_named_as_folders() {
        let options = [
            "receive --output",
            "receive --checkpoint",
            "receive --quarantine",
            "send --to r --file f --checkpoint",
        ];
        for option in options {
            for (path, is_file) in [
                ("", false),
                ("new/", false),
                ("new/.", false),
                ("new/..", false),
                ("/", false),
                ("new/file", true),
                ("new/.hidden", true),
                ("-", true),
            ] {
                let line = format!("ciphermq-cli {option} {path}");
                assert_eq!(parse(&line).is_ok(), is_file, "{line}");
            }
        }
    }

    #[test]
    fn verbosity_flags_are_accepted_before_and_after_the_command() {
        assert_eq!(
            parse("ciphermq-cli -v status").unwrap().verbosity(),
            Verbosity::Messages
        );
        assert_eq!(
            parse("ciphermq-cli status -vv").unwrap().verbosity(),
            Verbosity::Payloads
        );
        assert_eq!(
            parse("ciphermq-cli status -q").unwrap().verbosity(),
            Verbosity::Quiet
        );
    }
}
