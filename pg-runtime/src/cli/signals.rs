//! Ctrl-C and what a scheduler sends: a training keeps a checkpoint first; the second request ends at once.

use std::io;

use pg_runtime::run::Interrupt;

/// Exit code of a run that stopped because it was asked to: that of SIGINT, as a shell gives it.
pub(crate) const STOPPED: u8 = 130;

/// Passes requests to stop on to a run, or ends the process where nothing would be lost.
pub(crate) fn stop_on_request(interrupt: &Interrupt) -> io::Result<()> {
    let interrupt = interrupt.clone();
    on_request(move || interrupt.request())
}

/// Calls `stop` for every request to stop, and ends the process where it says that nothing will stop by itself.
#[cfg(unix)]
pub(crate) fn on_request(stop: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if !stop() {
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
pub(crate) fn on_request(_: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// Leaves requests to stop to the process that started this one, which the terminal sends them to, too.
#[cfg(unix)]
pub(crate) fn leave_to_parent() -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Default::default())?;
    }
    Ok(())
}

/// Elsewhere the system ends the process.
#[cfg(not(unix))]
pub(crate) fn leave_to_parent() -> io::Result<()> {
    Ok(())
}
