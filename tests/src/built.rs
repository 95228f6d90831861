//! The programs under test, built from the current sources, never taken from a target folder as they are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository's root")
}

/// The filter, `dist/session_mesh.wasm`.
pub fn filter() -> &'static Path {
    static FILTER: OnceLock<PathBuf> = OnceLock::new();
    FILTER.get_or_init(|| {
        output(Command::new("./wasm-build.sh").current_dir(root()));
        root().join("dist/session_mesh.wasm")
    })
}

/// `bench/noop-filter`, `dist/noop_filter.wasm`: another project's filter.
pub fn noop_filter() -> &'static Path {
    static FILTER: OnceLock<PathBuf> = OnceLock::new();
    FILTER.get_or_init(|| {
        output(Command::new("./wasm-build.sh").arg("noop-filter").current_dir(root()));
        root().join("dist/noop_filter.wasm")
    })
}

/// The filter as another build: the same code, and a section more that no runtime reads, so it is another module to
/// Envoy.
///
/// There is no earlier release to upgrade from, and a second build would differ in nothing but its bytes, either.
pub fn other_filter(folder: &Path) -> PathBuf {
    // A custom section: id 0, the length of what follows, the length of its name, the name
    // (WebAssembly Core Specification, section 5.5.3).
    const SECTION: &[u8] = b"\0\x0c\x0banother one";
    let path = folder.join("session_mesh_other.wasm");
    let module = fs::read(filter()).expect("the filter was built");
    fs::write(&path, [&module, SECTION].concat()).expect("the temporary folder can be written to");
    path
}

/// The program `session-gateway`.
pub fn gateway() -> &'static Path {
    static GATEWAY: OnceLock<PathBuf> = OnceLock::new();
    GATEWAY.get_or_init(|| {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let messages = output(Command::new(cargo).current_dir(root()).args([
            "build",
            "--locked",
            "--package=session-gateway",
            "--bin=session-gateway",
            "--message-format=json-render-diagnostics",
        ]));
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
            .expect("cargo names the program that it built")
    })
}

/// A tool that test.sh installs: the one that `variable` names, the one on the PATH, or `path` in its folder
/// in `.tools/`, which is called `package-VERSION`. Of several versions it is the one that `scripts/tools.sh` pins.
pub(crate) fn tool(variable: &str, name: &str, package: &str, path: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let search_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&search_path).map(|folder| folder.join(name));
    let pins = fs::read_to_string(root().join("scripts/tools.sh")).unwrap_or_default();
    let mut installed: Vec<_> = fs::read_dir(root().join(".tools"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|folder| {
            let name = folder.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix(package)?.strip_prefix('-')?;
            let is_pinned = pins.lines().any(|line| line.ends_with(&format!("_VERSION={version}")));
            Some((!is_pinned, folder.path().join(path)))
        })
        .collect();
    installed.sort();
    let installed = installed.into_iter().map(|(_, path)| path);
    on_path
        .chain(installed)
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{name} is missing: ./test.sh installs it, or set {variable}"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be started: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
