//! What must hold of each decoder, whatever its bytes: a function for each fuzz
//! target. The crates' own tests take in these files too, and run the functions
//! on what is in `corpus/`.

pub mod agent;
pub mod bfd;
pub mod bgp;
pub mod replay;
