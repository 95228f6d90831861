//! Compares the documents with the code: keys, defaults, errors, headers, states, metrics, tests and links.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for; clippy only sees that in functions marked #[test]"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

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

/// The repository's files, as paths from its root.
fn tracked(pattern: &str) -> BTreeSet<String> {
    let output = Command::new("git").args(["ls-files", "-z", pattern]).current_dir(root()).output().expect("git runs");
    let files: BTreeSet<String> =
        str::from_utf8(&output.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect();
    assert!(!files.is_empty(), "the tests run in a checkout of the repository");
    files
}

/// Every document of the repository, by its path.
fn documents() -> Vec<(PathBuf, String)> {
    let paths = tracked("*.md").into_iter().map(|name| root().join(name));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
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
    let written: Value = serde_json::from_str(all_defaults).unwrap();
    let keys = first_cells(CONFIGURATION, "key");
    // Secrets in the configuration are for tests only, and no starting point.
    for key in keys.iter().filter(|key| !key.contains("[]") && *key != "secrets") {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(written.pointer(&pointer).is_some(), "the example with all defaults has no {key}");
    }
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

/// The text of all Rust sources, tests included.
fn rust() -> String {
    let mut texts = String::new();
    for folder in ["crates", "src", "tests"] {
        sources(&root().join(folder), &mut texts);
    }
    texts
}

#[test]
fn every_test_that_is_named_as_evidence_exists() {
    let texts = rust();
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

/// A document's lines that are no part of a fenced block.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// The anchors of a document's sections.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = prose(document).filter(|line| line.starts_with('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#'))).collect()
}

/// Where the links of a document lead.
fn targets(document: &str) -> impl Iterator<Item = &str> {
    let links = prose(document).flat_map(|line| line.split("](").skip(1));
    links.map(|rest| rest.split(')').next().unwrap())
}

/// The path from the root of what a document links to.
fn linked(document: &Path, target: &str) -> String {
    let mut names = Vec::new();
    for component in document.strip_prefix(root()).unwrap().parent().unwrap().join(target).components() {
        match component {
            Component::ParentDir => drop(names.pop().expect("links stay in the repository")),
            name => names.push(name.as_os_str().to_str().unwrap().to_owned()),
        }
    }
    names.join("/")
}

#[test]
fn every_link_leads_somewhere() {
    let files = tracked(".");
    let mut links = 0;
    for (path, text) in documents() {
        for target in targets(&text).filter(|target| !target.contains("://")) {
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let document = if file.is_empty() {
                text.clone()
            } else {
                let file = linked(&path, file);
                let is_tracked =
                    files.contains(&file) || files.iter().any(|name| name.starts_with(&format!("{file}/")));
                assert!(is_tracked, "{}: {target}", path.display());
                fs::read_to_string(root().join(file)).unwrap_or_default()
            };
            assert!(fragment.is_empty() || anchors(&document).contains(fragment), "{}: {target}", path.display());
            links += 1;
        }
    }
    assert!(links > 100, "{links} links");
}

#[test]
fn the_architecture_says_where_each_section_of_the_upstreams_document_is() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let linked: BTreeSet<&str> =
        targets(&architecture).filter_map(|target| target.strip_prefix("docs/upstreams.md#")).collect();
    let title = "for-upstreams";
    for section in anchors(UPSTREAMS).iter().filter(|section| *section != title) {
        assert!(linked.contains(section.as_str()), "there is no row for {section}");
    }
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

/// What the first documents call by its name in the source is called so there, files and folders as well.
#[test]
fn the_first_documents_name_what_exists() {
    let files = tracked(".");
    let texts = rust();
    let words: BTreeSet<&str> = texts.split(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_').collect();
    let is_name = |code: &str| {
        let is_in_it = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_';
        code.contains(|symbol: char| symbol == '_' || symbol.is_ascii_uppercase()) && code.chars().all(is_in_it)
    };
    let is_path = |code: &str| {
        let is_in_it = |symbol: char| symbol.is_ascii_alphanumeric() || "._-/".contains(symbol);
        code.contains('/') && !code.starts_with(['/', '.']) && code.chars().all(is_in_it)
    };
    let mut checked = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text: String = prose(&fs::read_to_string(root().join(document)).unwrap()).collect::<Vec<_>>().join("\n");
        let code = code(&text);
        // HttpSession is Tomcat's.
        for name in code.iter().filter(|code| is_name(code) && **code != "HttpSession") {
            assert!(words.contains(name), "{document}: there is no {name}");
            checked += 1;
        }
        for path in code.iter().filter(|code| is_path(code)) {
            let is_there = files.iter().any(|file| file == path || file.starts_with(&format!("{path}/")));
            assert!(is_there, "{document}: there is no {path}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} names and paths");
}

/// The commands of a document: its code, inline or indented, without what is said of it, part by part.
fn commands(document: &str) -> Vec<String> {
    let mut commands: Vec<String> =
        code(&prose(document).collect::<Vec<_>>().join("\n")).into_iter().map(str::to_owned).collect();
    commands.extend(prose(document).filter_map(|line| line.strip_prefix("    ")).map(str::to_owned));
    let parts = |command: &String| -> Vec<String> {
        let said = command.split(" # ").next().unwrap();
        said.split("&&").map(|part| part.trim().to_owned()).collect()
    };
    commands.iter().flat_map(parts).collect()
}

/// A reader who tries a command of the first documents finds its script, its options, its package and its tests.
#[test]
fn the_first_documents_commands_can_be_run() {
    let source = rust();
    let manifests: String =
        tracked("*Cargo.toml").iter().map(|path| fs::read_to_string(root().join(path)).unwrap()).collect();
    let mut scripts = 0;
    let mut tests = 0;
    for document in ["CONTRIBUTING.md", "README.md"] {
        for command in commands(&fs::read_to_string(root().join(document)).unwrap()) {
            let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
            let program = words.next().unwrap_or_default();
            if program.strip_suffix(".sh").is_some() {
                let path = root().join(program);
                let mut script = fs::read_to_string(path).unwrap_or_else(|_| panic!("{document}: {program}"));
                if program == "./bench.sh" {
                    script += &fs::read_to_string(root().join("bench/bench.py")).unwrap();
                }
                for option in words.filter(|word| word.starts_with("--")) {
                    assert!(script.contains(option), "{document}: {program} has no {option}");
                }
                scripts += 1;
            } else if command.contains("cargo test ") {
                let words: Vec<_> = words.skip_while(|word| *word != "test").skip(1).collect();
                let [_, package, rest @ ..] = &words[..] else { panic!("{document}: {command}") };
                assert!(manifests.contains(&format!("name = \"{package}\"")), "{document}: there is no {package}");
                match rest {
                    [] | ["--test", "documentation"] => {}
                    [.., test] if test.ends_with("::") => {
                        assert!(source.contains(&format!("mod {};", test.trim_end_matches(':'))), "{document}: {test}");
                    }
                    [.., test] => assert!(source.contains(&format!("fn {test}")), "{document}: {test}"),
                }
                tests += 1;
            }
        }
    }
    assert!(scripts > 8 && tests > 5, "{scripts} scripts and {tests} tests");
}

/// Everyone can run what CI runs: `test.sh` or a script of this repository, with options that it has.
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
