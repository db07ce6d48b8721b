mod level;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{atomic::AtomicU64, atomic::Ordering},
};

use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::{ClientId, ExchangeName, MessageId, RoutingKey};
use parking_lot::Mutex;
use serde_json::Value;
use tracing::{debug, error, info, info_span, trace, warn};

use super::{spool::Failure, *};

const AT_EVERY_LEVEL: &str = "important";

/// 2025-09-08T07:03:00Z, and some milliseconds.
const NOW_MILLIS: u64 = 1_757_314_980_042;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Output for Screen {
    fn write(&mut self, _time: Duration, lines: &[u8]) -> Result<(), Failure> {
        self.0.lock().extend_from_slice(lines);
        Ok(())
    }

    fn write_lost(&mut self, _count: u64) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        String::from("the screen")
    }
}

struct Logs {
    folder: tempfile::TempDir,
    screen: Screen,
    config: Settings,
    clock: Arc<AtomicU64>,
    colour: bool,
}

impl Logs {
    fn new(level: tracing::Level) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("logs").join(name);
        let config = Settings {
            level,
            messages: true,
            info_file_path: path("info.log"),
            debug_file_path: path("debug.log"),
            error_file_path: path("error.log"),
            rotation: Rotation::Daily,
            max_size_bytes: Some(100 << 20),
            max_total_bytes: None,
            max_files: None,
        };
        let clock = Arc::new(AtomicU64::new(NOW_MILLIS));
        Self {
            folder,
            screen: Screen::default(),
            config,
            clock,
            colour: false,
        }
    }

    /// Runs `f` with these logs, and closes them.
    fn run(&self, f: impl FnOnce()) {
        self.run_with(|_| f());
    }

    fn run_with(&self, f: impl FnOnce(&MessageLog)) {
        self.run_with_handle(|handle| f(&handle.messages()));
    }

    fn run_with_handle(&self, f: impl FnOnce(&Handle)) {
        let clock = Arc::clone(&self.clock);
        let clock: Clock = Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed)));
        let console = Console {
            output: Box::new(self.screen.clone()),
            colour: self.colour,
        };
        let (subscriber, guard) =
            start(&self.config, None, AT_EVERY_LEVEL, console, clock).unwrap();
        tracing::subscriber::with_default(subscriber, || f(&guard.handle()));
        drop(guard);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        parsed(&self.path(name))
    }
}

fn parsed(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn levels(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect()
}

fn client(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn route() -> (ExchangeName, RoutingKey) {
    let exchange = ExchangeName::new("a\"b\\").unwrap();
    (exchange, RoutingKey::new("k").unwrap())
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).unwrap()
}

fn all_levels() {
    error!("e");
    warn!("w");
    info!("i");
    debug!("d");
    trace!("t");
}

#[test]
fn a_line_has_the_documented_form() {
    let logs = Logs::new(tracing::Level::INFO);
    logs.run(|| {
        info!(
            "Published message {} to queue '{}' via exchange '{}'",
            "m-1", "my_queue", "my_exchange"
        );
    });
    let text = fs::read_to_string(logs.path("info.log")).unwrap();
    assert_eq!(
        text,
        "{\"timestamp\":\"2025-09-08T07:03:00.042Z\",\"level\":\"INFO\",\"message\":\"Published \
         message m-1 to \
         queue 'my_queue' via exchange 'my_exchange'\"}\n"
    );
}

#[test]
fn each_file_has_its_own_levels() {
    let logs = Logs::new(tracing::Level::TRACE);
    logs.run(all_levels);
    assert_eq!(levels(&logs.lines("error.log")), ["ERROR", "WARN"]);
    assert_eq!(levels(&logs.lines("info.log")), ["INFO"]);
    assert_eq!(levels(&logs.lines("debug.log")), ["DEBUG", "TRACE"]);
    assert_eq!(logs.screen.text().lines().count(), 5);
}

#[test]
fn the_configured_level_filters_all_outputs() {
    for (level, counts) in [
        (tracing::Level::ERROR, [1, 0, 0]),
        (tracing::Level::WARN, [2, 0, 0]),
        (tracing::Level::INFO, [2, 1, 0]),
        (tracing::Level::DEBUG, [2, 1, 1]),
    ] {
        let logs = Logs::new(level);
        logs.run(all_levels);
        let found = ["error.log", "info.log", "debug.log"].map(|name| logs.lines(name).len());
        assert_eq!(found, counts, "{level}");
        assert_eq!(
            logs.screen.text().lines().count(),
            counts.iter().sum::<usize>(),
            "{level}"
        );
    }
}

#[test]
fn warnings_of_the_configuration_are_written_at_every_level() {
    for level in [tracing::Level::ERROR, tracing::Level::INFO] {
        let logs = Logs::new(level);
        logs.run(|| {
            warn!(target: AT_EVERY_LEVEL, "no effect");
            trace!(target: AT_EVERY_LEVEL, "chatter");
        });
        assert_eq!(logs.lines("error.log")[0]["message"], "no effect");
        assert!(logs.screen.text().contains("no effect"));
        assert!(logs.lines("debug.log").is_empty(), "{level}");
    }
}

#[test]
fn libraries_log_only_warnings_and_errors() {
    let logs = Logs::new(tracing::Level::DEBUG);
    logs.run(|| {
        info!(target: "sqlx::query", "chatter");
        warn!(target: "sqlx::query", "slow");
    });
    assert!(logs.lines("info.log").is_empty());
    assert_eq!(logs.lines("error.log")[0]["target"], "sqlx::query");
}

#[test]
fn fields_follow_the_message_with_their_types() {
    let logs = Logs::new(tracing::Level::INFO);
    let failed = io::Error::other(Outer(Inner));
    logs.run(|| {
        let error: &(dyn std::error::Error + 'static) = &failed;
        info!(
            count = 3_u64,
            below = -2,
            ratio = 0.5,
            none = f64::NAN,
            on = true,
            name = "n",
            big = u128::MAX,
            error
        );
        info!(
            level = "mine",
            timestamp = 1,
            target = "t",
            "reserved names"
        );
    });
    let lines = logs.lines("info.log");
    assert_eq!(lines[0]["count"], 3);
    assert_eq!(lines[0]["below"], -2);
    assert_eq!(lines[0]["ratio"], 0.5);
    assert_eq!(lines[0]["none"], "NaN");
    assert_eq!(lines[0]["on"], true);
    assert_eq!(lines[0]["name"], "n");
    assert_eq!(lines[0]["big"], u128::MAX.to_string());
    assert_eq!(lines[0]["error"], "outer: inner");
    assert_eq!(lines[0]["message"], "");
    assert_eq!(
        (&lines[1]["level"], &lines[1]["level_"]),
        (&Value::from("INFO"), &Value::from("mine"))
    );
    assert_eq!(
        (&lines[1]["timestamp_"], &lines[1]["target_"]),
        (&Value::from(1), &Value::from("t"))
    );
}

#[derive(Debug)]
struct Inner;
#[derive(Debug)]
struct Outer(Inner);

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inner")
    }
}

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl std::error::Error for Inner {}
impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn span_fields_are_in_the_lines_within() {
    let logs = Logs::new(tracing::Level::INFO);
    logs.run(|| {
        let outer = info_span!("connection", client = "outer", peer = tracing::field::Empty);
        outer.record("peer", "127.0.0.1:1");
        outer.in_scope(|| {
            info!("inside");
            info!(client = "own", "inside with a field of that name");
        });
        info!("outside");
    });
    let lines = logs.lines("info.log");
    assert_eq!(
        (&lines[0]["client"], &lines[0]["peer"]),
        (&Value::from("outer"), &Value::from("127.0.0.1:1"))
    );
    assert_eq!(lines[1]["client"], "own");
    assert_eq!(lines[2].get("client"), None);
}

#[test]
fn client_input_cannot_break_lines_or_control_terminals() {
    let logs = Logs::new(tracing::Level::INFO);
    let evil =
        "a\nb\r\n{\"level\":\"ERROR\"}\x1b[2J\x07\x00\x7f\u{85}\u{9b}31m\u{2028}\u{202e}\"\\\tz";
    logs.run(|| info!(queue = evil, shown = %evil, "{evil}"));
    let text = fs::read_to_string(logs.path("info.log")).unwrap();
    let readable = logs.screen.text();
    for (shown, name) in [(&text, "file"), (&readable, "console")] {
        assert_eq!(shown.matches('\n').count(), 1, "{name}");
        let raw = shown
            .trim_end_matches('\n')
            .chars()
            .find(|c| c.is_control() || "\u{2028}\u{202e}".contains(*c));
        assert_eq!(raw, None, "{name}");
    }
    let line = &logs.lines("info.log")[0];
    for field in ["message", "queue", "shown"] {
        assert_eq!(line[field], evil, "{field}");
    }
}

#[test]
fn a_value_as_long_as_a_message_is_cut() {
    let logs = Logs::new(tracing::Level::INFO);
    let long = "\u{fc}".repeat(1 << 20);
    logs.run(|| info!(long, "{long}"));
    let line = &logs.lines("info.log")[0];
    for field in ["message", "long"] {
        let value = line[field].as_str().unwrap();
        assert!(
            value.len() < 9_000 && value.starts_with('\u{fc}'),
            "{field}"
        );
        assert!(
            value.ends_with("... (2088960 bytes more)"),
            "{}",
            &value[value.len() - 40..]
        );
    }
}

#[test]
fn a_value_may_log_while_it_is_formatted() {
    struct Chatty;
    impl fmt::Display for Chatty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            info!("inner");
            f.write_str("chatty")
        }
    }
    let logs = Logs::new(tracing::Level::INFO);
    logs.run(|| info!("{Chatty}"));
    // Whether the inner one is let through is up to tracing; the outer one must be whole.
    let lines = logs.lines("info.log");
    assert_eq!(lines.last().unwrap()["message"], "chatty");
}

#[test]
fn the_console_is_readable_and_coloured_only_if_wanted() {
    let mut logs = Logs::new(tracing::Level::DEBUG);
    logs.run(|| {
        info!(
            address = "127.0.0.1:5672",
            empty = "",
            words = "two words",
            "Listening"
        );
        debug!("detail");
    });
    assert_eq!(
        logs.screen.text(),
        "2025-09-08T07:03:00.042Z  INFO Listening address=127.0.0.1:5672 empty=\"\" words=\"two \
         words\"\n\
         2025-09-08T07:03:00.042Z DEBUG detail (ciphermq_logging::tests)\n"
    );
    logs.colour = true;
    logs.run(|| error!("red"));
    assert!(logs.screen.text().contains("\x1b[31mERROR\x1b[0m red"));
}

#[test]
fn message_lines_go_only_to_the_info_file() {
    let logs = Logs::new(tracing::Level::INFO);
    logs.run_with(|messages| {
        messages.write(|lines| {
            let (exchange, key) = route();
            lines.published(&[&id("m-1")], &["my_queue"], &exchange, &key);
            lines.acknowledged(&[&id("m-1")], &client("c"));
        });
        info!("Listening");
    });
    let text = fs::read_to_string(logs.path("info.log")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let start = "{\"timestamp\":\"2025-09-08T07:03:00.042Z\",\"level\":\"INFO\",\"message\":\"";
    let message = |text: &str| format!("{start}{text}\"}}");
    assert_eq!(
        lines,
        [
            message(r#"Published message m-1 to queue 'my_queue' via exchange 'a\"b\\'"#),
            message("Message m-1 acknowledged by client, removed from queues and status"),
            message("Listening"),
        ]
    );
    assert_eq!(
        logs.screen.text(),
        "2025-09-08T07:03:00.042Z  INFO Listening\n"
    );
}

#[test]
fn message_lines_can_be_disabled() {
    let write = |messages: &MessageLog| {
        messages.write(|lines| lines.acknowledged(&[&id("m-1")], &client("c")));
    };
    let mut logs = Logs::new(tracing::Level::WARN);
    logs.run_with(write);
    logs.config.level = tracing::Level::INFO;
    logs.config.messages = false;
    logs.run_with(write);
    assert_eq!(logs.lines("info.log"), [] as [Value; 0]);
    logs.config.messages = true;
    logs.run_with(write);
    assert_eq!(logs.lines("info.log").len(), 1);
}

#[test]
fn messages_of_a_route_are_one_line() {
    let stream = StreamId::new(1_757_314_980_042, 7);
    let native = |position| stream.message_id(position).unwrap();
    let mut ids: Vec<MessageId> = (5..105).map(native).collect();
    ids.extend([id("other"), native(200)]);
    let logs = Logs::new(tracing::Level::INFO);
    logs.run_with(|messages| {
        messages.write(|lines| {
            let ids: Vec<&MessageId> = ids.iter().collect();
            let (exchange, key) = route();
            let queues: Vec<String> = (0..10).map(|n| format!("q{n}")).collect();
            let queues: Vec<&str> = queues.iter().map(String::as_str).collect();
            lines.published(&ids, &queues, &exchange, &key);
            lines.published(&ids[..1], &queues[..2], &exchange, &key);
            lines.acknowledged(&ids[..100], &client("c"));
        });
    });
    let lines = logs.lines("info.log");
    let run = format!("{} to {}", native(5), native(104));
    let message = |line: &Value| line["message"].as_str().unwrap().to_owned();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        message(&lines[0]),
        "Published 102 messages to 10 queues ('q0', 'q1', 'q2', 'q3', 'q4', 'q5', 'q6', 'q7' and \
         2 more) via exchange 'a\"b\\'"
    );
    assert_eq!(lines[0]["routing_key"], "k");
    let listed = serde_json::json!([run, "other", native(200).as_str()]);
    assert_eq!(lines[0]["message_ids"], listed);
    assert_eq!(
        message(&lines[1]),
        format!(
            "Published message {} to 2 queues ('q0', 'q1') via exchange 'a\"b\\'",
            native(5)
        )
    );
    assert_eq!(
        message(&lines[2]),
        "100 messages acknowledged by client, removed from queues and status"
    );
    assert_eq!(lines[2]["message_ids"], serde_json::json!([run]));
    assert_eq!(lines[2]["client_id"], "c");
}

#[test]
fn every_id_of_a_commit_of_any_size_is_logged() {
    let logs = Logs::new(tracing::Level::INFO);
    let ids: Vec<MessageId> = (0..50_000).map(|n| id(&format!("m-{n}"))).collect();
    logs.run_with(|messages| {
        messages.write(|lines| {
            let ids: Vec<&MessageId> = ids.iter().collect();
            lines.acknowledged(&ids, &client("c"));
        });
    });
    let lines = logs.lines("info.log");
    let listed: Vec<&str> = lines
        .iter()
        .flat_map(|line| line["message_ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap())
        .collect();
    assert!(listed.iter().copied().eq(ids.iter().map(MessageId::as_str)));
    // No line is long.
    assert_eq!(lines.len(), 50_000_usize.div_ceil(256));
}

#[test]
fn midnight_and_size_rotate_without_losing_lines() {
    let mut logs = Logs::new(tracing::Level::INFO);
    logs.config.max_size_bytes = Some(2_000);
    logs.run(|| {
        for index in 0..200 {
            if index == 100 {
                logs.clock.fetch_add(86_400_000, Ordering::Relaxed);
            }
            info!(index, "line");
        }
    });
    let mut seen = Vec::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(logs.folder.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("info.log") {
            assert!(fs::metadata(&path).unwrap().len() <= 2_000, "{name}");
            let day = if name.contains("2025-09-08") {
                "2025-09-08"
            } else {
                "2025-09-09"
            };
            for line in parsed(&path) {
                assert!(
                    line["timestamp"].as_str().unwrap().starts_with(day),
                    "{name}: {line}"
                );
                seen.push(line["index"].as_u64().unwrap());
            }
            names.push(name);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    for wanted in [
        "info.log",
        "info.log.2025-09-08",
        "info.log.2025-09-08.1",
        "info.log.2025-09-09",
    ] {
        assert!(
            names.iter().any(|name| name == wanted),
            "{wanted} in {names:?}"
        );
    }
}

#[test]
fn threads_write_whole_lines_and_the_guard_waits_for_all() {
    let logs = Logs::new(tracing::Level::INFO);
    logs.run(|| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        for index in 0..5_000 {
                            info!(thread, index, "line");
                        }
                    });
                });
            }
        });
    });
    let lines = logs.lines("info.log");
    assert_eq!(lines.len(), 20_000);
    for thread in 0..4 {
        let order: Vec<u64> = lines
            .iter()
            .filter(|line| line["thread"] == thread)
            .map(|line| line["index"].as_u64().unwrap())
            .collect();
        assert_eq!(
            order,
            (0..5_000).collect::<Vec<_>>(),
            "each thread's lines stand in their order"
        );
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_stops_neither_the_server_nor_the_other_files() {
    let mut logs = Logs::new(tracing::Level::INFO);
    fs::write(logs.folder.path().join("in-the-way"), "").unwrap();
    logs.config.info_file_path = logs.folder.path().join("in-the-way/info.log");
    logs.run(all_levels);
    assert_eq!(levels(&logs.lines("error.log")), ["ERROR", "WARN"]);
    assert_eq!(logs.screen.text().lines().count(), 3);
}

#[test]
fn a_restart_appends() {
    let mut logs = Logs::new(tracing::Level::INFO);
    // The file is of today, by the file system's clock, and the lines are of 2025.
    logs.config.rotation = Rotation::Never;
    logs.run(|| info!("one"));
    logs.run(|| info!("two"));
    assert_eq!(logs.lines("info.log").len(), 2);
}
