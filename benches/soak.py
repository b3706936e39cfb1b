#!/usr/bin/env python3
"""Many clients of `bild serve` for a while: is every answer right, does memory stay flat, is what was taken finished at the end?

    bild serve --listen 127.0.0.1:3111 &
    bild translate --policy big --file texts.txt > expected.txt
    python benches/soak.py 127.0.0.1:3111 PID texts.txt expected.txt --clients 64 --seconds 300

PID is that of the server, which gets SIGTERM under load at the end. A tenth of the requests is left in the middle, a twentieth is
nonsense; the others name lossless policies in turn, half of them as server-sent events. Needs nothing but Python.
"""
import argparse, collections, http.client, json, os, random, signal, threading, time

parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("pid", type=int)
parser.add_argument("texts")
parser.add_argument("expected")
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--seconds", type=float, default=300)
args = parser.parse_args()

texts = open(args.texts, encoding="utf-8").read().splitlines()
expected = open(args.expected, encoding="utf-8").read().splitlines()
assert len(texts) == len(expected)
POLICIES = ["cost_aware", "lossless", "big", {"policy": "lossless", "max_draft": 4}, {"policy": "adaptive_length"}]
NONSENSE = [b"", b"{", b'{"text": 3}', b'{"text": " "}', b'{"text": "x", "policy": "?"}', b'{"text": "x", "max_new_tokens": 0}',
            b'{"text": "' + b"\xff" * 40 + b'"}', b"\0" * 999, b'{"text": "x", "no": 1}']
counts, latencies, wrong = collections.Counter(), [], []
stop, terminated = threading.Event(), threading.Event()
lock = threading.Lock()


def memory():
    with open(f"/proc/{args.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def count(what):
    with lock:
        counts[what] += 1


def answer(response, streamed):
    if not streamed:
        return json.load(response)
    text, pieces = response.read().decode(), ""
    for message in text.split("\n\n"):
        if message:
            kind, data = message.split("\n", 1)
            data = json.loads(data.removeprefix("data: "))
            if kind == "event: text":
                pieces += data
    assert kind == "event: done", message
    assert pieces == data["text"], (pieces, data)
    return data


def once(random):
    connection = http.client.HTTPConnection(args.address, timeout=60)
    begun = time.monotonic()
    i = random.randrange(len(texts))
    if random.random() < 0.05:
        connection.request("POST", "/generate", random.choice(NONSENSE))
        response = connection.getresponse()
        assert response.status == 400, response.status
        json.load(response)["error"]
        return count("nonsense refused")
    streamed = random.random() < 0.5
    body = json.dumps({"text": texts[i], "policy": random.choice(POLICIES), "stream": streamed})
    connection.request("POST", "/generate", body.encode())
    if random.random() < 0.1:
        time.sleep(random.random() * 0.05)
        connection.close()
        return count("left")
    response = connection.getresponse()
    if response.status == 503:
        return count("too many")
    assert response.status == 200, (response.status, response.read())
    found = answer(response, streamed)
    with lock:
        latencies.append(time.monotonic() - begun)
        counts["answered"] += 1
        if found["text"] != expected[i] and len(wrong) < 10:
            wrong.append((texts[i], found["text"], expected[i]))


def client(seed):
    own = random.Random(seed)
    while not stop.is_set():
        try:
            once(own)
        except (ConnectionError, http.client.HTTPException, OSError) as error:
            if not terminated.is_set():
                count(f"broken: {error!r}")
            # What the server takes no more is refused at once; what it took must have come.
            elif not isinstance(error, ConnectionRefusedError):
                count(f"cut off at the end: {type(error).__name__}")
            if terminated.is_set():
                return
        except Exception as error:  # an answer that is none
            count(f"wrong: {error!r}")


threads = [threading.Thread(target=client, args=(seed,)) for seed in range(args.clients)]
begun = time.monotonic()
for thread in threads:
    thread.start()
samples = []
while time.monotonic() - begun < args.seconds:
    time.sleep(args.seconds / 20)
    samples.append(memory())
    print(f"{time.monotonic() - begun:.0f} s: {memory():.0f} MB, {dict(counts)}", flush=True)
terminated.set()
os.kill(args.pid, signal.SIGTERM)
for thread in threads:
    thread.join()
stop.set()
latencies.sort()
at = lambda share: latencies[int(share * (len(latencies) - 1))] * 1e3
half = len(samples) // 2
print(f"{counts['answered'] / args.seconds:.0f} answers a second, median {at(0.5):.0f} ms, 95 % {at(0.95):.0f} ms")
print(f"memory: {samples[0]:.0f} MB at first, {max(samples[half:]):.0f} MB at most in the second half, {max(samples):.0f} MB at most")
print(dict(counts), "wrong texts:", wrong)
