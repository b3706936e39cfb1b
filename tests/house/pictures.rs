//! The pictures of the guide as rustdoc shows them, which takes no file beside a page.

use std::fs;

use crate::{is_recorded, root};

/// The picture as an address, which is all that a page's link may name.
fn address(svg: &str) -> String {
    let mut address = String::from("data:image/svg+xml,");
    for byte in svg.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b',' | b'-' | b'/' | b':' | b'=' => {
                address.push(byte.into())
            }
            byte => address += &format!("%{byte:02X}"),
        }
    }
    address
}

#[test]
fn the_pictures_are_written_into_the_guide() {
    let mut page = String::new();
    for name in ["generation", "sweep"] {
        let svg = fs::read_to_string(root().join(format!("docs/{name}.svg"))).unwrap();
        page += &format!("[{name}]: {}\n", address(&svg));
    }
    is_recorded("docs/pictures.txt", &page);
}
