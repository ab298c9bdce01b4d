//! What has been found by fuzzing, and what it starts from, again and again.

#[path = "../../../fuzz/src/bgp.rs"]
mod checks;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_message_of_the_corpus_breaks_the_decoder() {
    replay("bgp_message", checks::message);
}

#[test]
fn no_peer_of_the_corpus_breaks_a_session() {
    replay("bgp_session", checks::session);
}
