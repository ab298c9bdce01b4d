//! Hooks that cannot be meant.

use super::Case;

/// The last lines of the good file.
const LAST: &str = "name = \"n1\"\naddress = \"2001:db8:2::31\"\n";

macro_rules! with {
    ($hook:literal) => {
        &[(
            LAST,
            concat!(
                "name = \"n1\"\naddress = \"2001:db8:2::31\"\n\n[[hook]]\nname = \"page\"\n",
                $hook
            ),
        )]
    };
}

pub const HOOKS: &[Case] = &[
    (
        "a subject that nobody knows",
        with!("on = [\"vips\"]\ncommand = [\"/bin/true\"]\n"),
    ),
    (
        "a state that it never has",
        with!("on = [\"vip\", \"vip:dead\"]\ncommand = [\"/bin/true\"]\n"),
    ),
    (
        "a hook for nothing",
        with!("on = []\ncommand = [\"/bin/true\"]\n"),
    ),
    (
        "a program without its path",
        with!("on = [\"vip\"]\ncommand = [\"page\", \"--now\"]\n"),
    ),
    (
        "no program, and a variable of our own",
        with!("on = [\"vip\"]\nenvironment = { VIPD_STATE = \"up\" }\n"),
    ),
    (
        "a hook that takes for ever",
        with!("on = [\"vip\"]\ncommand = [\"/bin/true\"]\ntimeout = \"1h\"\n"),
    ),
    (
        "two of one name",
        with!(
            "on = [\"vip\"]\ncommand = [\"/bin/true\"]\n\n[[hook]]\nname = \"page\"\non = [\"peer\"]\ncommand = [\"/bin/true\"]\n"
        ),
    ),
];
