//! How long acknowledgements take.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::latencies::{self, Latencies};
use super::payload::Run;
use crate::exit::Failure;

/// When messages were sent that the server has not acknowledged yet: a line for each publisher. The
/// server answers in the order of the messages.
pub(super) struct Acknowledgements(Mutex<State>);

struct State {
    lines: Vec<VecDeque<Duration>>,
    run: Run,
    latencies: Latencies,
}

impl Acknowledgements {
    pub(super) fn new(run: Run) -> Result<Self, Failure> {
        Ok(Self(Mutex::new(State {
            lines: Vec::new(),
            run,
            latencies: latencies::empty()?,
        })))
    }

    pub(super) fn line(&self) -> usize {
        let lines = &mut self.lock().lines;
        lines.push(VecDeque::new());
        lines.len() - 1
    }

    pub(super) fn sent(&self, line: usize, time: Duration) {
        if let Some(line) = self.lock().lines.get_mut(line) {
            line.push_back(time);
        }
    }

    pub(super) fn came(&self, line: usize) {
        let mut state = self.lock();
        let sent = state.lines.get_mut(line).and_then(VecDeque::pop_front);
        if let Some(sent) = sent {
            let age = state.run.elapsed().saturating_sub(sent);
            latencies::record(&mut state.latencies, age);
        }
    }

    pub(super) fn take(&self) -> Result<Latencies, Failure> {
        Ok(std::mem::replace(
            &mut self.lock().latencies,
            latencies::empty()?,
        ))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
