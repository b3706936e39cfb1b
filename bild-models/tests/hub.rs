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
    time::{Duration, Instant},
};

use bild_models::{Checkpoint, Hub, LoadError, T5Config};
use common::fixture;
use serde_json::json;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "76543210fedcba9876543210fedcba9876543210";

/// What a hub says, which is as it should be unless a test wants otherwise.
struct Answers {
    /// The token that it needs, if any.
    token: Option<&'static str>,
    /// The commit of each revision.
    commits: [(&'static str, &'static str); 2],
    /// The commit of a file, if it is not that which was asked for.
    file_commit: Option<&'static str>,
    /// The etag of a file, with its commit and its name.
    etag: String,
}

impl Default for Answers {
    fn default() -> Self {
        let commits = [("main", COMMIT), ("v2", OTHER_COMMIT)];
        Self { token: None, commits, file_commit: None, etag: "<commit>-<name>".into() }
    }
}

/// A hub of one repository, `owner/tiny`, with one commit for each revision.
struct Server {
    endpoint: String,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(fixture_name: &str, token: Option<&'static str>) -> Self {
        Self::answering(fixture_name, Answers { token, ..Answers::default() })
    }

    fn answering(fixture_name: &str, answers: Answers) -> Self {
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
                let _ = answer(stream.unwrap(), &files, &answers, &asked);
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
    answers: &Answers,
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
    if answers.token.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return reply("401 Unauthorized", "", b"");
    }
    for (revision, commit) in answers.commits {
        if path == format!("/api/models/owner/tiny/revision/{revision}") {
            let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
            return reply("200 OK", "", json!({ "sha": commit, "siblings": siblings }).to_string().as_bytes());
        }
        if let Some(name) = path.strip_prefix(&format!("/owner/tiny/resolve/{}/", commit.replace('/', "%2F")))
            && let Some(file) = files.get(name)
        {
            let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let (begin, end) = range.map_or((0, file.len()), |(begin, end)| {
                (begin.parse().unwrap_or(0), end.parse::<usize>().map_or(file.len(), |end| end + 1))
            });
            let etag = answers.etag.replace("<commit>", commit).replace("<name>", name);
            let extra = format!(
                "etag: \"{etag}\"\r\nx-repo-commit: {}\r\ncontent-range: bytes {begin}-{}/{}\r\n",
                answers.file_commit.unwrap_or(commit),
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
fn what_a_new_commit_leaves_as_it_was_is_not_fetched_again() {
    let answers = Answers { etag: "<name>".into(), ..Answers::default() };
    let (server, cache) = (Server::answering("t5-v1_1", answers), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    hub.checkpoint("owner/tiny").unwrap();
    server.asked();
    let repository = cache.path().join("models--owner--tiny");
    fs::write(repository.join("blobs/config.json"), "{").unwrap();
    hub.with_revision("v2").checkpoint("owner/tiny").unwrap();
    let asked = server.asked();
    let times = |name: &str| asked.iter().filter(|path| path.ends_with(&format!("/{name}"))).count();
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert_eq!(times(shard), 1, "nothing but its etag and its size: {asked:?}");
        let link = repository.join("snapshots").join(OTHER_COMMIT).join(shard);
        assert_eq!(fs::read(&link).unwrap(), fs::read(fixture("t5-v1_1").join(shard)).unwrap());
        if cfg!(unix) {
            assert_eq!(fs::read_link(link).unwrap(), Path::new("../../blobs").join(shard));
        }
    }
    assert!(times("config.json") > 1, "what is cut off is fetched: {asked:?}");
}

#[test]
fn what_another_process_fetches_is_waited_for() {
    let (server, cache) = (Server::start("t5-v1_0", None), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--owner--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    // As hf-hub names and locks it. It loses its patience after 5 s.
    let lock = fs::File::create(blobs.join(format!("{COMMIT}-config.lock"))).unwrap();
    lock.lock().unwrap();
    let times = || server.asked().iter().filter(|path| path.ends_with("/config.json")).count();
    thread::scope(|scope| {
        let (server, times) = (&server, &times);
        scope.spawn(move || {
            // Its etag and its size are asked for, here and by hf-hub.
            let (mut asked, begun) = (0, Instant::now());
            while asked < 2 && begun.elapsed() < Duration::from_secs(60) {
                thread::sleep(Duration::from_millis(20));
                asked += times();
            }
            thread::sleep(Duration::from_secs(6));
            let config = fixture("t5-v1_0").join("config.json");
            fs::copy(config, blobs.join(format!("{COMMIT}-config.json"))).unwrap();
            drop(lock);
        });
        server.hub(cache.path()).checkpoint("owner/tiny").unwrap();
    });
    assert_eq!(times(), 0, "the file is not");
}

#[test]
fn answers_that_lead_out_of_the_cache() {
    const OUTSIDE: &str = "../../../outside";
    let root = tempfile::tempdir().unwrap();
    let absolute = root.path().join("outside").to_str().unwrap().to_owned();
    let cases = [
        (Answers { commits: [("main", OUTSIDE), ("v2", OTHER_COMMIT)], ..Answers::default() }, "that the commit is"),
        (Answers { file_commit: Some(OUTSIDE), ..Answers::default() }, "is of the commit"),
        (Answers { etag: OUTSIDE.into(), ..Answers::default() }, "has the etag"),
        (Answers { etag: absolute, ..Answers::default() }, "has the etag"),
    ];
    for (answers, expected) in cases {
        let server = Server::answering("t5-v1_0", answers);
        let error = server.hub(&root.path().join("cache")).checkpoint("owner/tiny").unwrap_err();
        let sentence = error.to_string();
        assert!(matches!(error, LoadError::Hub { .. }) && sentence.contains(expected), "{sentence}");
        assert!(sentence.contains("outside") && !sentence.contains("reachable"), "{sentence}");
        let mut written = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(written.all(|name| name == "cache"), "{expected}");
    }
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
        command.args(["--ignored", "--exact", "from_environment"]);
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"] {
            command.env_remove(name);
        }
        command.env_remove("HF_TOKEN_PATH").env_remove("XDG_CACHE_HOME");
        command.env("HF_HOME", home.path()).env("HF_ENDPOINT", &server.endpoint);
        command.envs(variables.iter().copied()).output().unwrap().status.success()
    };
    assert!(!child(&[]), "no token");
    assert!(!child(&[("HF_TOKEN", "hf_env"), ("HF_HUB_OFFLINE", "1")]), "not in the cache yet");
    assert!(child(&[("HF_TOKEN", "hf_env")]));
    assert!(home.path().join("hub/models--owner--tiny/refs/main").exists());
    server.asked();
    assert!(child(&[("HF_HUB_OFFLINE", "1")]));
    assert!(child(&[("TRANSFORMERS_OFFLINE", "1")]));
    assert!(server.asked().is_empty());
    fs::write(home.path().join("token"), "hf_env\n").unwrap();
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    assert!(child(&[]), "the token that a login has left");

    let elsewhere = tempfile::tempdir().unwrap();
    let path = |name: &str| elsewhere.path().join(name).to_str().unwrap().to_owned();
    let [new, old, caches, user, secret] = ["new", "old", "caches", "user", "secret"].map(path);
    fs::rename(home.path().join("token"), &secret).unwrap();
    let (token, user_home) = (("HF_TOKEN_PATH", &*secret), if cfg!(windows) { "USERPROFILE" } else { "HOME" });
    for ([one, other], cache) in [
        ([("HF_HUB_CACHE", &*new), ("HUGGINGFACE_HUB_CACHE", &*old)], "new"),
        ([("HUGGINGFACE_HUB_CACHE", &*old), ("XDG_CACHE_HOME", &*caches)], "old"),
        ([("HF_HOME", ""), ("XDG_CACHE_HOME", &*caches)], "caches/huggingface/hub"),
        ([("HF_HOME", ""), (user_home, &*user)], "user/.cache/huggingface/hub"),
    ] {
        assert!(child(&[one, other, token]), "{cache}");
        assert!(elsewhere.path().join(cache).join("models--owner--tiny/refs/main").exists(), "{cache}");
    }
}

#[test]
#[ignore = "run by the test above, with an environment"]
fn from_environment() {
    Checkpoint::from_hub("owner/tiny").unwrap();
}
