//! What has been found by fuzzing, and what it starts from, again and again.

#[path = "../../../fuzz/src/bfd.rs"]
mod checks;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_datagram_of_the_corpus_breaks_the_decoder_or_a_session() {
    replay("bfd_packet", checks::packet);
}
