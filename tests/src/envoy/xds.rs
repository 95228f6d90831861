//! Envoy with `envoy/xds/`: the filter, the gateway's cluster and its endpoints in files that change while it runs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Configuration, Envoy, SECRET, merge, path_value, socket};
use crate::built;
use crate::ports;
use crate::wait;

const FOLDER: &str = "envoy/xds";

/// One of the files that Envoy reads again when it is replaced.
#[derive(Clone, Copy, Debug)]
pub enum File {
    /// The session filter, by ECDS.
    Filter,
    /// The gateway's cluster, by CDS.
    Clusters,
    /// Where the gateways are, by EDS.
    Endpoints,
}

/// What Envoy makes of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in force.
    Taken,
    /// Envoy goes on with what it had.
    Rejected,
}

/// The files of `envoy/xds/` in a folder of their own, with other ports and paths and otherwise as they are.
pub struct Files {
    folder: TempDir,
    bootstrap: Configuration,
    filter: Value,
    clusters: Value,
    endpoints: Value,
}

/// A running Envoy and its files.
pub struct Dynamic {
    /// The process.
    pub envoy: Envoy,
    /// What it reads.
    pub files: Files,
}

impl File {
    const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter.yaml",
            Self::Clusters => "clusters.yaml",
            Self::Endpoints => "endpoints.yaml",
        }
    }

    /// What the statistics of its subscription start with.
    const fn statistics(self) -> &'static str {
        match self {
            Self::Filter => "extension_config_discovery.http_filter.session-mesh",
            Self::Clusters => "cluster_manager.cds",
            Self::Endpoints => "cluster.session_gateway",
        }
    }
}

impl Files {
    /// The files, with free ports and patient timeouts.
    pub fn read() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let read = |name: &str| {
            let path = built::root().join(FOLDER).join(name);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let here = folder.path().to_str().expect("the paths of tests are UTF-8");
            serde_saphyr::from_str::<Value>(&text.replace(FOLDER, here))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let bootstrap = Configuration { value: read("envoy.yaml"), secrets: SECRET.to_owned() }.on_free_ports();
        let mut files = Self {
            bootstrap,
            filter: read(File::Filter.name()),
            clusters: read(File::Clusters.name()),
            endpoints: read(File::Endpoints.name()),
            folder,
        };
        files.module(built::filter());
        files.plugin(json!({"gateway": {"timeout": "20s"}}));
        files.cluster(json!({"connect_timeout": "20s"}));
        files.gateways(&[ports::free()]);
        files
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Changes the bootstrap, `envoy.yaml`, which is read only at the start.
    pub fn bootstrap(mut self, change: impl FnOnce(Configuration) -> Configuration) -> Self {
        self.bootstrap = change(self.bootstrap);
        self
    }

    /// The bootstrap.
    pub const fn configuration(&self) -> &Configuration {
        &self.bootstrap
    }

    /// Starts Envoy with them.
    pub fn start(self) -> Dynamic {
        Dynamic { envoy: self.bootstrap.clone().start(), files: self }
    }

    /// Changes the filter's configuration by a JSON merge patch.
    pub fn plugin(&mut self, patch: Value) {
        self.set_plugin(patch);
        self.write(File::Filter);
    }

    /// The same, to be written with the next change.
    pub fn set_plugin(&mut self, patch: Value) {
        merge(at(&mut self.filter, "/resources/0/typed_config/config/configuration/value"), patch);
    }

    /// Changes the Wasm filter's own options (`PluginConfig`) by a JSON merge patch.
    pub fn wasm(&mut self, patch: Value) {
        merge(at(&mut self.filter, "/resources/0/typed_config/config"), patch);
        self.write(File::Filter);
    }

    /// Has the filter run this module.
    pub fn module(&mut self, module: &Path) {
        self.wasm(json!({"vm_config": {"code": {"remote": null, "local": {"filename": path_value(module)}}}}));
    }

    /// Changes the gateway's cluster by a JSON merge patch.
    pub fn cluster(&mut self, patch: Value) {
        merge(at(&mut self.clusters, "/resources/0"), patch);
        self.write(File::Clusters);
    }

    /// Puts another cluster beside the gateway's, which leads to this port.
    pub fn second_cluster(&mut self, name: &str, port: u16) {
        let mut cluster = at(&mut self.clusters, "/resources/0").clone();
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": socket(port)}}]}]);
        merge(
            &mut cluster,
            json!({
                "name": name, "type": "STATIC", "eds_cluster_config": null,
                "load_assignment": {"cluster_name": name, "endpoints": endpoints}
            }),
        );
        at(&mut self.clusters, "/resources").as_array_mut().expect("a list of clusters").push(cluster);
        self.write(File::Clusters);
    }

    /// Takes the first cluster away.
    pub fn only_second_cluster(&mut self) {
        at(&mut self.clusters, "/resources").as_array_mut().expect("a list of clusters").remove(0);
        self.write(File::Clusters);
    }

    /// Says where the gateways are.
    pub fn gateways(&mut self, ports: &[u16]) {
        let endpoints: Vec<Value> = ports.iter().map(|port| json!({"endpoint": {"address": socket(*port)}})).collect();
        *at(&mut self.endpoints, "/resources/0/endpoints") = json!([{"lb_endpoints": endpoints}]);
        self.write(File::Endpoints);
    }

    fn write(&self, file: File) {
        let value = match file {
            File::Filter => &self.filter,
            File::Clusters => &self.clusters,
            File::Endpoints => &self.endpoints,
        };
        self.replace(file, &value.to_string());
    }

    /// What is in a file.
    pub fn content(&self, file: File) -> String {
        fs::read_to_string(self.folder.path().join(file.name())).expect("the file is there")
    }

    /// Moves a new file over an old one, as the documents say that it is done.
    pub fn replace(&self, file: File, text: &str) {
        let folder = self.folder.path();
        let new = folder.join(".new");
        fs::write(&new, text).expect("the temporary folder can be written to");
        fs::rename(&new, folder.join(file.name())).expect("a file can be renamed");
    }

    /// Takes a file away.
    pub fn remove(&self, file: File) {
        fs::remove_file(self.folder.path().join(file.name())).expect("the file is there");
    }
}

impl Dynamic {
    /// Replaces a file, once, and waits until Envoy has taken or rejected it.
    pub fn change(&mut self, file: File, change: impl FnOnce(&mut Files)) -> Verdict {
        // Whatever is moved into the folder has Envoy read all of the files. It must be done with all, or what is left
        // over would be taken for the answer to the next change. (A cluster that changes begins anew with its
        // endpoints.)
        let others = match file {
            File::Clusters => [File::Filter, File::Clusters].as_slice(),
            File::Filter | File::Endpoints => &[File::Filter, File::Clusters, File::Endpoints],
        };
        let read = |mesh: &Self| others.iter().map(|file| mesh.verdicts(*file)).collect::<Vec<_>>();
        let (before, (_, rejected_before)) = (read(self), self.verdicts(file));
        change(&mut self.files);
        wait::until(&format!("Envoy has read {}", file.name()), || {
            let all = before.iter().zip(read(self)).all(|(before, now)| now.0 + now.1 > before.0 + before.1);
            all.then_some(())
        });
        if self.verdicts(file).1 > rejected_before { Verdict::Rejected } else { Verdict::Taken }
    }

    /// How many updates of a file Envoy has taken and rejected; none, if it does not read it any more.
    fn verdicts(&self, file: File) -> (u64, u64) {
        let prefix = file.statistics();
        let count = |what: &str| self.envoy.find_statistic(&format!("{prefix}.{what}")).unwrap_or_default();
        (count("update_success"), count("update_rejected") + count("update_failure"))
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    value.pointer_mut(pointer).unwrap_or_else(|| panic!("the file has nothing at {pointer}"))
}
