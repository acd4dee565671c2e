//! Ctrl-C and what a scheduler sends: a training keeps a checkpoint first; the second request ends at once.

use std::io;

use pg_runtime::run::Interrupt;

/// Exit code of a run that stopped because it was asked to: that of SIGINT, as a shell gives it.
pub(crate) const STOPPED: u8 = 130;

/// Passes requests to stop on to a run, or ends the process where nothing would be lost.
#[cfg(unix)]
pub(crate) fn stop_on_request(interrupt: &Interrupt) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let interrupt = interrupt.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if !interrupt.request() {
                // The status that a shell gives to what the signal ended.
                std::process::exit(128 + signal);
            }
            eprintln!("stopping after this step (once more: at once)");
        }
    });
    Ok(())
}

/// Elsewhere the system ends the process.
#[cfg(not(unix))]
pub(crate) fn stop_on_request(_: &Interrupt) -> io::Result<()> {
    Ok(())
}
