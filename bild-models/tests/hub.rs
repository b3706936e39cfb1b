//! Checkpoints by name, from a hub on this machine's loopback and from a folder that is its cache.
#![cfg(feature = "hub")]

mod common;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use bild_models::{Checkpoint, Hub, T5Config};
use common::fixture;
use serde_json::json;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "76543210fedcba9876543210fedcba9876543210";

/// A hub of one repository, `owner/tiny`, that needs a token if there is one, with one commit for each revision.
struct Server {
    endpoint: String,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(fixture_name: &str, token: Option<&'static str>) -> Self {
        let mut files = HashMap::new();
        for entry in fs::read_dir(fixture(fixture_name)).unwrap() {
            let path = entry.unwrap().path();
            files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
        }
        files.insert("flax_model.msgpack".into(), vec![0; 10]);
        files.insert("model.fp16-00001-of-00001.safetensors".into(), vec![0; 10]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { endpoint, asked: asked.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &files, token, &asked);
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::from_env().with_endpoint(&self.endpoint).with_cache(cache).with_offline(false).with_progress(false)
    }
}

/// Answers one request: a repository's description, or a range of a file.
fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    token: Option<&str>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).take(1 << 16).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = lines
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    asked.lock().unwrap().push(path.clone());
    let mut reply = |status: &str, extra: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{extra}\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    };
    if token.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return reply("401 Unauthorized", "", b"");
    }
    for (revision, commit) in [("main", COMMIT), ("v2", OTHER_COMMIT)] {
        if path == format!("/api/models/owner/tiny/revision/{revision}") {
            let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
            return reply("200 OK", "", json!({ "sha": commit, "siblings": siblings }).to_string().as_bytes());
        }
        if let Some(name) = path.strip_prefix(&format!("/owner/tiny/resolve/{commit}/"))
            && let Some(file) = files.get(name)
        {
            let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let (begin, end) = range.map_or((0, file.len()), |(begin, end)| {
                (begin.parse().unwrap_or(0), end.parse::<usize>().map_or(file.len(), |end| end + 1))
            });
            let extra = format!(
                "etag: \"{commit}-{name}\"\r\nx-repo-commit: {commit}\r\ncontent-range: bytes {begin}-{}/{}\r\n",
                end - 1,
                file.len()
            );
            return reply("206 Partial Content", &extra, &file[begin..end]);
        }
    }
    reply("404 Not Found", "", b"")
}

#[test]
fn what_is_fetched_once_is_in_the_cache() {
    let (server, cache) = (Server::start("t5-v1_1", None), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let fetched = hub.checkpoint("owner/tiny").unwrap();
    assert_eq!(T5Config::of(&fetched).unwrap(), T5Config::of(&Checkpoint::open(fixture("t5-v1_1")).unwrap()).unwrap());
    let asked = server.asked();
    assert!(asked.iter().any(|path| path.ends_with("model-00002-of-00002.safetensors")), "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("flax") || path.contains("fp16") || path.contains("expected")));

    hub.checkpoint("owner/tiny").unwrap();
    assert_eq!(server.asked(), ["/api/models/owner/tiny/revision/main"], "nothing is fetched twice");
    hub.clone().with_offline(true).checkpoint("owner/tiny").unwrap();
    hub.clone().with_offline(true).with_revision(COMMIT).checkpoint("owner/tiny").unwrap();
    assert!(server.asked().is_empty(), "offline, nothing is asked for");
    hub.with_endpoint("http://127.0.0.1:9").checkpoint("owner/tiny").unwrap(); // nobody answers there

    // The layout is that of Python's huggingface_hub.
    let repository = cache.path().join("models--owner--tiny");
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(repository.join("snapshots").join(COMMIT).join("config.json").exists());
}

#[test]
fn a_revision_is_a_checkpoint_of_its_own() {
    let (server, cache) = (Server::start("t5-v1_0", None), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path()).with_revision("v2");
    hub.checkpoint("owner/tiny").unwrap();
    assert!(server.asked().iter().skip(1).all(|path| path.contains(OTHER_COMMIT)));
    let main = hub.clone().with_offline(true).with_revision("main").checkpoint("owner/tiny").unwrap_err().to_string();
    assert!(main.contains("owner/tiny (revision main)") && main.contains("not in the cache"), "{main}");
    hub.with_offline(true).checkpoint("owner/tiny").unwrap();
}

#[test]
fn a_token_opens_what_is_closed() {
    let (server, cache) = (Server::start("mt5", Some("hf_secret")), tempfile::tempdir().unwrap());
    let nobody =
        server.hub(cache.path()).with_endpoint("http://127.0.0.1:1").checkpoint("owner/tiny").unwrap_err().to_string();
    assert!(nobody.contains("reachable") && !nobody.contains("HF_TOKEN"), "{nobody}");
    let refused = server.hub(cache.path()).with_token("hf_wrong").checkpoint("owner/tiny").unwrap_err().to_string();
    assert!(!format!("{:?}", server.hub(cache.path()).with_token("hf_secret")).contains("hf_secret"));
    assert!(refused.contains("401") && refused.contains("HF_TOKEN") && !refused.contains("hf_wrong"), "{refused}");
    server.hub(cache.path()).with_token("hf_secret").checkpoint("owner/tiny").unwrap();
}

#[test]
fn names_that_are_none() {
    let (server, cache) = (Server::start("t5-v1_0", None), tempfile::tempdir().unwrap());
    for name in ["", "/", "a//b", "../etc", "a/../b", "a/b/c", "owner/tiny?x", "https://huggingface.co/a/b"] {
        let sentence = server.hub(cache.path()).checkpoint(name).unwrap_err().to_string();
        assert!(sentence.contains("not a name on the hub"), "{sentence}");
    }
    for revision in ["", "../main", "a b"] {
        let sentence =
            server.hub(cache.path()).with_revision(revision).checkpoint("owner/tiny").unwrap_err().to_string();
        assert!(sentence.contains("not the name of a revision"), "{sentence}");
    }
    assert!(server.asked().is_empty());
    let unknown = server.hub(cache.path()).checkpoint("owner/unknown").unwrap_err().to_string();
    assert!(unknown.contains("owner/unknown (revision main) cannot be had from http://127") && unknown.contains("404"));
}

/// The environment is read, in a process of its own because it is shared by all tests of this one.
#[test]
fn the_environment_is_honoured() {
    let (server, home) = (Server::start("t5-f16", Some("hf_env")), tempfile::tempdir().unwrap());
    let child = |variables: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "from_environment"])
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE");
        command.env("HF_HOME", home.path()).env("HF_ENDPOINT", &server.endpoint).env_remove("HF_TOKEN");
        command.envs(variables.iter().copied()).output().unwrap().status.success()
    };
    assert!(!child(&[]), "no token");
    assert!(!child(&[("HF_TOKEN", "hf_env"), ("HF_HUB_OFFLINE", "1")]), "not in the cache yet");
    assert!(child(&[("HF_TOKEN", "hf_env")]));
    assert!(home.path().join("hub/models--owner--tiny/refs/main").exists());
    server.asked();
    assert!(child(&[("HF_HUB_OFFLINE", "1")]));
    assert!(server.asked().is_empty());
    fs::write(home.path().join("token"), "hf_env\n").unwrap();
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    assert!(child(&[]), "the token that a login has left");
}

#[test]
#[ignore = "run by the test above, with an environment"]
fn from_environment() {
    Checkpoint::from_hub("owner/tiny").unwrap();
}
