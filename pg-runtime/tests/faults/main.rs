//! Runs whose system calls fail: each call of a short run once, all from one on, and a disk that fills up at any moment. A run ends well
//! with the results of one that met no fault; or it says which file it was, claims nothing, and its work can be continued to these
//! results.
//!
//! Where calls cannot be made to fail the tests say so and pass, unless PG_REQUIRE_FAULTS=1.

mod inputs;
mod readers;
mod scenarios;

use pg_testing::faults::{Call, EIO, ENOSPC, Fault};

use self::inputs::{RUN, copied, succeeds};
use self::readers::{readers, reads};
use self::scenarios::Ground;

/// The faults of a call, by what it does.
fn faults(call: &Call) -> Vec<Fault> {
    let number = call.number;
    let mut faults = vec![Fault::Once(number, EIO)];
    if matches!(call.name.as_str(), "write" | "fallocate" | "mkdir" | "rename") {
        faults.push(Fault::Once(number, ENOSPC));
    }
    if matches!(call.name.as_str(), "write" | "read") {
        faults.push(Fault::Short(number));
    }
    faults
}

/// One message, which names a file whose call failed.
fn says_what_failed(message: &str, failed: &[Call]) -> Result<(), String> {
    if message.matches("error: ").count() != 1 || message.contains("panicked") {
        return Err("not one message".into());
    }
    if names_any(message, failed) { Ok(()) } else { Err("the message does not name the file".into()) }
}

/// Whether a message names a file whose call failed; its folder, where the file is none that a user knows of.
fn names_any(message: &str, failed: &[Call]) -> bool {
    failed.iter().any(|call| {
        let (folder, file) = call.path.rsplit_once('/').unwrap_or(("", &call.path));
        let known = match file {
            // The folder that all is in has no name here.
            "." => "",
            ".lock" | "reserved" => "run",
            _ if file.starts_with(".pg-") || file.ends_with(".checkpoint") => folder,
            _ => &call.path,
        };
        message.contains(known)
    })
}

#[test]
fn each_call_of_what_reads_a_run_fails_once() {
    let Some(ground) = Ground::new() else { return };
    let begin = copied(&ground.inputs);
    succeeds(&begin, &RUN);
    for reader in readers() {
        let met = reads(&ground, &begin, &reader);
        eprintln!("{}: {met} faults", reader.args.join(" "));
    }
}

#[test]
fn each_call_of_a_run_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.fresh(), "");
}

#[test]
fn each_call_of_a_run_that_continues_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.resumed(), "");
    ground.each_call_once(&ground.finishing(), "");
}

#[test]
fn each_call_of_a_run_that_replaces_another_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.overwriting(), "");
}

#[test]
fn each_call_on_the_cache_of_validations_fails_once() {
    let Some(ground) = Ground::new() else { return };
    for is_known in [false, true] {
        ground.each_call_once(&ground.validating(is_known), "cache");
    }
}

#[test]
fn a_device_that_is_gone_takes_nothing_along() {
    let Some(ground) = Ground::new() else { return };
    for scenario in [ground.fresh(), ground.resumed(), ground.finishing(), ground.overwriting()] {
        let met = ground.meets_all(&scenario, (1..).step_by(7).map(|number| Fault::From(number, EIO)));
        eprintln!("{}: the device was gone at {met} moments", scenario.name);
    }
}

#[test]
fn a_disk_that_fills_up_keeps_what_is_on_it() {
    let Some(ground) = Ground::new() else { return };
    for scenario in [ground.fresh(), ground.resumed(), ground.overwriting()] {
        let met = ground.meets_all(&scenario, (0..).step_by(9973).map(Fault::Room));
        eprintln!("{}: the disk was full at {met} moments", scenario.name);
    }
}
