//! The main job as a test: real processes, TCP, TLS, and every scenario as configured.

use serde_json::Value;
use std::process::Command;

#[test]
fn every_scenario_of_bookinfo_is_as_configured() {
    let output = Command::new(env!("CARGO_BIN_EXE_bookinfo")).arg("--json").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{log}"));
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 16);
    let contradicted: Vec<_> = scenarios.iter().filter(|scenario| scenario["ok"] != true).collect();
    assert!(contradicted.is_empty(), "{contradicted:#?}\n{log}");
    assert!(output.status.success(), "{log}");
}
