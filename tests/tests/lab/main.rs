//! Labs with real routers and web servers. They need root; what else they
//! need, they say.

mod support;
mod the_lab_itself;
