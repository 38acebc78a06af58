//! Bridges between a call's pieces, which are awaited, and readers and writers, which wait on a thread of their own.

use alpine_provider_api::ExecInput;
use std::io::{self, Read, Write};
use tokio::sync::mpsc;

/// How large a piece is.
pub(crate) const PIECE: usize = 64 * 1024;
/// How many pieces may be under way: what is slow holds up what is fast.
pub(crate) const PIECES: usize = 8;

/// Reads pieces that another task sends.
pub(crate) struct PieceReader {
    from: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl PieceReader {
    pub(crate) fn new(from: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            from,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.from.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let length = to.len().min(self.piece.len() - self.at);
        to[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Sends what is written as pieces of a command's standard input.
pub(crate) struct InputWriter(pub(crate) mpsc::Sender<ExecInput>);

impl Write for InputWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(ExecInput::Data(bytes.to_vec()))
            .map(|()| bytes.len())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
