//! The memory of one connection's lines: of the unfinished one, and of those not answered yet.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::messages_at_most;
use tokio::sync::Semaphore;

use super::transfers::{TooSlow, Transfer};
use super::{Memory, Permit, take_own};
use crate::budget::{ClientBudget, Taken};

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

/// The memory of a line until it is answered.
pub(in crate::connection) type LinePermit = Permit;

/// What the lines of one connection take.
#[derive(Debug)]
pub(in crate::connection) struct ConnectionLines {
    memory: Arc<Memory>,
    budget: ClientBudget,
    /// The memory for the unfinished line, and its progress.
    unfinished: Option<(Taken, Transfer)>,
    /// The connection's own memory for lines that are not answered yet.
    own: Arc<Semaphore>,
}

impl ConnectionLines {
    pub(super) fn new(memory: Arc<Memory>, budget: ClientBudget) -> Self {
        Self {
            memory,
            budget,
            unfinished: None,
            own: Arc::new(Semaphore::new(FREE_BYTES)),
        }
    }

    /// Takes the memory for an unfinished line of `bytes`, or gives it back.
    pub(in crate::connection) async fn reserve_for_buffer(
        &mut self,
        bytes: usize,
    ) -> Result<(), Exhausted> {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted == 0 {
            self.unfinished = None;
            return Ok(());
        }
        let held = self
            .unfinished
            .as_ref()
            .map_or(0, |(taken, _)| taken.amount());
        if wanted > held {
            let more = self.take(wanted - held).await?;
            match &mut self.unfinished {
                Some((taken, _)) => taken.add(more),
                None => {
                    let transfer = self.memory.arriving.begin(self.budget.clone());
                    self.unfinished = Some((more, transfer));
                }
            }
        }
        if let Some((_, transfer)) = &self.unfinished {
            transfer.holds(bytes);
        }
        Ok(())
    }

    /// Takes the memory that a finished line has until it is answered.
    ///
    /// A line that is not long waits only for the connection's own lines, if others take the whole
    /// budget.
    pub(in crate::connection) async fn reserve_for_answer(
        &self,
        line: &[u8],
    ) -> Result<LinePermit, Exhausted> {
        let bytes = line.len() + COMMAND_BYTES + messages_at_most(line) * MESSAGE_BYTES;
        if line.len() > FREE_BYTES {
            return self.take(bytes).await.map(Permit::Shared);
        }
        let permit = tokio::select! {
            biased;
            own = take_own(&self.own, FREE_BYTES, bytes) => own,
            shared = self.budget.take(bytes) => shared.map(Permit::Shared),
        };
        permit.ok_or(Exhausted)
    }

    /// Returns once the unfinished line has to be given up. It is cancel safe.
    pub(in crate::connection) async fn is_too_slow(&self) -> TooSlow {
        match &self.unfinished {
            Some((_, transfer)) => transfer.is_too_slow().await,
            None => std::future::pending().await,
        }
    }

    async fn take(&self, bytes: usize) -> Result<Taken, Exhausted> {
        let taken = self.memory.take_for_lines(&self.budget, bytes);
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
        let memory = memory(40 * KIB, 40 * KIB);
        let [mut one, mut other] = ["a", "b"].map(|client| lines(&memory, client));
        one.reserve_for_buffer(FREE_BYTES).await.unwrap();
        assert_eq!(memory.lines.used(), 0);
        one.reserve_for_buffer(FREE_BYTES + 30 * KIB).await.unwrap();
        assert_eq!(memory.lines.used(), 30 * KIB);
        // The other one's line is not being read at the moment, so it is not too slow.
        let wanted = FREE_BYTES + 20 * KIB;
        assert_eq!(other.reserve_for_buffer(wanted).await, Err(Exhausted));
        one.reserve_for_buffer(10).await.unwrap();
        other.reserve_for_buffer(wanted).await.unwrap();
        drop(other);
        assert_eq!(memory.lines.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_are_not_long_do_not_wait_for_other_connections() {
        let memory = memory(400 * KIB, 400 * KIB);
        let (mut greedy, modest) = (lines(&memory, "greedy"), lines(&memory, "modest"));
        greedy
            .reserve_for_buffer(FREE_BYTES + 400 * KIB)
            .await
            .unwrap();
        let line = vec![b'x'; FREE_BYTES];
        let first = modest.reserve_for_answer(&line).await.unwrap();
        // The next one waits for the first one's answer, however long that takes.
        let second = modest.reserve_for_answer(&line);
        tokio::pin!(second);
        assert!(tokio::time::timeout(WAIT * 10, &mut second).await.is_err());
        drop(first);
        second.await.unwrap();
        let long = modest.reserve_for_answer(&[b'x'; FREE_BYTES + 1]).await;
        assert_eq!(long.unwrap_err(), Exhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_one_part_for_all_its_connections() {
        let memory = memory(200 * KIB, 10 * KIB);
        let mut held = Vec::new();
        for _ in 0..10 {
            let mut line = lines(&memory, "greedy");
            line.reserve_for_buffer(FREE_BYTES + 10 * KIB)
                .await
                .unwrap();
            held.push(line);
        }
        let mut further = lines(&memory, "greedy");
        let refused = further.reserve_for_buffer(FREE_BYTES + KIB).await;
        assert_eq!(refused, Err(Exhausted));
        let mut other = lines(&memory, "other");
        other
            .reserve_for_buffer(FREE_BYTES + 100 * KIB)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn many_small_messages_take_more_than_their_line() {
        let memory = memory(100 << 20, 16 << 20);
        let line = format!(
            "publish_batch e k [{}]",
            r#"{"message_id":"m"},"#.repeat(10_000)
        );
        let permit = lines(&memory, "a")
            .reserve_for_answer(line.as_bytes())
            .await
            .unwrap();
        assert_eq!(
            memory.lines.used(),
            line.len() + COMMAND_BYTES + 10_000 * MESSAGE_BYTES
        );
        drop(permit);
        assert_eq!(memory.lines.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_gives_way_to_another_one() {
        let memory = memory(200 * KIB, 200 * KIB);
        let mut slow = lines(&memory, "slow");
        slow.reserve_for_buffer(FREE_BYTES + 200 * KIB)
            .await
            .unwrap();
        let ended = async move {
            let reason = slow.is_too_slow().await;
            drop(slow);
            reason
        };
        let mut other = lines(&memory, "other");
        let (reason, reserved) =
            tokio::join!(ended, other.reserve_for_buffer(FREE_BYTES + 100 * KIB));
        assert_eq!((reason, reserved), (TooSlow::InTheWay, Ok(())));
    }
}
