//! Who may use the pins.

use std::fs;

use vipd::dataplane::pins::Pins;
use vipd_tests::Scratch;

#[test]
fn whoever_has_the_pins_has_them_whatever_becomes_of_their_directory() {
    let scratch = Scratch::new("taken");
    let pins = Pins::new(scratch.path());
    let nothing = pins.take_existing().expect("there is nothing to refuse");
    assert!(nothing.is_none(), "there is nothing to take");
    let lock = pins.take().expect("it is ours");
    fs::remove_dir(pins.directory()).expect("it is empty");
    for refused in [pins.take_existing().map(|_| ()), pins.take().map(|_| ())] {
        let told = refused.expect_err("an agent runs").to_string();
        assert!(told.contains("another vipd uses"), "{told}");
    }
    drop(lock);
    assert!(pins.take_existing().expect("it is free").is_some());
    fs::create_dir(scratch.path().join("v0")).expect("it can be made");
    let told = pins.take_existing().expect_err("is refused").to_string();
    assert!(
        told.contains("v0 holds a data plane of another layout"),
        "{told}"
    );
}
