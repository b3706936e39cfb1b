//! The commands of the pages, run as they stand there, but for blocks that begin with what they need: `# needs …`.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{Place, REFERENCES, SOURCES, models};

fn root() -> PathBuf {
    models().parent().unwrap().into()
}

/// README.md, the guide and the cards of models, with their names.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    for folder in ["docs", "models"] {
        let below = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(below.map(|path| if path.is_dir() { path.join("README.md") } else { path }));
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// Every command of the blocks that need nothing, with lines that go on joined.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap();
        if !block.starts_with("# needs ") {
            found.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
        }
    }
    found
}

/// What begins with a word that is run, between single backticks.
fn inline(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let ticked = prose.split('`').skip(1).step_by(2);
    let first = ["cargo ", "bild ", "scripts/", "python "];
    ticked.filter(|text| first.iter().any(|word| text.starts_with(word))).map(|text| text.replace('\n', " ")).collect()
}

/// The words of a command, as a shell takes them apart.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in command.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The arguments of the program `bild`, if it is what is run.
fn arguments(words: &[String]) -> Option<&[String]> {
    match words {
        [first, rest @ ..] if first == "bild" => Some(rest),
        words => {
            let at = words.iter().position(|word| word == "--")?;
            let (cargo, rest) = words.split_at(at);
            (cargo == ["cargo", "run", "--release", "-p", "bild-cli"]).then_some(&rest[1..])
        }
    }
}

/// Whether what a command of another program names is there.
fn is_there(words: &[String]) -> bool {
    let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
    let target = |kind: &str, folder: &str| {
        let Some(name) = after(kind) else { return true };
        let package = after("-p").map_or(root(), |package| root().join(package));
        package.join(folder).join(format!("{name}.rs")).is_file()
    };
    match words.first().unwrap().as_str() {
        "cargo" => {
            let path = after("--path").is_none_or(|path| root().join(path).join("Cargo.toml").is_file());
            path && target("--example", "examples") && target("--bench", "benches") && target("--test", "tests")
        }
        "python" => root().join(&words[1]).is_file(),
        script => root().join(script).is_file(),
    }
}

#[test]
#[cfg(unix)]
fn the_commands_of_the_pages_do_what_they_say() {
    let place = Place::new();
    place.write("valid.de", SOURCES.repeat(10));
    place.write("valid.en", REFERENCES.repeat(10));
    // The folders of models that they name.
    for folder in ["models", "tests"] {
        std::os::unix::fs::symlink(root().join(folder), place.at(folder)).unwrap();
    }
    let mut run = BTreeSet::new();
    for (name, page) in pages() {
        for command in commands(&page) {
            let words = words(&command);
            match arguments(&words) {
                Some(args) if run.insert(args.to_vec()) => {
                    let args: Vec<&str> = args.iter().map(String::as_str).collect();
                    let ended = place.run(args[0], &args[1..]);
                    assert!(ended.code == Some(0), "{name}: {command}: {ended:?}");
                }
                Some(_) => {}
                None => assert!(is_there(&words), "{name}: {command}"),
            }
        }
        for command in inline(&page) {
            let words = words(&command);
            let Some(args) = arguments(&words) else {
                assert!(is_there(&words), "{name}: {command}");
                continue;
            };
            // Shown with a text it is run; without, it names options.
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            if matches!(args[0], "align" | "train") && !cfg!(feature = "train") {
                continue;
            }
            if !command.contains('"') && args[0] != "completions" {
                let help = place.run(args[0], &["--help"]).ok().out;
                let unknown = args[1..].iter().find(|arg| arg.starts_with("--") && !help.contains(*arg));
                assert!(unknown.is_none(), "{name}: {command}: {unknown:?}");
                continue;
            }
            let ended = place.run(args[0], &args[1..]);
            assert!(ended.code == Some(0), "{name}: {command}: {ended:?}");
        }
    }
    assert!(run.len() >= 6, "{run:?}");
}
