//! What has been found by fuzzing, and what it starts from, again and again.

#[path = "../../fuzz/src/agent.rs"]
mod checks;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_configuration_of_the_corpus_is_pointed_at_outside_its_text() {
    replay("config", checks::config);
}

#[test]
fn no_line_of_the_corpus_breaks_a_socket_of_the_agent() {
    replay("agent_lines", checks::lines);
}

#[test]
fn no_frame_of_the_corpus_breaks_its_description() {
    replay("frame", checks::frame);
}

#[test]
fn no_answer_of_the_kernel_in_the_corpus_breaks_its_reader() {
    replay("kernel", checks::kernel);
}
