//! What the documents say is what the code does: keys, defaults, errors, headers, states, metrics, tests and links.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for; clippy only sees that in functions marked #[test]"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use session_filter::config::{Config, ConfigError};
use session_filter::counter::{CALLOUT_MS, Counter};
use session_filter::upstream_api::SessionState;

const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const ENVOY: &str = include_str!("../../../envoy/envoy.yaml");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const SECURITY: &str = include_str!("../../../docs/security.md");
const UPSTREAMS: &str = include_str!("../../../docs/upstreams.md");
const UPSTREAM_API: &str = include_str!("../src/upstream_api.rs");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document of the repository, by its path.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> = [
        "README.md",
        "README.zh-CN.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CODE_OF_CONDUCT.md",
    ]
    .iter()
    .map(|name| root().join(name))
    .collect();
    for folder in ["docs", "docs/deploy", "docs/internals"] {
        paths.extend(fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The rows of all tables whose first column has this title, cell by cell.
fn rows(document: &str, first_column: &str) -> Vec<Vec<String>> {
    // In a cell, `|` is written `\|`.
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace(r"\|", "\0");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
    };
    let mut rows = Vec::new();
    let mut is_wanted = None;
    for line in document.lines() {
        if !line.starts_with('|') {
            is_wanted = None;
        } else if let Some(is_wanted) = is_wanted {
            if is_wanted && !line.starts_with("|-") {
                rows.push(cells(line));
            }
        } else {
            is_wanted = Some(cells(line)[0] == first_column);
        }
    }
    assert!(!rows.is_empty(), "there is a table of {first_column}");
    rows
}

/// The texts between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The text of a cell that is code, in single backticks, or in double ones if it has some of its own.
fn one_code(cell: &str) -> &str {
    let inner = |fence: &str| cell.strip_prefix(fence)?.strip_suffix(fence).map(str::trim);
    inner("``").or_else(|| inner("`")).unwrap_or_else(|| panic!("{cell} is not code"))
}

fn first_cells(document: &str, first_column: &str) -> BTreeSet<String> {
    let rows = rows(document, first_column);
    let cells: BTreeSet<String> = rows.iter().map(|row| one_code(&row[0]).to_owned()).collect();
    assert_eq!(cells.len(), rows.len(), "one row for each {first_column}");
    cells
}

fn environment(name: &str) -> Option<String> {
    const SECRET: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    match name {
        "SESSION_GATEWAY_TOKEN" => Some("token".into()),
        "SESSION_SECRETS" => Some(SECRET.into()),
        "WITH_SPACE" => Some("to ken".into()),
        "SHORT" => Some("c2hvcnQ=".into()),
        "GARBLED" => Some("not base64!".into()),
        "TWICE" => Some([SECRET, SECRET].join(",")),
        _ => None,
    }
}

fn parse(config: &Value) -> Result<Config, ConfigError> {
    Config::parse(config.to_string().as_bytes(), environment)
}

/// A configuration that parses, with one rule to try the keys of rules in.
fn valid() -> Value {
    json!({
        "gateway": {"cluster": "session_gateway"},
        "rules": [{"path_prefix": "/account/", "session": "required"}]
    })
}

/// The object that holds the last key of `path` (`rules[].session` is that of the first rule), and that key.
fn place<'a>(config: &'a mut Value, path: &str) -> (&'a mut Value, String) {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = config;
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        at = match parent.strip_suffix("[]") {
            Some(list) => &mut at[list][0],
            None => &mut at[parent],
        };
    }
    (at, key.to_owned())
}

fn with(mut config: Value, path: &str, value: Value) -> Value {
    let (object, key) = place(&mut config, path);
    object[&key] = value;
    config
}

/// The keys of the object at `path`, as the parser lists them when it meets one that isn't; `None` if it is no object.
fn accepted(path: &str) -> Option<Vec<String>> {
    let probe = json!({"no such key": 0});
    let config = match path.strip_suffix("[]") {
        _ if path.is_empty() => probe,
        Some(list) => with(valid(), list, json!([probe])),
        None => with(valid(), path, probe),
    };
    let error = parse(&config).expect_err("refused");
    let (_, expected) = error.reason.split_once("unknown field `no such key`, expected ")?;
    Some(code(expected).into_iter().map(str::to_owned).collect())
}

/// The paths of all values below `path`, found by asking the parser.
fn keys_below(path: &str, found: &mut BTreeSet<String>) {
    for key in accepted(path).expect("an object") {
        let key = if path.is_empty() { key } else { format!("{path}.{key}") };
        let list = format!("{key}[]");
        if accepted(&key).is_some() {
            keys_below(&key, found);
        } else if accepted(&list).is_some() {
            keys_below(&list, found);
        } else {
            found.insert(key);
        }
    }
}

#[test]
fn every_configuration_key_is_documented_and_nothing_else() {
    let mut keys = BTreeSet::new();
    keys_below("", &mut keys);
    assert!(keys.contains("gateway.cluster") && keys.contains("rules[].session"), "{keys:?}");
    assert_eq!(first_cells(CONFIGURATION, "key"), keys);
}

#[test]
fn the_documented_defaults_are_those_of_the_parser() {
    let default = format!("{:?}", parse(&valid()).unwrap());
    for row in rows(CONFIGURATION, "key") {
        let key = one_code(&row[0]);
        if row[2] == "required" {
            let mut config = valid();
            let (object, name) = place(&mut config, key);
            object.as_object_mut().unwrap().remove(&name).expect("given");
            let error = parse(&config).expect_err(key);
            assert!(error.reason.contains(&format!("missing field `{name}`")), "{key}: {error}");
            continue;
        }
        let value: Value = serde_json::from_str(one_code(&row[2])).unwrap();
        let given = parse(&with(valid(), key, value)).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(format!("{given:?}"), default, "{key}");
    }
}

#[test]
fn the_documented_configurations_parse() {
    let blocks = CONFIGURATION.split("```json\n").skip(1);
    let examples: Vec<&str> = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
    let parsed = |text: &str| format!("{:?}", Config::parse(text.as_bytes(), environment).unwrap());
    let [least, all_defaults, ref others @ ..] = examples[..] else { panic!("at least two examples") };
    assert_eq!(parsed(least), parsed(all_defaults));
    for other in others {
        assert_ne!(parsed(other), parsed(least));
    }
}

#[test]
fn the_documented_errors_are_those_of_the_parser() {
    for row in rows(CONFIGURATION, "mistake") {
        let mistake = one_code(&row[0]);
        let (key, value) = mistake.split_once(": ").unwrap();
        let config = json!({"gateway": {"cluster": "session_gateway"}});
        let error = parse(&with(config, key, serde_json::from_str(value).unwrap())).expect_err(mistake).to_string();
        // Where JSON has a place for the error, it depends on how the text is laid out.
        let (error, _) = error.split_once(" at line ").unwrap_or((&error, ""));
        assert_eq!(one_code(&row[1]), error, "{mistake}");
    }
}

#[test]
fn every_environment_variable_is_documented() {
    for variable in first_cells(CONFIGURATION, "variable") {
        let without = |name: &str| environment(name).filter(|_| name != variable);
        let error = Config::parse(valid().to_string().as_bytes(), without).expect_err("needed");
        assert!(error.reason.contains(&variable), "{error}");
    }
    let documented = first_cells(CONFIGURATION, "variable");
    let only_those = |name: &str| environment(name).filter(|_| documented.contains(name));
    assert!(Config::parse(valid().to_string().as_bytes(), only_those).is_ok());
}

/// The header names that `upstream_api` defines.
fn headers() -> BTreeSet<String> {
    let constants = UPSTREAM_API.lines().filter_map(|line| line.strip_prefix("pub const "));
    let values = constants.filter_map(|constant| constant.split_once("&str = \"")?.1.strip_suffix("\";"));
    let headers: BTreeSet<String> = values.map(str::to_owned).collect();
    assert!(headers.contains("x-session-id"), "{headers:?}");
    headers
}

#[test]
fn every_header_is_documented_and_nothing_else() {
    let columns = ["request header", "response header", "header to the client"];
    let documented: BTreeSet<String> = columns.into_iter().flat_map(|column| first_cells(UPSTREAMS, column)).collect();
    assert_eq!(documented, headers());
}

#[test]
fn no_document_names_a_header_that_does_not_exist() {
    let headers = headers();
    for (path, text) in documents() {
        let text = text.to_ascii_lowercase();
        for word in text.split(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '-') {
            let is_ours = word.starts_with("x-session-") && word != "x-session-";
            assert!(!is_ours || headers.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn every_state_is_documented_and_nothing_else() {
    let next = |state: &SessionState| match state {
        SessionState::New => Some(SessionState::Active),
        SessionState::Active => Some(SessionState::Expired),
        SessionState::Expired => Some(SessionState::Unavailable),
        SessionState::Unavailable => None,
    };
    let states = core::iter::successors(Some(SessionState::New), next);
    assert_eq!(first_cells(UPSTREAMS, "state"), states.map(|state| state.as_str().to_owned()).collect());
}

#[test]
fn every_metric_is_documented_and_nothing_else() {
    let counters = Counter::ALL.iter().map(|counter| format!("wasmcustom.{}", counter.name()));
    assert_eq!(first_cells(OPERATIONS, "metric"), counters.collect());
    assert_eq!(first_cells(OPERATIONS, "histogram"), BTreeSet::from([format!("wasmcustom.{CALLOUT_MS}")]));
}

#[test]
fn every_metric_has_its_label_and_the_documented_labels_are_those_of_the_shipped_configuration() {
    let tags = |document: &'static str| -> BTreeSet<&str> {
        document.lines().map(str::trim).filter(|line| line.starts_with("- { tag_name: ")).collect()
    };
    assert_eq!(tags(OPERATIONS), tags(ENVOY));
    let groups: BTreeSet<&str> = Counter::ALL.iter().map(|counter| counter.name().split('.').nth(1).unwrap()).collect();
    for group in groups {
        let is_named =
            |tag: &&str| tag.split(|symbol: char| !matches!(symbol, 'a'..='z' | '_')).any(|word| word == group);
        assert!(tags(ENVOY).iter().any(is_named), "{group}");
    }
}

/// Adds the text of the Rust sources below a folder.
fn sources(folder: &Path, texts: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_is_named_as_evidence_exists() {
    let mut texts = String::new();
    for folder in ["crates", "src", "tests"] {
        sources(&root().join(folder), &mut texts);
    }
    let rows = rows(SECURITY, "id");
    let mut named = 0;
    for row in &rows {
        for test in code(row.last().unwrap()) {
            assert!(texts.contains(&format!("fn {test}(")), "{}: {test}", row[0]);
            named += 1;
        }
    }
    assert!(named >= rows.len() / 2, "{named} tests for {} requirements", rows.len());
}

/// A heading's anchor, as code hosts make it.
fn anchor(heading: &str) -> String {
    let is_kept = |symbol: &char| symbol.is_alphanumeric() || matches!(symbol, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", path.display());
            if !fragment.is_empty() {
                let linked = fs::read_to_string(&file).unwrap();
                let mut headings = linked.lines().filter_map(|line| line.strip_prefix('#'));
                let is_there = headings.any(|heading| anchor(heading.trim_start_matches('#')) == fragment);
                assert!(is_there, "{}: {target}", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 10, "{links} links");
}

/// The sections of a README, how many questions they answer, their links, and their code: what a translation keeps.
struct Outline {
    sections: usize,
    questions: usize,
    links: BTreeSet<String>,
    /// Fenced blocks, and lines of commands without their comments. Diagrams are left out: their labels are translated.
    code: Vec<String>,
}

fn outline(readme: &str) -> Outline {
    let mut outline = Outline { sections: 0, questions: 0, links: BTreeSet::new(), code: Vec::new() };
    let mut fenced: Option<Vec<&str>> = None;
    for line in readme.lines() {
        if line.starts_with("```") {
            match fenced.take() {
                None => fenced = Some(vec![line]),
                Some(block) if block[0] == "```mermaid" => {}
                Some(block) => outline.code.push(block.join("\n")),
            }
        } else if let Some(block) = &mut fenced {
            block.push(line);
        } else if let Some(command) = line.strip_prefix("    ") {
            outline.code.push(command.split(" # ").next().unwrap().trim().to_owned());
        } else {
            outline.sections += usize::from(line.starts_with("## "));
            outline.questions += usize::from(line.starts_with("**"));
            let targets = line.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
            outline.links.extend(targets.map(str::to_owned));
        }
    }
    outline
}

/// A section, a command, a question or a link that is added to `README.md` is not forgotten in the translation, which
/// ends with a page of its own for those who come from memcached-session-manager.
#[test]
fn the_chinese_readme_has_what_the_english_one_has() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (page, migration) = ("README.zh-CN.md", "\n## 从 nginx + Tomcat + memcached-session-manager 迁移\n");
    let chinese = read(page);
    let (chinese, migration) = chinese.split_once(migration).expect("the page on migrating");
    let (english, chinese) = (outline(&read("README.md")), outline(chinese));
    assert_eq!(chinese.sections, english.sections);
    assert_eq!(chinese.questions, english.questions);
    assert_eq!(chinese.code, english.code);
    let missing: Vec<_> = english.links.difference(&chinese.links).filter(|link| *link != page).collect();
    assert!(missing.is_empty(), "{page} lacks links to {missing:?}");
    assert!(outline(migration).code.contains(&"./demo.sh --memcached --tomcat".to_owned()));
}

/// What ARCHITECTURE.md calls by its name in the source is called so there.
#[test]
fn the_architecture_names_what_exists() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = |folder: &str| -> String {
        let mut folders = vec![root().join(folder)];
        let mut all = String::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    all += &fs::read_to_string(path).unwrap();
                }
            }
        }
        all
    };
    let sources = ["src", "crates/session/src", "crates/filter/src", "crates/gateway/src"].map(sources).concat();
    let is_name = |code: &&str| code.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !code.is_empty();
    let mut names = 0;
    for name in code(&architecture).into_iter().filter(is_name).filter(|name| !root().join(name).exists()) {
        assert!(sources.contains(name), "there is no {name}");
        names += 1;
    }
    assert!(names > 5, "{names} names");
}

/// What CI runs can be run by everybody: `test.sh` or a script of this repository, with options that it has.
#[test]
fn workflows_run_the_repositorys_own_commands() {
    let help = fs::read_to_string(root().join("test.sh")).unwrap();
    let mut runs = 0;
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let workflow = fs::read_to_string(&path).unwrap();
        for command in workflow.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("run: ")) {
            let mut words = command.split(' ');
            let program = words.next().unwrap();
            assert!(program.starts_with("./") || program.starts_with("scripts/"), "{}: {command}", path.display());
            assert!(root().join(program).exists(), "{}: {program}", path.display());
            if program == "./test.sh" {
                for option in words {
                    assert!(help.contains(&format!("\n  {option} ")), "{}: test.sh has no {option}", path.display());
                }
            }
            runs += 1;
        }
    }
    assert!(runs >= 5, "{runs} commands");
}
