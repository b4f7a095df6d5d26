//! Why a program did not take a line: for the words of a reject, so that speed does not matter.
use super::{Cursor, Matcher};
use crate::decode::scan::Window;
use crate::log_type::program::{Node, Step};

/// Why a program did not take a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) struct Diagnosis {
    /// Bytes of the line that it could read.
    pub(in crate::decode) reached: u32,
    /// Only the event time is in the way.
    pub(in crate::decode) timestamp: bool,
}

impl Matcher {
    /// How far `program` gets along a line that it does not take, and whether it would take it with a
    /// readable event time.
    pub(in crate::decode) fn diagnose(
        &mut self,
        program: &[Node],
        window: Window<'_>,
        line: u8,
    ) -> Diagnosis {
        let mut diagnosis = Diagnosis { reached: 0, timestamp: false };
        let cursor = Cursor { line, exact: true, at: self.starts[usize::from(line)] };
        self.explore(program, window, cursor, false, &mut diagnosis);
        diagnosis
    }

    fn explore(
        &mut self,
        nodes: &[Node],
        window: Window<'_>,
        cursor: Cursor,
        guessed: bool,
        diagnosis: &mut Diagnosis,
    ) {
        let (start, end) = (self.starts[usize::from(cursor.line)], self.ends[usize::from(cursor.line)]);
        for node in nodes {
            let mut stepped = Vec::new();
            self.advance(&node.step, window, &[cursor], &mut stepped);
            if let [cursor] = stepped[..] {
                if !guessed {
                    diagnosis.reached = diagnosis.reached.max(cursor.at - start);
                }
                diagnosis.timestamp |= guessed && node.accept.is_some() && cursor.at == end;
                self.explore(&node.next, window, cursor, guessed, diagnosis);
            }
            if node.step == Step::Timestamp {
                // as if anything were a time; also where one can be read but goes on, as in `..Zjunk`
                diagnosis.timestamp |= node.accept.is_some();
                for next in &node.next {
                    let (at, end) = (cursor.at as usize, end as usize);
                    let after = match &next.step {
                        Step::Literal(literal) => window.find(literal, at, end),
                        _ => window.find_byte(b' ', at, end),
                    };
                    if let Some(after) = after {
                        let cursor = Cursor { at: after as u32, ..cursor };
                        self.explore(std::slice::from_ref(next), window, cursor, true, diagnosis);
                    }
                }
            }
        }
    }
}
