//! The state machine of an RC queue pair as a table: which attributes each step needs, and which it may change
//! (InfiniBand Architecture Specification 1.4, table 94; `ib_modify_qp_is_ok` of the kernel). A step that the table does
//! not have, or that lacks an attribute, is refused here with a name, not by the kernel with EINVAL.

use std::fmt;

/// Where a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QpState {
    /// Fresh.
    Reset,
    /// Receives may be posted.
    Init,
    /// Ready to receive: the peer's requests are served.
    Rtr,
    /// Ready to send: everything works.
    Rts,
    /// Send queue drained: nothing new is sent.
    Sqd,
    /// Send queue error (UC and UD only).
    Sqe,
    /// Broken or fenced: every work request is flushed, no packet of the peer's is served.
    Err,
}

impl QpState {
    /// Every state.
    pub const ALL: [Self; 7] = [Self::Reset, Self::Init, Self::Rtr, Self::Rts, Self::Sqd, Self::Sqe, Self::Err];

    /// The library's number.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Reset => 0,
            Self::Init => 1,
            Self::Rtr => 2,
            Self::Rts => 3,
            Self::Sqd => 4,
            Self::Sqe => 5,
            Self::Err => 6,
        }
    }
}

impl fmt::Display for QpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "RESET",
            Self::Init => "INIT",
            Self::Rtr => "RTR",
            Self::Rts => "RTS",
            Self::Sqd => "SQD",
            Self::Sqe => "SQE",
            Self::Err => "ERR",
        })
    }
}

macro_rules! attributes {
    ($($name:ident $bit:literal $text:literal;)*) => {
        /// What a step sets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are the specification's")]
        pub enum Attribute {
            $($name,)*
        }

        impl Attribute {
            /// Its bit in `enum ibv_qp_attr_mask`.
            pub(crate) fn bit(self) -> i32 {
                match self {
                    $(Self::$name => 1 << $bit,)*
                }
            }

            /// Its name.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

attributes! {
    Access 3 "the remote access flags";
    PkeyIndex 4 "the partition key's index";
    Port 5 "the port";
    AddressVector 7 "the peer's address";
    PathMtu 8 "the path MTU";
    Timeout 9 "the timeout";
    RetryCount 10 "the retry count";
    RnrRetry 11 "the receiver-not-ready retry count";
    ReceivePsn 12 "the receive PSN";
    ReadDepth 13 "the number of READs sent at a time";
    AlternatePath 14 "the alternate path";
    MinRnrTimer 15 "the receiver-not-ready timer";
    SendPsn 16 "the send PSN";
    ReadDepthPeer 17 "the number of READs served at a time";
    PeerNumber 20 "the peer's queue pair number";
}

/// What a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Must be given.
    pub required: &'static [Attribute],
    /// May be given.
    pub optional: &'static [Attribute],
}

impl Needs {
    /// The mask for `ibv_modify_qp`, the state's own bit included.
    pub(crate) fn mask(&self) -> i32 {
        self.required.iter().fold(1, |mask, attribute| mask | attribute.bit())
    }
}

/// What an RC queue pair needs to go `from` a state `to` another. `None`: it can't.
pub fn transition(from: QpState, to: QpState) -> Option<Needs> {
    use Attribute::*;
    use QpState::*;
    let needs = |required, optional| Some(Needs { required, optional });
    match (from, to) {
        // Anything can be broken or begun anew.
        (_, Err | Reset) => needs(&[], &[]),
        (Reset, Init) => needs(&[PkeyIndex, Port, Access], &[]),
        (Init, Init) => needs(&[], &[PkeyIndex, Port, Access]),
        (Init, Rtr) => needs(
            &[AddressVector, PathMtu, PeerNumber, ReceivePsn, ReadDepthPeer, MinRnrTimer],
            &[AlternatePath, Access, PkeyIndex],
        ),
        (Rtr, Rts) => {
            needs(&[SendPsn, Timeout, RetryCount, RnrRetry, ReadDepth], &[Access, MinRnrTimer, AlternatePath])
        }
        (Rts | Sqd, Rts) => needs(&[], &[Access, MinRnrTimer, AlternatePath]),
        (Rts, Sqd) => needs(&[], &[]),
        (Sqd, Sqd) => needs(
            &[],
            &[
                Port,
                AddressVector,
                Timeout,
                RetryCount,
                RnrRetry,
                ReadDepth,
                ReadDepthPeer,
                AlternatePath,
                Access,
                PkeyIndex,
                MinRnrTimer,
            ],
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `enum ibv_qp_attr_mask` of the header, by hand.
    #[test]
    fn masks_are_the_librarys() {
        let mask = |from, to| transition(from, to).map(|needs| needs.mask());
        assert_eq!(mask(QpState::Reset, QpState::Init), Some(1 | 1 << 4 | 1 << 5 | 1 << 3));
        assert_eq!(
            mask(QpState::Init, QpState::Rtr),
            Some(1 | 1 << 7 | 1 << 8 | 1 << 20 | 1 << 12 | 1 << 17 | 1 << 15)
        );
        assert_eq!(mask(QpState::Rtr, QpState::Rts), Some(1 | 1 << 16 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13));
        assert_eq!(mask(QpState::Rts, QpState::Err), Some(1));
    }

    #[test]
    fn every_pair_of_states_is_decided() {
        let mut allowed = Vec::new();
        for from in QpState::ALL {
            for to in QpState::ALL {
                if transition(from, to).is_some() && !matches!(to, QpState::Err | QpState::Reset) {
                    allowed.push(format!("{from}>{to}"));
                }
            }
            assert!(transition(from, QpState::Err).is_some(), "{from} can't be fenced");
        }
        assert_eq!(
            allowed,
            ["RESET>INIT", "INIT>INIT", "INIT>RTR", "RTR>RTS", "RTS>RTS", "RTS>SQD", "SQD>RTS", "SQD>SQD"]
        );
    }

    #[test]
    fn nothing_is_both_required_and_optional() {
        for from in QpState::ALL {
            for to in QpState::ALL {
                let Some(needs) = transition(from, to) else { continue };
                assert!(needs.required.iter().all(|attribute| !needs.optional.contains(attribute)), "{from}>{to}");
            }
        }
    }
}
