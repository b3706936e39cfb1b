"""The engines that bild is compared with, each timed in a process of its own:

    python engines.py ENGINE DIRECTORY SOURCE NEW RUNS THREADS      one JSON object out

All get the same fixed ids, write the same number of tokens greedily with end-of-sequence ignored, and run once more than
they are timed. Times of each run: `encoder_ms`, and `token_ms` of one new token.
"""
import json, os, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
LLAMA = os.environ.get("LLAMA_LIBRARIES", "llama/package/bins/linux-x64")


def source_ids(directory, length, number=0):
    """Of the first source, or of another one."""
    most = min(json.load(open(f"{directory}/config.json"))["vocab_size"], 32000) - 3
    return [3 + (i + 31 * number) * 7919 % most for i in range(length)]


def numbers_read(layers, decoders, width, heads, feed_forward, words):
    """How many weights one reading of a source reads, the keys and values that the decoder makes of it included, and one pass of the
    decoder. `heads` and `feed_forward`: how wide all heads are together, and all matrices of a feed-forward layer."""
    return (width * (layers * (4 * heads + feed_forward) + decoders * 2 * heads),
            width * (decoders * (6 * heads + feed_forward) + words))


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def bild(directory, length, new, runs, threads, precision):
    command = [f"{ROOT}/target/release/bild", "bench", "--model", directory, "--source-len", str(length),
               "--new-tokens", str(new), "--runs", str(runs), "--threads", str(threads), "--precision", precision, "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"version": "", "load_s": found["load_ms"] / 1e3, "peak_mib": found["peak_rss_mib"],
            "encoder_ms": found["runs_ms"]["encoder"], "token_ms": found["runs_ms"]["token"],
            "read_gb_per_s": found["read_gb_per_s"]}


def torch_model(directory, threads, precision):
    import torch
    from transformers import T5ForConditionalGeneration
    torch.set_num_threads(threads)
    model = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    if precision == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def transformers(directory, length, new, runs, threads, precision):
    import torch, transformers
    from transformers import T5ForConditionalGeneration  # here, as it is no part of the time to load
    begun = time.perf_counter()
    model = torch_model(directory, threads, precision)
    load_s = time.perf_counter() - begun
    source = torch.tensor([source_ids(directory, length)])

    def generate():
        """The steps without `generate`, which takes some milliseconds a token by itself."""
        start = time.perf_counter()
        encoded = model.get_encoder()(input_ids=source)
        middle = time.perf_counter()
        past, token = None, torch.tensor([[0]])
        for _ in range(new):
            step = model(encoder_outputs=encoded, decoder_input_ids=token, past_key_values=past, use_cache=True)
            past, token = step.past_key_values, step.logits[:, -1].argmax(-1, keepdim=True)
        return middle - start, (time.perf_counter() - middle) / new

    with torch.inference_mode():
        return timed(generate, runs, load_s, f"{transformers.__version__}, torch {torch.__version__}")


def ctranslate2_model(directory, threads, precision):
    import ctranslate2
    return ctranslate2.Translator(f"{directory}.ctranslate2-{precision}", device="cpu", compute_type=precision,
                                  inter_threads=1, intra_threads=threads)


def ctranslate2(directory, length, new, runs, threads, precision):
    import ctranslate2
    begun = time.perf_counter()
    translator = ctranslate2_model(directory, threads, precision)
    load_s = time.perf_counter() - begun
    source = [[str(token) for token in source_ids(directory, length)]]

    def write(tokens):
        start = time.perf_counter()
        translator.translate_batch(source, beam_size=1, max_decoding_length=tokens, min_decoding_length=tokens,
                                   return_end_token=True, max_input_length=0)
        return time.perf_counter() - start

    def generate():
        """It does not tell the encoder's time: one token and many are written, the difference is decoding alone."""
        one, many = write(1), write(new)
        token = (many - one) / (new - 1)
        return one - token, token

    return timed(generate, runs, load_s, ctranslate2.__version__)


def candle(directory, length, new, runs, threads, precision):
    path = directory if precision == "f32" else f"{directory}.candle-{precision}.gguf"
    command = [f"{HERE}/candle/target/release/candle_t5", path, str(length), str(new), str(runs)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def kjarni(directory, length, new, runs, threads, precision):
    """It wants a tokenizer beside the weights, which ids have no use for, and a configuration that names the activation once, where
    transformers writes it twice: a folder with these."""
    folder = f"{directory}.kjarni"
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(f"{folder}/model.safetensors"):
        os.symlink(os.path.abspath(f"{directory}/model.safetensors"), f"{folder}/model.safetensors")
    config = json.load(open(f"{directory}/config.json"))
    config.pop("dense_act_fn", None)
    json.dump(config, open(f"{folder}/config.json", "w"))
    with open(f"{folder}/tokenizer.json", "w") as file:
        json.dump({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}}, file)
    command = [f"{HERE}/kjarni/target/release/kjarni_t5", folder, str(length), str(new), str(runs)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def llama_model(directory, threads, precision):
    """llama.cpp through the libraries that node-llama-cpp carries, as two functions, one that reads a source and one that takes a token
    and gives the likeliest next one; and the seconds that loading took. Its parameters are taken as the library fills them in, in a buffer that is larger than
    they are, so that no header is needed."""
    import ctypes, numpy
    from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_int32, c_void_p

    class Parameters(Structure):
        _fields_ = [("bytes", c_char * 1024)]

    class Batch(Structure):
        _fields_ = [("count", c_int32), ("tokens", POINTER(c_int32))] + [(name, c_void_p) for name in "abcde"]

    names = ["libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so"]
    _, ggml, lib = [ctypes.CDLL(os.path.abspath(f"{LLAMA}/{name}"), mode=ctypes.RTLD_GLOBAL) for name in names]
    for name, result, arguments in [
        ("llama_model_default_params", Parameters, []), ("llama_context_default_params", Parameters, []),
        ("llama_model_load_from_file", c_void_p, [c_char_p, Parameters]),
        ("llama_init_from_model", c_void_p, [c_void_p, Parameters]),
        ("llama_batch_get_one", Batch, [POINTER(c_int32), c_int32]), ("llama_encode", c_int32, [c_void_p, Batch]),
        ("llama_decode", c_int32, [c_void_p, Batch]), ("llama_get_memory", c_void_p, [c_void_p]),
        ("llama_get_logits_ith", POINTER(ctypes.c_float), [c_void_p, c_int32]),
        ("llama_memory_clear", None, [c_void_p, c_bool]), ("llama_set_n_threads", None, [c_void_p, c_int32, c_int32]),
    ]:
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, arguments
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)(lambda *_: None)
    lib.llama_log_set(silent, None)
    ggml.ggml_backend_load_all_from_path.argtypes = [c_char_p]
    ggml.ggml_backend_load_all_from_path(os.path.abspath(LLAMA).encode())
    lib.llama_backend_init()

    begun = time.perf_counter()
    path = f"{directory}.llama-{precision}.gguf".encode()
    model = lib.llama_model_load_from_file(path, lib.llama_model_default_params())
    context = model and lib.llama_init_from_model(model, lib.llama_context_default_params())
    if not context:
        sys.exit(f"llama.cpp does not load {path.decode()}")
    lib.llama_set_n_threads(context, threads, threads)
    load_s = time.perf_counter() - begun
    vocab = json.load(open(f"{directory}/config.json"))["vocab_size"]

    def encode(ids, silent=silent):  # which llama.cpp calls as long as it lives
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        tokens = (c_int32 * len(ids))(*ids)  # a batch has no more than their address
        if lib.llama_encode(context, lib.llama_batch_get_one(tokens, len(ids))):
            sys.exit("llama.cpp does not read a source")

    def step(token):
        tokens = (c_int32 * 1)(token)
        if lib.llama_decode(context, lib.llama_batch_get_one(tokens, 1)):
            sys.exit("llama.cpp does not take a token")
        return int(numpy.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (vocab,)).argmax())

    return encode, step, load_s


def llama(directory, length, new, runs, threads, precision):
    encode, step, load_s = llama_model(directory, threads, precision)
    source = source_ids(directory, length)

    def generate():
        start = time.perf_counter()
        encode(source)
        middle = time.perf_counter()
        token = 0
        for _ in range(new):
            token = step(token)
        return middle - start, (time.perf_counter() - middle) / new

    return timed(generate, runs, load_s, "0.5.0 of node-llama-cpp 3.22.1")


def timed(generate, runs, load_s, version):
    times = [generate() for _ in range(runs + 1)][1:]
    return {"version": version, "load_s": load_s, "peak_mib": peak_mib(),
            "encoder_ms": [encoder * 1e3 for encoder, _ in times], "token_ms": [token * 1e3 for _, token in times]}


ENGINES = {
    "bild f32": (bild, "f32"), "bild int8": (bild, "int8"), "bild int4": (bild, "int4"),
    "CTranslate2 f32": (ctranslate2, "float32"), "CTranslate2 int8": (ctranslate2, "int8"),
    "transformers f32": (transformers, "f32"), "transformers int8": (transformers, "int8"),
    "candle f32": (candle, "f32"), "candle q8_0": (candle, "q8_0"), "candle q4_0": (candle, "q4_0"),
    "kjarni f32": (kjarni, "f32"),
    "llama.cpp f32": (llama, "f32"), "llama.cpp q8_0": (llama, "q8_0"), "llama.cpp q4_0": (llama, "q4_0"),
}

if __name__ == "__main__":
    function, precision = ENGINES[sys.argv[1]]
    print(json.dumps(function(sys.argv[2], *map(int, sys.argv[3:7]), precision)), flush=True)
    os._exit(0)  # llama.cpp does not always come back from its destructors
