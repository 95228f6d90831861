//! Leaves out of a proxy-wasm module what its host has no use for. Run by `wasm-build.sh`.
//!
//! The SDK exports every callback that there is, and Envoy makes those that a module exports, for each request. So the
//! exports that a filter does nothing in are dropped after linking, and with them the code that only they reach. A
//! module that imports what Envoy does not offer is refused: Envoy says so only when it loads it.

use std::process::ExitCode;

use rustc_demangle::demangle;
use walrus::Module;

const USAGE: &str = "usage: wasm-trim MODULE.wasm TRIMMED.wasm [EXPORT...]

Writes MODULE with these exports only, or with all of them if none is given.";

/// What a host calls to begin with, and to hand over memory.
const ALWAYS: [&str; 4] = ["memory", "_initialize", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, exports @ ..] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match trim(from, to, exports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wasm-trim: {from}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn trim(from: &str, to: &str, exports: &[String]) -> Result<(), String> {
    let mut module = Module::from_file(from).map_err(|error| format!("{error:#}"))?;
    check_imports(&module)?;
    if !exports.is_empty() {
        keep(&mut module, exports)?;
        walrus::passes::gc::run(&mut module);
    }
    // They are what a backtrace in Envoy's log shows. Short ones: they are a tenth of the module.
    for function in module.funcs.iter_mut() {
        function.name = function.name.take().map(|name| format!("{:#}", demangle(&name)));
    }
    module.emit_wasm_file(to).map_err(|error| format!("{error:#}"))
}

fn check_imports(module: &Module) -> Result<(), String> {
    let is_offered = |module: &str, name: &str| {
        module == "wasi_snapshot_preview1" || (module == "env" && name.starts_with("proxy_"))
    };
    let refused: Vec<_> = module
        .imports
        .iter()
        .filter(|import| !is_offered(&import.module, &import.name))
        .map(|import| format!("{}.{}", import.module, import.name))
        .collect();
    if !refused.is_empty() {
        return Err(format!("imports what Envoy does not offer: {}", refused.join(", ")));
    }
    if module.imports.iter().next().is_none() {
        return Err("imports nothing: it can't be a proxy-wasm filter".to_owned());
    }
    Ok(())
}

fn keep(module: &mut Module, exports: &[String]) -> Result<(), String> {
    let has = |name: &str| module.exports.iter().any(|export| export.name == name);
    let kept = || exports.iter().map(String::as_str).chain(ALWAYS);
    if let Some(missing) = kept().find(|name| !has(name)) {
        return Err(format!("does not export {missing}"));
    }
    let dropped: Vec<_> = module
        .exports
        .iter()
        .filter(|export| !kept().any(|name| name == export.name))
        .map(walrus::Export::id)
        .collect();
    for export in dropped {
        module.exports.delete(export);
    }
    Ok(())
}
