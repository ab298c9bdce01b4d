//! Ctrl-C, SIGTERM and SIGHUP: the process's labs are taken away before it ends.

use std::{
    io::{Write as _, stderr},
    process::exit,
    sync::{Once, RwLock, RwLockReadGuard},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::removal;

/// Held for reading while something is made, for writing by the interrupt,
/// which never gives it back: nothing can be made behind its back.
static CREATION: RwLock<()> = RwLock::new(());

/// To be held while namespaces, files or processes are made.
pub(crate) fn creating() -> RwLockReadGuard<'static, ()> {
    CREATION
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// From now on a signal to end takes the labs of this process along.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (ready, wait) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let name = until_signalled(&ready);
            let _never_given_back = CREATION.write();
            // The terminal may be gone, which must not keep us from our work.
            let _ = writeln!(stderr(), "\n{name}: the lab is taken away");
            if let Err(error) = removal::remove_own() {
                let _ = writeln!(stderr(), "{error:#}");
            }
            exit(130);
        });
        // The handlers stand, or the thread is gone: either way go on.
        let _ = wait.recv();
    });
}

/// Sleeps until a signal to end comes and returns which.
fn until_signalled(ready: &std::sync::mpsc::Sender<()>) -> &'static str {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll descriptor");
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
        let mut hang_up = signal(SignalKind::hangup()).expect("SIGHUP can be caught");
        let _ = ready.send(());
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
            _ = hang_up.recv() => "the terminal is gone",
        }
    })
}
