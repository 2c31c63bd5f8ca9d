"""Runs on a host as the replica's user, standard library only: starts Ollama with its one model.

`start` makes the model where it is not there yet, while no other host can reach the server, and
becomes `ollama serve`; a process beside it loads the model and checks that all of it is where the
plan says; where that is not so, it ends the server. `drain` waits until no request runs: Ollama
cuts them off when it ends.

What to serve is in model.json beside this file; the rest is in OLLAMA_… variables.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time

TASK = "model.json"
# The server answers once it has looked at its GPUs, some of which wake slowly.
START_S, ANSWER_S, END_S = 120, 30, 30
# A line of a stream comes at least this often, even from a slow registry or disk.
SILENCE_S = 600
BLOCK = 1 << 20
LOOK_S = 0.2


class ServeError(Exception):
    """Why the model is not served, for the log."""


def say(text):
    print(text, flush=True)


def call(address, method, path, body=None, timeout_s=ANSWER_S):
    """The response to a request; its status is 2xx, else ServeError says what the server said."""
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    data = json.dumps(body) if isinstance(body, dict) else body
    headers = {} if isinstance(data, str) or data is None else {"Content-Length": size_of(data)}
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    if response.status // 100 == 2:
        return response
    text = response.read(2000).decode(errors="replace")
    raise ServeError("%s %s: HTTP %d: %s" % (method, path, response.status, text))


def has(address, path):
    """Whether the server has what is at a path."""
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_S)
    connection.request("HEAD", path)
    return connection.getresponse().status == 200


def size_of(file):
    return str(os.fstat(file.fileno()).st_size)


def stream(address, path, body, timeout_s):
    """The progress that the server tells line by line; ServeError for an error among it, and where
    it ends without success or takes longer."""
    end, last = time.monotonic() + timeout_s, {}
    for line in call(address, "POST", path, body, min(SILENCE_S, timeout_s)):
        last = json.loads(line)
        if "error" in last:
            raise ServeError("%s: %s" % (path, last["error"]))
        if time.monotonic() > end:
            raise ServeError("%s: not done within %d s" % (path, timeout_s))
        yield last
    if last.get("status") != "success":
        raise ServeError("%s ended without success: %s" % (path, last))


def await_server(address, alive):
    """Wait until the server takes connections; ServeError where it ends before."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and alive():
        with contextlib.suppress(OSError):
            call(address, "GET", "/api/version")
            return
        time.sleep(0.05)
    raise ServeError("the server does not answer at %s port %d" % address)


# The model.


@contextlib.contextmanager
def private_server(task):
    """The address of a server that only this host reaches."""
    address = ("127.0.0.1", task["private_port"])
    environment = dict(os.environ, OLLAMA_HOST="%s:%d" % address)
    server = subprocess.Popen([task["program"], "serve"], env=environment)
    try:
        await_server(address, lambda: server.poll() is None)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()


def source_of(task):
    """What the model is made of, as far as it can be told without reading it."""
    found = {name: task[name] for name in ("model", "file", "pull", "parameters")}
    if task["file"]:
        facts = os.stat(task["file"])
        found.update(size=facts.st_size, changed=facts.st_mtime_ns)
    return found


def made(mark):
    try:
        with open(mark) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def make_model(task):
    """Make the model under its name, with the parameters of the plan, unless it is there."""
    folder = os.environ["OLLAMA_MODELS"]
    shared, mark = os.path.dirname(folder), os.path.join(folder, "made.json")
    os.makedirs(folder, exist_ok=True)
    # Services have models of their own names, and large files once.
    os.makedirs(os.path.join(shared, "blobs"), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink("../blobs", os.path.join(folder, "blobs"))
    source = source_of(task)
    if made(mark) == source:
        return
    with open(os.path.join(shared, ".lock"), "w") as lock:
        say("wait for other replicas that fetch a model")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made(mark) == source:
            return
        with private_server(task) as address:
            create = create_from_file if task["file"] else create_from_registry
            create(address, task)
        link_files(task)
        with open(mark + ".new", "w") as file:
            json.dump(source, file)
        os.replace(mark + ".new", mark)


def link_files(task):
    """Link the model's files into a folder of its source's own: a preflight counts them there, as
    no other model's are beside them."""
    models = os.environ["OLLAMA_MODELS"]
    own = os.path.join(task["source_folder"], "blobs")
    os.makedirs(own, exist_ok=True)
    with open(os.path.join(models, "manifests", task["manifest"])) as file:
        layers = json.load(file)["layers"]
    for name in (one["digest"].replace(":", "-") for one in layers):
        with contextlib.suppress(FileExistsError):
            os.link(os.path.join(models, "blobs", name), os.path.join(own, name))


def create_from_file(address, task):
    """Copy a GGUF file to the server, unless it has it, and make the model of it."""
    end = time.monotonic() + task["fetch_timeout_s"]
    digest, size = hashlib.sha256(), max(1, os.stat(task["file"]).st_size)
    with open(task["file"], "rb") as file:
        done, percent = 0, -1
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            if percent != (percent := 100 * done // size // 5 * 5):
                say("read the file %d%%" % percent)
            if time.monotonic() > end:
                raise ServeError("%s: not read in time" % task["file"])
        blob = "sha256:" + digest.hexdigest()
        path = "/api/blobs/" + blob
        # What it has it does not read again, and closes the connection meanwhile.
        if not has(address, path):
            say("copy the file")
            file.seek(0)
            call(address, "POST", path, file, max(1, end - time.monotonic())).read()
    files = {os.path.basename(task["file"]): blob}
    create_model(address, task, {"files": files}, end)


def create_from_registry(address, task):
    """Pull a model, make ours of it, and take its own name away: nobody shall load it as it is."""
    end, status = time.monotonic() + task["fetch_timeout_s"], None
    pull = {"model": task["pull"], "insecure": task["insecure"]}
    for step in stream(address, "/api/pull", pull, task["fetch_timeout_s"]):
        text = step.get("status", "")
        if step.get("total"):
            text += " %d%%" % (100 * step.get("completed", 0) // step["total"] // 5 * 5)
        if text != status:
            say(text)
            status = text
    create_model(address, task, {"from": task["pull"]}, end)
    if not task["same_name"]:
        call(address, "DELETE", "/api/delete", {"model": task["pull"]}).read()


def create_model(address, task, source, end):
    body = {"model": task["model"], "parameters": task["parameters"], **source}
    for step in stream(address, "/api/create", body, max(1, end - time.monotonic())):
        say(step.get("status", ""))


# The server.


def own_address():
    """The address at which this host reaches the server."""
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    return "::1" if host == "[::]" else "127.0.0.1", int(port)


def load(task, main):
    """Load the model to stay, and check what is loaded; `main` is the server's process."""
    address = own_address()
    await_server(address, lambda: os.path.exists("/proc/%d" % main))
    say("load the model")
    body = {"model": task["model"], "keep_alive": -1}
    path = "/api/generate"
    if task["embeds"]:
        # What only embeds is not loaded by a request without a text.
        path, body["input"] = "/api/embed", "hello"
    call(address, "POST", path, body, task["fetch_timeout_s"]).read()
    found = json.loads(call(address, "GET", "/api/ps").read()).get("models", [])
    say("the model is loaded: " + checked(found, task))


def checked(found, task):
    """What is loaded, in words; ServeError where it is not what is planned."""
    if len(found) != 1:
        raise ServeError("%d models are loaded, not one" % len(found))
    size, on_gpus = found[0]["size"], found[0]["size_vram"]
    if task["on_gpus"] and on_gpus < size:
        raise ServeError(
            "only %.1f of %.1f GiB are on its GPUs; set a smaller max_model_len or "
            "min_concurrency, or kv_cache_dtype q8_0" % (on_gpus / 2**30, size / 2**30)
        )
    context, planned = found[0]["context_length"], task["parameters"]["num_ctx"]
    if context < planned:
        raise ServeError("it has a context of %d tokens, planned are %d" % (context, planned))
    return "%.1f GiB, %.1f of them on GPUs, context %d" % (size / 2**30, on_gpus / 2**30, context)


def beside(task, main):
    """Load the model in a process that the server need not wait for."""
    if os.fork():
        os.wait()
        return
    if os.fork():
        os._exit(0)
    try:
        load(task, main)
    except (ServeError, OSError, ValueError, LookupError, http.client.HTTPException) as error:
        print("ServeError: %s" % error, file=sys.stderr, flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, signal.SIGTERM)
    os._exit(0)


def start(task):
    """Become the server of the model."""
    make_model(task)
    beside(task, os.getpid())
    os.execv(task["program"], [task["program"], "serve"])


# Its end.


def children(main):
    """The ports of the server's own engines."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open("/proc/%s/stat" % pid) as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open("/proc/%s/cmdline" % pid) as file:
                words = file.read().split("\0")
            if parent == main and "--port" in words:
                yield int(words[words.index("--port") + 1])


def busy(main):
    """Whether a request runs; an engine that does not answer has none that could be waited for."""
    for port in children(main):
        with contextlib.suppress(ServeError, OSError, ValueError, http.client.HTTPException):
            slots = json.loads(call(("127.0.0.1", port), "GET", "/slots", timeout_s=5).read())
            if any(slot.get("is_processing") for slot in slots):
                return True
    return False


def drain(task, main):
    """Wait until no request runs, or time is up."""
    end, idle = time.monotonic() + task["drain_timeout_s"], 0
    # One request may begin as another ends: the server holds those that wait.
    while idle < 2 and time.monotonic() < end:
        idle = 0 if busy(main) else idle + 1
        time.sleep(LOOK_S)


def main():
    """Do what the first argument says."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), TASK)) as file:
        task = json.load(file)
    try:
        if sys.argv[1:] == ["drain"]:
            drain(task, int(os.environ.get("MAINPID", "0")))
        else:
            start(task)
    except (ServeError, OSError, http.client.HTTPException, ValueError, LookupError) as error:
        sys.exit("ServeError: %s" % error)


if __name__ == "__main__":
    main()
