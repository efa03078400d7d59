"""A tool for an agent: run_code runs a program in a clean Linux machine of its own, by plain HTTP."""
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("OUTPOST_URL", "http://127.0.0.1:8080")
TOKEN = os.environ.get("OUTPOST_TOKEN", "")
NAMESPACE = os.environ.get("OUTPOST_NAMESPACE", "default")
PATIENCE = 300  # seconds, for a server that is busy or still makes an image

# TOOL is what the model is told, in the form that the APIs of models take.
TOOL = {
    "name": "run_code",
    "description": "Runs a program in a clean Linux machine that is thrown away afterwards. It has no network. "
                   "Give input as files, and name in collect what is to come back.",
    "parameters": {
        "type": "object",
        "properties": {
            "language": {"type": "string", "enum": ["python", "node", "bash", "go", "rust"]},
            "code": {"type": "string"},
            "files": {"type": "object", "additionalProperties": {"type": "string"}, "description": "name to text"},
            "collect": {"type": "array", "items": {"type": "string"}, "description": "names or globs"},
            "timeout_secs": {"type": "integer", "minimum": 1, "maximum": 120},
        },
        "required": ["language", "code"],
    },
}
FOR_THE_MODEL = ("exit_code", "termination_reason", "stdout", "stderr", "stdout_truncated", "stderr_truncated", "files")


class Refused(Exception):
    """The server's error; code is stable."""

    def __init__(self, status, error):
        super().__init__(f"HTTP {status}: {error['code']}: {error['message']} ({error['request_id']})")
        self.status, self.code, self.message, self.details = status, error["code"], error["message"], error.get("details", [])


def run_code(language, code, files=None, collect=None, timeout_secs=30):
    """Gives what the model reads: how the program ended, or why it could not run. A program's failure is a result."""
    try:
        result = post("/sandbox/execute", {
            "language": language, "code": code, "files": files or {}, "collect": collect or [], "timeout_secs": timeout_secs,
            # These are not the model's to choose.
            "resource_limits": {"memory_mb": 256, "pids": 64}, "network": {"egress": "none"}, "max_output_bytes": 16384,
        }, timeout_secs + 120)
    except Refused as refused:
        if refused.status != 422:
            raise
        # The model can mend it: the message and the details say how.
        return {"error": {"code": refused.code, "message": refused.message, "details": refused.details}}
    return {name: result[name] for name in FOR_THE_MODEL}


def post(path, body, timeout):
    """One call, made again where the server says when. The key makes it one run, however often it is sent."""
    request = urllib.request.Request(f"{URL}/auth/v1/seed/{NAMESPACE}{path}", json.dumps(body).encode(), {
        "Authorization": ("API-Key " if "$" in TOKEN else "Bearer ") + TOKEN,
        "Content-Type": "application/json",
        "Idempotency-Key": str(uuid.uuid4()),
    })
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            wait = int(refused.headers.get("Retry-After", 1))
            if refused.code not in (429, 503) or time.monotonic() + wait > end:
                raise Refused(refused.code, error_of(refused)) from None
            time.sleep(wait)


def error_of(answer):
    """The error of an answer; one that is no outpost's, a proxy's for example, keeps its beginning."""
    text = answer.read().decode(errors="replace")
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return {"code": "internal", "message": "no answer of outpost's: " + text[:200], "request_id": ""}


# CALLS are some that a model might make.
CALLS = [
    {"language": "python", "code": "n = [int(x) for x in open('in.txt')]\nopen('sum.txt', 'w').write(str(sum(n)))\nprint(len(n), 'numbers')",
     "files": {"in.txt": "1\n2\n39\n"}, "collect": ["*.txt"]},
    {"language": "python", "code": "1 / 0"},
    {"language": "bash", "code": "echo working; sleep 600", "timeout_secs": 1},
    {"language": "cobol", "code": "STOP RUN."},
]

if __name__ == "__main__":
    try:
        for arguments in [json.loads(a) for a in sys.argv[1:]] or CALLS:
            print(json.dumps(run_code(**arguments)), flush=True)
    except (Refused, OSError, ValueError, TypeError) as e:  # refused, no server, no JSON, no such argument
        sys.exit(f"agent_tool: {e}")
