//! What the lab and the agent in a guest say to each other, over a virtio-serial port.
//!
//! A frame is the length of what follows (u32, little-endian, at most [`FRAME_BYTES_MAX`]) and a postcard message. Both
//! ends are the same binary, so there is no version: a guest never outlives the program that started it. An end that
//! reads nonsense gives up the connection; the lab then kills the guest.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest frame. Output travels in pieces far smaller.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of output in one frame at most.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// From the lab to a guest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a program.
    Start(Command),
    /// Bytes for a running program's standard input; none: the input ends.
    Input(u32, Vec<u8>),
    /// Send a signal to a running program and to what it has started.
    Signal(u32, i32),
    /// Flush disks and switch the power off.
    PowerOff,
}

/// A program to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// Names the run in every later message.
    pub(crate) id: u32,
    /// Program and arguments; a program without a slash is looked for in PATH.
    pub(crate) argv: Vec<String>,
    /// Variables, beside PATH, HOME and the like that every program gets.
    pub(crate) variables: Vec<(String, String)>,
    /// Folder to run in.
    pub(crate) folder: String,
    /// Killed after so many seconds.
    pub(crate) limit_s: u64,
    /// Whether [`Order::Input`] will come; without it the program reads from /dev/null.
    pub(crate) wants_input: bool,
}

/// From a guest to the lab.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The agent runs; everything that `init` sets up is there, or the text says what is not.
    Ready {
        /// Empty, or what went wrong on the way up.
        trouble: String,
    },
    /// Output of a program.
    Output(u32, Stream, Vec<u8>),
    /// A program has ended, or could not be started.
    Ended(u32, Ending),
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It returned a status.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was killed because it ran past its limit.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
}

impl Ending {
    /// The status a shell would give: 0..255, 128 + signal, 124 for a timeout, 127 for what could not be started.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Ending::Exit(status) => *status,
            Ending::Signal(signal) => 128 + signal,
            Ending::TimedOut => 124,
            Ending::NotStarted(_) => 127,
        }
    }
}

/// Writes one frame.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    assert!(body.len() <= FRAME_BYTES_MAX, "messages are cut to size by who makes them");
    let length = u32::try_from(body.len()).expect("FRAME_BYTES_MAX fits");
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame; `None` at an orderly end.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match from.read(&mut length[have..])? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => have += count,
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let reports = [
            Report::Ready { trouble: String::new() },
            Report::Output(7, Stream::Err, vec![0, 255, 10]),
            Report::Ended(7, Ending::Signal(9)),
        ];
        let mut wire = Vec::new();
        for report in &reports {
            write(&mut wire, report).expect("a Vec takes all");
        }
        let mut from = wire.as_slice();
        for report in &reports {
            assert_eq!(read::<Report>(&mut from).expect("whole").as_ref(), Some(report));
        }
        assert_eq!(read::<Report>(&mut from).expect("orderly"), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        let too_long = u32::MAX.to_le_bytes();
        assert!(read::<Report>(&mut too_long.as_slice()).expect_err("too long").to_string().contains("at most"));
        let mut cut = Vec::new();
        write(&mut cut, &Report::Ended(1, Ending::Exit(0))).expect("a Vec takes all");
        for length in 1..cut.len() {
            read::<Report>(&mut &cut[..length]).expect_err("a cut frame is no frame");
        }
        read::<Report>(&mut [1_u8, 0, 0, 0, 99].as_slice()).expect_err("no such message");
    }

    #[test]
    fn statuses_are_a_shells() {
        assert_eq!(Ending::Exit(3).status(), 3);
        assert_eq!(Ending::Signal(9).status(), 137);
        assert_eq!(Ending::TimedOut.status(), 124);
        assert_eq!(Ending::NotStarted(String::new()).status(), 127);
    }
}
