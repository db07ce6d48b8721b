//! The memory of one connection's lines: of the unfinished one, and of those not answered yet.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::messages_at_most;
use tokio::sync::Semaphore;

use super::transfers::{TooSlow, Transfer};
use super::{Memory, Permit, take_own};
use crate::shared_budget::{ClientBudget, Taken};

/// The bytes that a connection has of its own for its unfinished line, and again for those that are
/// not answered yet.
pub(in crate::connection) const FREE_BYTES: usize = 64 * 1024;
/// How long a connection waits for memory for a long line.
const WAIT: Duration = Duration::from_secs(10);
/// The memory of a command until it is answered, apart from its line.
const COMMAND_BYTES: usize = 256;
/// The memory of each of its messages until they are answered, apart from the line.
const MESSAGE_BYTES: usize = 512;

/// The error about memory for a line that was not free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) struct Exhausted;

/// The memory of a line until it is answered: of its text, and of its messages.
#[derive(Debug)]
pub(in crate::connection) struct LinePermit {
    _text: Option<Taken>,
    _messages: Permit,
}

/// What the lines of one connection take.
#[derive(Debug)]
pub(in crate::connection) struct ConnectionLines {
    memory: Arc<Memory>,
    lines: ClientBudget,
    messages: ClientBudget,
    /// The memory for the unfinished line, and its progress.
    unfinished: Option<(Taken, Transfer)>,
    /// The connection's own memory for lines that are not answered yet.
    own: Arc<Semaphore>,
}

impl ConnectionLines {
    pub(super) fn new(memory: Arc<Memory>, lines: ClientBudget, messages: ClientBudget) -> Self {
        Self {
            memory,
            lines,
            messages,
            unfinished: None,
            own: Arc::new(Semaphore::new(FREE_BYTES)),
        }
    }

    /// Takes the memory for an unfinished line of `bytes` so far: that of the longest line, once it
    /// is long itself.
    pub(in crate::connection) async fn reserve_for_buffer(
        &mut self,
        bytes: usize,
    ) -> Result<(), Exhausted> {
        if bytes <= FREE_BYTES {
            self.unfinished = None;
        } else if let Some((_, transfer)) = &self.unfinished {
            transfer.holds(bytes);
        } else {
            let taken = self.take(&self.lines, self.memory.max_line_bytes).await?;
            let transfer = self.memory.arriving.begin(self.lines.clone(), bytes);
            self.unfinished = Some((taken, transfer));
        }
        Ok(())
    }

    /// Takes the memory that a finished line has until it is answered.
    ///
    /// A line that is not long waits only for the connection's own lines, if others take the whole
    /// budget.
    pub(in crate::connection) async fn reserve_for_answer(
        &mut self,
        line: &[u8],
    ) -> Result<LinePermit, Exhausted> {
        let bytes = COMMAND_BYTES + messages_at_most(line) * MESSAGE_BYTES;
        let unfinished = self.unfinished.take();
        if line.len() > FREE_BYTES {
            let mut text = match unfinished {
                Some((taken, _)) => taken,
                None => self.take(&self.lines, line.len()).await?,
            };
            text.reduce_to(line.len());
            let messages = self.take(&self.messages, bytes).await?;
            return Ok(LinePermit {
                _text: Some(text),
                _messages: Permit::Shared(messages),
            });
        }
        let bytes = bytes + line.len();
        let permit = tokio::select! {
            biased;
            own = take_own(&self.own, FREE_BYTES, bytes) => own,
            shared = self.messages.take(bytes) => shared.map(Permit::Shared),
        };
        Ok(LinePermit {
            _text: None,
            _messages: permit.ok_or(Exhausted)?,
        })
    }

    /// Returns once the unfinished line has to be given up. It is cancel safe.
    pub(in crate::connection) async fn is_too_slow(&self) -> TooSlow {
        match &self.unfinished {
            Some((_, transfer)) => transfer.is_too_slow().await,
            None => std::future::pending().await,
        }
    }

    async fn take(&self, budget: &ClientBudget, bytes: usize) -> Result<Taken, Exhausted> {
        let taken = self.memory.take_for_lines(budget, bytes);
        let taken = tokio::time::timeout(WAIT, taken).await;
        taken.ok().flatten().ok_or(Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::ClientId;

    use super::*;
    use crate::config::Limits;

    const KIB: usize = 1024;

    fn memory(lines: usize, longest: usize) -> Arc<Memory> {
        Memory::new(&Limits {
            max_buffered_bytes: lines,
            max_line_bytes: longest,
            min_line_rate: 0,
            ..Limits::default()
        })
    }

    fn lines(memory: &Arc<Memory>, client: &str) -> ConnectionLines {
        memory.lines(&ClientId::new(client).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_waits_for_memory_and_then_gives_up() {
        let memory = memory(40 * KIB, 30 * KIB);
        let [mut one, mut other] = ["a", "b"].map(|client| lines(&memory, client));
        one.reserve_for_buffer(FREE_BYTES).await.unwrap();
        assert_eq!(memory.lines.used(), 0);
        one.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
        assert_eq!(memory.lines.used(), 30 * KIB);
        // The other one's line is not being read at the moment, so it is not too slow.
        let wanted = FREE_BYTES + 1;
        assert_eq!(other.reserve_for_buffer(wanted).await, Err(Exhausted));
        one.reserve_for_buffer(10).await.unwrap();
        other.reserve_for_buffer(wanted).await.unwrap();
        drop(other);
        assert_eq!(memory.lines.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_are_not_long_do_not_wait_for_other_connections() {
        let memory = memory(400 * KIB, 300 * KIB);
        let (mut greedy, mut modest) = (lines(&memory, "greedy"), lines(&memory, "modest"));
        greedy.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
        let _all = memory
            .messages
            .of(&ClientId::new("x").unwrap())
            .try_take(50 * KIB);
        let _rest = memory
            .messages
            .of(&ClientId::new("y").unwrap())
            .try_take(50 * KIB);
        let line = vec![b'x'; FREE_BYTES];
        let first = modest.reserve_for_answer(&line).await.unwrap();
        // The next one waits for the first one's answer, however long that takes.
        let second = modest.reserve_for_answer(&line);
        assert!(tokio::time::timeout(WAIT * 10, second).await.is_err());
        drop(first);
        modest.reserve_for_answer(&line).await.unwrap();
        let long = modest.reserve_for_answer(&[b'x'; FREE_BYTES + 1]).await;
        assert_eq!(long.unwrap_err(), Exhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_one_part_for_all_its_connections() {
        let memory = memory(160 * KIB, 10 * KIB);
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut line = lines(&memory, "greedy");
            line.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
            held.push(line);
        }
        let mut further = lines(&memory, "greedy");
        let refused = further.reserve_for_buffer(FREE_BYTES + 1).await;
        assert_eq!(refused, Err(Exhausted));
        let mut other = lines(&memory, "other");
        other.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
    }

    #[tokio::test]
    async fn many_small_messages_take_more_than_their_line() {
        let memory = memory(100 << 20, 16 << 20);
        let line = format!(
            "publish_batch e k [{}]",
            r#"{"message_id":"m"},"#.repeat(10_000)
        );
        let mut lines = lines(&memory, "a");
        lines.reserve_for_buffer(line.len() - 1).await.unwrap();
        assert_eq!(memory.lines.used(), 16 << 20);
        let permit = lines.reserve_for_answer(line.as_bytes()).await.unwrap();
        assert_eq!(memory.lines.used(), line.len());
        let messages = COMMAND_BYTES + 10_000 * MESSAGE_BYTES;
        assert_eq!(memory.messages.used(), messages);
        drop(permit);
        assert_eq!((memory.lines.used(), memory.messages.used()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_gives_way_to_another_one() {
        let memory = memory(200 * KIB, 200 * KIB);
        let mut slow = lines(&memory, "slow");
        slow.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
        let ended = async move {
            let reason = slow.is_too_slow().await;
            drop(slow);
            reason
        };
        let mut other = lines(&memory, "other");
        let (reason, reserved) = tokio::join!(ended, other.reserve_for_buffer(FREE_BYTES + 1));
        assert_eq!((reason, reserved), (TooSlow::InTheWay, Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_one_client_do_not_wait_for_each_other_in_a_circle() {
        let memory = memory(4 << 20, 1 << 20);
        let line = format!("ack{}", " m".repeat(400_000));
        let send = async |client: &str| {
            let mut lines = lines(&memory, client);
            lines.reserve_for_buffer(FREE_BYTES + 1).await.unwrap();
            tokio::task::yield_now().await;
            lines.reserve_for_buffer(line.len()).await.unwrap();
            lines.reserve_for_answer(line.as_bytes()).await.unwrap();
        };
        tokio::join!(
            send("a"),
            send("a"),
            send("a"),
            send("b"),
            send("b"),
            send("c")
        );
        assert_eq!((memory.lines.used(), memory.messages.used()), (0, 0));
    }
}
