//! The service, over the loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{Place, pair};

/// A server that ends with the test.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back: the status, the head and the body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    fn refused(&self, status: u16, said: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        let error = self.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{error}");
    }

    /// The server-sent events.
    fn events(&self) -> Vec<(String, Value)> {
        let event = |event: &str| {
            let (kind, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            (kind.to_owned(), serde_json::from_str(data).unwrap())
        };
        self.body.split_terminator("\n\n").map(event).collect()
    }
}

impl Server {
    fn begin(args: &[&str]) -> Self {
        let place = Place::new();
        let mut command = place.command("serve", &[&["--listen", "127.0.0.1:0", "--threads", "1"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { child, out, address }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        let _ = stream.write_all(body); // what is too long is not read to its end
        stream
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        received(self.send(method, path, body))
    }

    /// Sends the beginning of a request, and no more.
    #[cfg(unix)]
    fn send_half(&self, half: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(half.as_bytes()).unwrap();
        stream
    }

    #[cfg(unix)]
    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    fn begin_post(&self, body: &Value) -> TcpStream {
        self.send("POST", "/generate", body.to_string().as_bytes())
    }

    fn post(&self, body: &Value) -> Answer {
        received(self.begin_post(body))
    }

    fn health(&self) -> Value {
        self.ask("GET", "/health", b"").json()
    }

    fn until(&self, what: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        while !what(&self.health()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", self.health());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn received(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// One that writes for a long time.
fn long(tokens: usize) -> Value {
    let any = json!({ "policy": "sampling", "temperature": 1e6 });
    json!({ "text": "Ich bin müde.", "policy": any, "max_new_tokens": tokens, "stream": true })
}

#[test]
fn a_text_is_answered_as_translate_does_whole_or_in_pieces() {
    let server = Server::begin(&[]);
    let text = "  Guten Morgen! Wo ist der Bahnhof?\n\nIch habe heute leider keine Zeit.  ";
    let expected = Place::new().run_with("translate", &["--policy", "big"], text.as_bytes()).ok().out;
    let expected = expected.strip_suffix('\n').unwrap();
    for policy in [Value::Null, json!("lossless"), json!({ "policy": "lossless", "max_draft": 3 }), json!("big")] {
        let answer = server.post(&json!({ "text": text, "policy": policy }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let whole = answer.json();
        assert_eq!(whole["text"], json!(expected));
        assert_eq!(whole["finish"], json!("end_of_sequence"));
        assert_eq!(whole["tokens"], whole["statistics"]["tokens"]);
        assert!(whole.get("events").is_none() && whole["source_tokens"].as_u64() > Some(10));

        let stream = json!({ "text": text, "policy": policy, "stream": true, "events": true });
        let answer = server.post(&stream);
        assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
        let events = answer.events();
        let of = |kind: &str| events.iter().filter(|(of, _)| of == kind).map(|(_, data)| data).collect::<Vec<_>>();
        let pieces: String = of("text").iter().map(|piece| piece.as_str().unwrap()).collect();
        assert_eq!(pieces, expected, "the pieces are the text");
        let (last, done) = events.last().unwrap();
        assert_eq!(last, "done");
        assert_eq!(done["text"], json!(expected));
        assert_eq!(done["events"], json!(of("event")), "those that came are those that were");
        assert_eq!(of("event").iter().map(|event| event["part"].as_u64().unwrap()).max(), Some(2));
        assert!(of("event").iter().any(|event| event["kind"] == "committed" && event["piece"] == " morning."));
    }
}

#[test]
fn a_stop_string_ends_the_whole_text() {
    let server = Server::begin(&["--prefix", ""]);
    let text = "Ich habe heute leider keine Zeit. Guten Morgen.";
    let stopped = server.post(&json!({ "text": text, "stop": [" have"] })).json();
    assert_eq!(stopped["finish"], json!("stopped"));
    let all = server.post(&json!({ "text": text })).json();
    assert!(
        all["text"].as_str().unwrap().starts_with(&format!("{} have", stopped["text"].as_str().unwrap())),
        "{stopped}"
    );
}

#[test]
fn a_request_says_what_is_to_be_different() {
    let server = Server::begin(&["--whole", "--prefix", ""]);
    let text = "Ich habe heute leider keine Zeit.";
    let all = server.post(&json!({ "text": text })).json();
    let short = server.post(&json!({ "text": text, "max_new_tokens": 3 })).json();
    assert_eq!((&short["tokens"], &short["finish"]), (&json!(3), &json!("max_new_tokens")));
    let stopped = server.post(&json!({ "text": text, "stop": [" have"] })).json();
    assert_eq!(stopped["finish"], json!("stopped"));
    assert!(all["text"].as_str().unwrap().starts_with(&format!("{} have", stopped["text"].as_str().unwrap())));
    let late = server.post(&json!({ "text": text, "time_limit": 0 })).json();
    assert_eq!((&late["text"], &late["finish"]), (&json!(""), &json!("deadline")));
    let sampled = |seed: u64| {
        let policy = json!({ "policy": "sampling", "temperature": 2.0 });
        server.post(&json!({ "text": text, "policy": policy, "seed": seed })).json()["text"].clone()
    };
    assert_eq!(sampled(1), sampled(1));
    assert!((2..9).any(|seed| sampled(seed) != sampled(1)));
}

#[test]
fn each_sentence_draws_a_stream_of_its_own() {
    let policy = json!({ "policy": "sampling", "temperature": 2.0 });
    let text = "Ich habe heute leider keine Zeit. ".repeat(4);
    let place = Place::new();
    place.write("policy.json", policy.to_string());
    let args = ["--policy-file", "policy.json", "--seed", "7", "--threads", "1"];
    let expected = place.run_with("translate", &args, text.as_bytes()).ok().out;
    let server = Server::begin(&[]);
    let answer = server.post(&json!({ "text": text, "policy": policy, "seed": 7, "events": true })).json();
    assert_eq!(answer["text"], json!(expected.strip_suffix('\n').unwrap()));
    let events = answer["events"].as_array().unwrap();
    let tokens = |part: u64| {
        let written = events.iter().filter(|event| event["part"] == part && event["kind"] == "committed");
        written.map(|event| event["token"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert!((1..4).any(|part| tokens(part) != tokens(0)), "{}", answer["text"]);
}

#[test]
fn who_names_no_number_of_tokens_is_bounded_too() {
    let server = Server::begin(&["--whole", "--most-new-tokens", "3"]);
    let answer = server.post(&json!({ "text": "Ich habe heute leider keine Zeit." })).json();
    assert_eq!((&answer["tokens"], &answer["finish"]), (&json!(3), &json!("max_new_tokens")));
}

#[test]
fn what_is_wrong_is_said() {
    let server = Server::begin(&["--max-source-tokens", "40", "--most-new-tokens", "200", "--whole"]);
    let post = |body: &str| server.ask("POST", "/generate", body.as_bytes());
    post("").refused(400, "EOF");
    post("[]").refused(400, "");
    post(r#"{"text": 3}"#).refused(400, "found 3, expected a string");
    post(r#"{"texts": "x"}"#).refused(400, "unknown field `texts`");
    post(r#"{"text": " "}"#).refused(400, "the source is empty");
    post(r#"{"text": "x", "policy": "fast"}"#).refused(400, "there is no policy fast: cost_aware, lossless, ");
    post(r#"{"text": "x", "policy": {"policy": "lossless", "max_draft": -1}}"#).refused(400, "-1");
    post(r#"{"text": "x", "max_new_tokens": 201}"#).refused(400, "expected at most 200");
    post(r#"{"text": "x", "max_new_tokens": 0}"#).refused(400, "max_new_tokens is 0");
    post(r#"{"text": "x", "time_limit": -1}"#).refused(400, "`time_limit` is -1");
    post(r#"{"text": "x", "guess": "y"}"#).refused(400, "unknown field `guess`");
    // What is gone through for each sentence, or at each token, must be short.
    post(&json!({ "text": "x", "stop": vec!["."; 17] }).to_string())
        .refused(400, "`stop` has 17 strings, expected at most 16");
    post(&json!({ "text": "x", "stop": [".".repeat(257)] }).to_string()).refused(400, "`stop` has 257 bytes");
    post(&json!({ "text": "x", "prefix": "a".repeat(1025) }).to_string()).refused(400, "`prefix` has 1025 bytes");
    post(&json!({ "text": "x", "policy": vec![json!({ "": 0 }); 2000] }).to_string()).refused(400, "`policy` has ");
    post(&json!({ "text": "Wort ".repeat(60) }).to_string()).refused(413, "the limit is 40");
    post(&json!({ "text": "Wort ".repeat(300_000) }).to_string()).refused(413, "longer than 1048576 bytes");
    server.ask("POST", "/generate", b"{\"text\": \"\xff\"}").refused(400, "");
    server.ask("GET", "/nothing", b"").refused(404, "POST /generate");
    assert_eq!(server.ask("GET", "/generate", b"").status, 405);
    assert_eq!(post(r#"{"text": "Guten Morgen!"}"#).json()["text"], json!("Good morning."));

    let alone = Server::begin(&["--big", &pair("big")]);
    alone.post(&json!({ "text": "Wo ist er? ".repeat(300) })).refused(413, "300 sentences, expected at most 256");
    alone.post(&json!({ "text": "x", "policy": "lossless" })).refused(400, "cannot be had of the models loaded here");
    alone.post(&json!({ "text": "x", "policy": "little" })).refused(400, "cannot be had of the models loaded here");
    alone.post(&json!({ "text": "x", "policy": { "policy": "bild" } })).refused(400, "needs two models");
    alone.post(&json!({ "text": "x", "policy": { "policy": "little" } })).refused(400, "needs a little model");
    assert!(alone.ask("GET", "/", b"").body.contains(r#"policies = ["big"];"#));
    assert_eq!(alone.post(&json!({ "text": "Guten Morgen!" })).json()["text"], json!("Good morning."));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Place::new().run("serve", &["--listen", &address]).refused(1, "--listen: cannot listen at ");
}

#[test]
fn a_policy_without_effect_is_said() {
    let place = Place::new();
    let warned = |policy: &str| {
        let args = ["--listen", "127.0.0.1:0", "--threads", "1", "--big", &pair("big"), "--policy", policy];
        let mut command = place.command("serve", &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        child.kill().unwrap();
        let err = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        err.contains("warning: the policy has no effect: without --little, ")
    };
    assert!(warned("lossless") && warned("little") && !warned("big"));
}

#[test]
fn who_leaves_is_not_worked_for_and_who_is_too_many_is_refused() {
    let server = Server::begin(&["--batch", "1", "--max-waiting", "2", "--most-new-tokens", "60000"]);
    let running = server.begin_post(&long(60_000));
    server.until(|health| health["running"] == 1);
    let waiting = [server.begin_post(&long(20)), server.begin_post(&long(20))];
    server.until(|health| health["waiting"] == 2);
    let refused = server.post(&json!({ "text": "Guten Morgen!" }));
    refused.refused(503, "the queue is full: 2 requests wait already");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    drop(running);
    for stream in waiting {
        assert_eq!(received(stream).events().last().unwrap().0, "done");
    }
    server.until(|health| health["running"] == 0);
    let metrics = server.ask("GET", "/metrics", b"").body;
    for line in [
        "bild_requests_total{result=\"done\"} 2",
        "bild_requests_total{result=\"refused\"} 1",
        "bild_requests_total{result=\"left\"} 1",
        "bild_tokens_total{model=\"verifier\"} ",
        "bild_request_seconds_count 2",
        "bild_running 0",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[test]
fn who_waits_longer_than_may_be_is_refused() {
    let server = Server::begin(&["--batch", "1", "--max-wait", "0.05", "--most-new-tokens", "60000"]);
    let running = server.begin_post(&long(60_000));
    server.until(|health| health["running"] == 1);
    let begun = Instant::now();
    let refused = server.post(&json!({ "text": "Guten Morgen!" }));
    refused.refused(503, "s without its turn (`max_wait`)");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert!(begun.elapsed() < Duration::from_secs(8), "that is not the ten seconds that are not said");
    drop(running);
}

#[test]
fn what_would_take_too_much_memory_is_refused() {
    let server = Server::begin(&["--max-memory", "2"]);
    let post = |tokens: usize| server.post(&json!({ "text": "Guten Morgen!", "max_new_tokens": tokens }));
    post(1000).refused(413, "of memory: this generator allows 2.0 MB");
    assert_eq!(post(8).json()["text"], json!("Good morning."));
}

#[cfg(unix)]
#[test]
fn what_was_taken_is_finished_before_it_ends() {
    let mut server = Server::begin(&["--batch", "2"]);
    let taken: Vec<_> = (0..8).map(|_| server.begin_post(&long(200))).collect();
    server.until(|health| health["waiting"] == 6);
    server.terminate();
    for stream in taken {
        assert_eq!(received(stream).events().last().unwrap().0, "done");
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(server.address).is_err());
    let mut rest = String::new();
    server.out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "standard output holds the address alone");
}

#[cfg(unix)]
#[test]
fn who_sends_half_a_request_is_not_waited_for() {
    let mut server = Server::begin(&["--time-limit", "1"]);
    let no_body = "POST /generate HTTP/1.0\r\nContent-Length: 100\r\n\r\n";
    received(server.send_half(no_body)).refused(408, "the request did not come whole within 1 s");
    let halves = [no_body, "POST /generate HTTP/1.0\r\n"].map(|half| server.send_half(half));
    server.health(); // asked after them, it is answered when they are taken
    server.terminate();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = server.child.try_wait().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it waits for clients that send nothing");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended.code(), Some(0));
    drop(halves); // they stay to the end
}

#[test]
fn the_page_needs_no_other_file() {
    let server = Server::begin(&[]);
    let page = server.ask("GET", "/", b"");
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    assert!(!page.body.contains("://") && !page.body.contains("src="), "it asks nobody else");
    assert!(!page.body.contains("\"POLICIES\"") && !page.body.contains("/*STYLE*/"));
    assert!(page.body.contains("as configured"), "a policy need not be named");
    assert!(page.body.contains(r#"["cost_aware","lossless","bild","adaptive_length","big","little"]"#));
}
