//! What is promised: every public item of the library, as its sources declare it. (That what is `pub` can be reached is a lint,
//! `unreachable_pub`.)

use std::{fs, path::Path};

use crate::{is_recorded, root, sources};

/// Where a line stands.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// A trait or an enum that is public, whose members are too.
    Public,
    Other,
}

/// The declarations of a file: those that are `pub`, and the members of public traits and enums.
fn declarations(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let (mut found, mut within, mut depth) = (Vec::new(), Vec::new(), 0usize);
    let (mut declaration, mut in_attribute) = (String::new(), false);
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("//") || line.starts_with('#') || in_attribute {
            in_attribute = (in_attribute || line.starts_with("#[")) && !line.ends_with(']');
            continue;
        }
        let in_public = within.last().is_some_and(|&(at, kind)| at == depth && kind == Within::Public);
        if declaration.is_empty() && (line.starts_with("pub ") || (in_public && line != "}")) {
            declaration = line.to_owned();
        } else if !declaration.is_empty() {
            declaration = format!("{declaration} {line}");
        }
        let opened = line.matches('{').count();
        let closed = line.matches('}').count();
        if !declaration.is_empty() && (line.ends_with(['{', ';', ',', '}']) || in_public) && balanced(&declaration) {
            let head = declaration.split(" {").next().unwrap_or_default().trim_end_matches([';', ',']);
            let is_use = head.starts_with("pub use") || head.starts_with("pub mod");
            if !is_use && !head.is_empty() && head != ")" {
                found.push(format!("{}{head}", if in_public { "    " } else { "" }));
            }
            let opens = head.starts_with("pub trait") || head.starts_with("pub enum");
            if opened > closed {
                within.push((depth + 1, if opens { Within::Public } else { Within::Other }));
            }
            declaration.clear();
        } else if declaration.is_empty() && opened > closed {
            within.push((depth + 1, Within::Other));
        }
        depth = (depth + opened).saturating_sub(closed);
        within.retain(|&(at, _)| at <= depth);
    }
    found
}

/// Whether every parenthesis is closed, up to the brace that opens a body.
fn balanced(declaration: &str) -> bool {
    let count = |c: char| declaration.matches(c).count();
    count('(') == count(')') && count('[') == count(']')
}

#[test]
fn the_public_surface_is_the_recorded_one() {
    let mut listing = String::new();
    for name in ["bild-core", "bild-policies", "bild-models", "bild-train"] {
        listing += &format!("# {name}\n");
        let src = root().join(name).join("src");
        for file in sources(&src) {
            let declarations = declarations(&file);
            if !declarations.is_empty() {
                listing += &format!("\n{}\n{}\n", file.strip_prefix(&src).unwrap().display(), declarations.join("\n"));
            }
        }
        listing += "\n";
    }
    is_recorded("docs/api.txt", &listing);
}
