//! `pg doctor`: what is missing here for building, for running and for the tests, and what to do about it. It looks
//! and changes nothing; what is missing is no error unless it was required.

mod environment;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::environment::Environment;
use super::Outcome;
use super::format::table;
use super::ui::Ui;

/// Arguments of `pg doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// End with exit code 1 unless everything is here for this; may be repeated.
    #[arg(long, value_enum, value_name = "WHAT")]
    require: Vec<Purpose>,
}

/// What something is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    /// Compiling kernels ahead of time: `pg build`, and the resources in `pg kernels`.
    Build,
    /// Running on Vulkan.
    Vulkan,
    /// Running on CUDA.
    Cuda,
    /// The tests of generated kernels.
    Tests,
}

impl Purpose {
    const ALL: [Purpose; 4] = [Purpose::Build, Purpose::Vulkan, Purpose::Cuda, Purpose::Tests];

    fn name(self) -> &'static str {
        match self {
            Purpose::Build => "build",
            Purpose::Vulkan => "vulkan",
            Purpose::Cuda => "cuda",
            Purpose::Tests => "tests",
        }
    }
}

/// Something that is needed: here, or missing with the remedy.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Finding {
    purpose: Purpose,
    what: String,
    ok: bool,
    /// Where or which it is; `null` if it is missing.
    found: Option<String>,
    /// `null` if nothing is.
    missing: Option<String>,
    remedy: Option<String>,
}

impl Finding {
    /// Of something found, or of what is missing and the remedy.
    fn new(purpose: Purpose, what: &str, found: Result<String, (String, String)>) -> Finding {
        let (ok, what) = (found.is_ok(), what.to_string());
        let (found, (missing, remedy)) = match found {
            Ok(found) => (Some(found), (None, None)),
            Err((missing, remedy)) => (None, (Some(missing), Some(remedy))),
        };
        Finding { purpose, what, ok, found, missing, remedy }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// Purposes for which nothing is missing.
    ready: Vec<Purpose>,
}

/// Looks and reports.
pub(crate) fn doctor(args: DoctorArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let report = Report::of(&Environment::here());
    ui.report(&report, || report.text())?;
    let lacking = args.require.iter().find(|p| !report.ready.contains(p));
    Ok(match lacking {
        None => Outcome::Success,
        Some(purpose) => {
            ui.error(&format!("something is missing for `{}`: see above", purpose.name()));
            Outcome::Failure
        }
    })
}

impl Report {
    fn of(environment: &Environment) -> Report {
        let findings = environment.findings();
        let is_ready = |p: &Purpose| findings.iter().filter(|f| f.purpose == *p).all(|f| f.ok);
        Report { ready: Purpose::ALL.into_iter().filter(is_ready).collect(), findings }
    }

    fn text(&self) -> String {
        let row = |f: &Finding| {
            let state = if f.ok { "ok" } else { "missing" };
            let which = f.found.as_ref().or(f.missing.as_ref()).cloned().unwrap_or_default();
            vec![f.purpose.name().into(), f.what.clone(), state.into(), which]
        };
        let mut text = table(&["for", "what", "state", ""], &[], self.findings.iter().map(row).collect());
        let mut remedies: Vec<&str> = Vec::new();
        for remedy in self.findings.iter().filter_map(|f| f.remedy.as_deref()) {
            if !remedies.contains(&remedy) {
                remedies.push(remedy);
            }
        }
        text.push('\n');
        for remedy in remedies {
            let of = self.findings.iter().filter(|f| f.remedy.as_deref() == Some(remedy));
            let of: Vec<String> = of.map(|f| format!("{}: {}", f.purpose.name(), f.what)).collect();
            text += &format!("\n{} – {remedy}", of.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use pg_runtime::device::Listed;

    use super::*;

    fn listed(device: &str, description: Option<&str>, missing: Option<(&str, &str)>) -> Listed {
        let (missing, remedy) = missing.map(|(m, r)| (m.to_string(), r.to_string())).unzip();
        Listed { device: device.into(), description: description.map(str::to_string), missing, remedy }
    }

    fn bare() -> Environment {
        let tool = |what: &str| {
            (what.to_string(), Err((format!("{what} was not found"), "run scripts/cuda-tools".to_string())))
        };
        Environment {
            tools: ["CUDA's compiler", "CUDA's headers", "the disassembler"].map(tool).into(),
            vulkan_loader: None,
            cuda_driver: None,
            devices: vec![
                listed("cpu", Some("x86_64 with 2 threads"), None),
                listed("vulkan:0", None, Some(("no Vulkan device was found", "install a Vulkan driver"))),
                listed(
                    "cuda:0",
                    None,
                    Some(("no CUDA driver (libcuda) was found", "install NVIDIA's driver")),
                ),
            ],
            compiler: None,
            pip: None,
        }
    }

    #[test]
    fn a_bare_machine_is_told_what_to_do() {
        let report = Report::of(&bare());
        assert!(report.ready.is_empty());
        insta::assert_snapshot!(report.text());
    }

    #[test]
    fn a_hopper_machine_is_ready_for_everything() {
        let tool = |what: &str| (what.to_string(), Ok(format!("/tools/{what}")));
        let environment = Environment {
            tools: ["CUDA's compiler", "CUDA's headers", "the disassembler"].map(tool).into(),
            vulkan_loader: Some("/lib/libvulkan.so.1".into()),
            cuda_driver: Some("/lib/libcuda.so.1".into()),
            devices: vec![
                listed("vulkan:0", Some("llvmpipe (Cpu, llvmpipe)"), None),
                listed("cuda:0", Some("NVIDIA H100 80GB HBM3, compute capability 9.0"), None),
                listed("cuda:1", Some("NVIDIA A100, compute capability 8.0"), None),
            ],
            compiler: Some("c++".into()),
            pip: Some("python3 -m pip".into()),
        };
        let report = Report::of(&environment);
        assert_eq!(report.ready, Purpose::ALL);
        insta::assert_snapshot!(report.text());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["ready"][0], &json["findings"][0]["ok"]), (&"build".into(), &true.into()));
    }

    #[test]
    fn a_device_whose_compiler_is_missing_is_not_ready() {
        let why = ("CUDA's compiler (libnvrtc) was not found", "install the CUDA toolkit");
        let mut environment = bare();
        environment.cuda_driver = Some("/lib/libcuda.so.1".into());
        environment.devices[2] = listed("cuda:0", Some("NVIDIA H100"), Some(why));
        let report = Report::of(&environment);
        let finding = report.findings.iter().find(|f| f.what == "device cuda:0").unwrap();
        assert_eq!((finding.ok, finding.missing.as_deref()), (false, Some(why.0)));
    }
}
