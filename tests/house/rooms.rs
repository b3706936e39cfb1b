//! Arrows between the rooms go one way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{is_recorded, root, sources};

/// The crates, each below those that may name it.
const CRATES: [&str; 6] = ["bild-core", "bild-policies", "bild-models", "bild-eval", "bild-train", "bild-cli"];

/// What a crate's rooms are: its folders, and its files that are none's.
fn room(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The source without its tests and comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every first name after `crate::`, those within braces too.
fn named(code: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            found.insert(name(after));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && depth == 0 && !c.is_whitespace() => {
                    found.insert(name(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// Which rooms each room of a crate names. What the root exports is the room's that it comes from.
fn arrows(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let files = sources(src);
    let rooms: BTreeSet<String> = files.iter().map(|file| room(src, file)).filter(|room| room != "lib").collect();
    let lib = code(&src.join("lib.rs"));
    let exported = |name: &str| {
        lib.split("pub use ").skip(1).find_map(|line| {
            let line = line.split(';').next()?;
            let is_there = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
            let from = line.split("::").next()?.trim();
            (is_there && rooms.contains(from)).then(|| from.to_owned())
        })
    };
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let from = room(src, file);
        // The toy family of the tests stands where the room is that it tests.
        let is_test = file.file_stem().is_some_and(|name| name == "toy" || name == "tests");
        if from == "lib" || is_test {
            continue;
        }
        let to = named(&code(file)).into_iter();
        let to = to.filter_map(|name| if rooms.contains(&name) { Some(name) } else { exported(&name) });
        arrows.entry(from.clone()).or_default().extend(to.filter(|to| *to != from));
    }
    arrows
}

/// A room that can be reached from itself.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<&String> {
    let reaches_itself = |room: &&String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*room]);
        while let Some(from) = next.pop() {
            for to in arrows.get(from).into_iter().flatten() {
                if to == *room {
                    return true;
                }
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        false
    };
    arrows.keys().find(reaches_itself)
}

#[test]
fn no_room_of_the_models_leads_back_to_itself() {
    let arrows = arrows(&root().join("bild-models/src"));
    assert!(arrows["t5"].contains("decode") && arrows["decode"].contains("nn") && arrows["nn"].contains("backend"));
    let all = |room: &str| arrows[room].iter().cloned().collect::<Vec<_>>().join(", ");
    assert_eq!(circle(&arrows), None, "{arrows:?}");
    let lines: Vec<String> = arrows.keys().map(|room| format!("{room} → {}\n", all(room))).collect();
    is_recorded("docs/plan.txt", &lines.concat());
}

/// A crate names only those below it.
#[test]
fn no_crate_names_one_above_it() {
    for (i, name) in CRATES.iter().enumerate() {
        let src = root().join(name).join("src");
        if !src.exists() {
            continue;
        }
        let code: String = sources(&src).iter().map(|file| self::code(file)).collect();
        for above in &CRATES[i + 1..] {
            assert!(!code.contains(&format!("{}::", above.replace('-', "_"))), "{name} names {above}");
        }
    }
    let policies: String = sources(&root().join("bild-policies/src")).iter().map(|file| code(file)).collect();
    assert!(!policies.contains("burn") && !policies.contains("bild_models"), "policies know no model");
}
