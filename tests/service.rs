//! The service among the examples, over the loopback: 32 clients at once get what one at a time gets, and one that leaves is
//! not worked for.

#[path = "../examples/service.rs"]
#[allow(dead_code, unreachable_pub)] // its main is not run here
mod service;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

/// Serves on a free port for the rest of the process.
fn serve() -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, service::router(service::load().unwrap())).await.unwrap();
        });
    });
    receive.recv().unwrap()
}

fn request(address: SocketAddr, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let head = "POST /translate HTTP/1.0\r\nHost: localhost\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

/// The pieces of text together, and the last event with its name.
fn answer(address: SocketAddr, body: &Value) -> (String, String, Value) {
    let mut response = String::new();
    request(address, body).read_to_string(&mut response).unwrap();
    let (mut text, mut last) = (String::new(), (String::new(), Value::Null));
    for event in response.split("\n\n") {
        let line = |name: &str| event.lines().find_map(|line| line.trim_end().strip_prefix(name));
        let (Some(kind), Some(data)) = (line("event: "), line("data: ")) else { continue };
        let data: Value = serde_json::from_str(data).unwrap();
        if kind == "text" {
            text += data.as_str().unwrap();
        } else {
            last = (kind.to_owned(), data);
        }
    }
    (text, last.0, last.1)
}

#[test]
fn many_clients_get_what_one_gets() {
    let address = serve();
    let sentences =
        ["Ich habe heute leider keine Zeit.", "Wo ist der Bahnhof?", "Tom ist nicht zu Hause.", "Guten Morgen!"];
    let bodies: Vec<Value> = (0..32)
        .map(|i| {
            let policy =
                [json!({"policy": "lossless"}), json!({"policy": "bild"}), json!({"policy": "big"})][i % 3].clone();
            json!({ "text": sentences[i % 4], "policy": policy, "settings": { "max_new_tokens": 4 + i } })
        })
        .collect();
    let content = |(text, kind, data): (String, String, Value)| {
        assert_eq!(kind, "done", "{data}");
        assert_eq!(data["text"], json!(text), "the pieces are the text");
        (text, data["output"]["tokens"].clone(), data["output"]["finish"].clone())
    };
    let alone: Vec<_> = bodies.iter().map(|body| content(answer(address, body))).collect();
    assert!(alone.iter().any(|(text, ..)| text == "I'm afraid I don't have time today."));
    let together: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = bodies.iter().map(|body| scope.spawn(move || content(answer(address, body)))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(together, alone);

    let mut refused = String::new();
    request(address, &json!({ "text": " " })).read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.0 400") && refused.contains("the source is empty"), "{refused}");
    let late = json!({ "text": sentences[0], "settings": { "deadline": 0.0 } });
    assert_eq!(answer(address, &late).2["output"]["finish"], json!("deadline"));

    // Clients that leave at once: whoever comes after them does not wait for what they asked for.
    let long = sentences.join(" ").repeat(12);
    for _ in 0..8 {
        let settings = json!({ "end_tokens": [], "max_new_tokens": 2000 });
        let stream = request(address, &json!({ "text": long, "settings": settings }));
        std::thread::sleep(Duration::from_millis(20));
        drop(stream);
    }
    let stays = json!({ "text": sentences[0], "policy": { "policy": "big" } });
    assert_eq!(content(answer(address, &stays)).0, "I'm afraid I don't have time today.");
}
