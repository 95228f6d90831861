//! Makes changes to a linked proxy-wasm module that the SDK does not allow for. `wasm-build.sh` runs it.
//!
//! The SDK exports every callback that exists, and Envoy makes every exported callback for each request. So the
//! callbacks in which a filter does nothing are removed, along with the code that only they reach.
//!
//! The SDK has one way to hold headers, `Action::Pause`. Its effect in Envoy depends on the plugin's option
//! `allow_on_headers_stop_iteration`: without it the whole message waits, with it only the headers. So the callbacks
//! for headers are changed to ask for the former explicitly.
//!
//! A module that imports functions that Envoy does not provide is rejected here, because Envoy reports that only when
//! it loads the module.

use std::process::ExitCode;

use rustc_demangle::demangle;
use walrus::ir::BinaryOp;
use walrus::{ExportItem, FunctionBuilder, FunctionId, Module};

const USAGE: &str = "usage: wasm-trim MODULE.wasm TRIMMED.wasm [EXPORT...]

Writes MODULE with these exports only, where a paused message waits as a whole; or as it is, if none is given.";

/// What a host calls to begin with, and to hand over memory.
const ALWAYS: [&str; 4] = ["memory", "_initialize", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate"];

/// The callbacks whose result says what becomes of headers, and of what comes behind them.
const HEADERS: [&str; 2] = ["proxy_on_request_headers", "proxy_on_response_headers"];

/// What the ABI calls `StopIteration`: the SDK's `Action::Pause`.
const STOP_ITERATION: i32 = 1;
/// What the ABI calls `StopAllIterationAndWatermark`: nothing of the message goes on, nor are there callbacks for its
/// body and trailers, until it is resumed. A long body is not refused but waits at its sender.
const STOP_ALL_ITERATION_AND_WATERMARK: i32 = 4;

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
        HEADERS.into_iter().try_for_each(|name| hold_all(&mut module, name))?;
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

/// Has an exported callback for headers hold the whole message where it would hold the headers.
fn hold_all(module: &mut Module, name: &str) -> Result<(), String> {
    let Some(export) = module.exports.iter_mut().find(|export| export.name == name) else { return Ok(()) };
    let ExportItem::Function(callback) = export.item else { return Err(format!("{name} is no function")) };
    let wrapped = wrapper(module, callback, name);
    if let Some(export) = module.exports.iter_mut().find(|export| export.name == name) {
        export.item = ExportItem::Function(wrapped);
    }
    Ok(())
}

/// A function that calls this one, and returns what it returns, except for the way to hold.
fn wrapper(module: &mut Module, callback: FunctionId, name: &str) -> FunctionId {
    let (params, results) = module.types.params_results(module.funcs.get(callback).ty());
    let (params, results) = (params.to_vec(), results.to_vec());
    let arguments: Vec<_> = params.iter().map(|kind| module.locals.add(*kind)).collect();
    let flow = module.locals.add(walrus::ValType::I32);
    let mut builder = FunctionBuilder::new(&mut module.types, &params, &results);
    builder.name(format!("{name} (holding all)"));
    let mut body = builder.func_body();
    body.i32_const(STOP_ALL_ITERATION_AND_WATERMARK);
    for argument in &arguments {
        body.local_get(*argument);
    }
    // The first value if the comparison is true, else the second.
    body.call(callback)
        .local_tee(flow)
        .local_get(flow)
        .i32_const(STOP_ITERATION)
        .binop(BinaryOp::I32Eq)
        .select(Some(walrus::ValType::I32));
    builder.finish(arguments, &mut module.funcs)
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
