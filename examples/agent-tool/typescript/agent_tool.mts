// A tool for an agent: runCode runs a program in a clean Linux machine of its own, by plain HTTP.
import { randomUUID } from "node:crypto";
import process from "node:process";

const url = process.env.OUTPOST_URL ?? "http://127.0.0.1:8080";
const token = process.env.OUTPOST_TOKEN ?? "";
const namespace = process.env.OUTPOST_NAMESPACE ?? "default";
const patienceMs = 300_000; // for a server that is busy or still makes an image

// tool is what the model is told, in the form that the APIs of models take.
export const tool = {
  name: "run_code",
  description:
    "Runs a program in a clean Linux machine that is thrown away afterwards. It has no network. " +
    "Give input as files, and name in collect what is to come back.",
  parameters: {
    type: "object",
    properties: {
      language: { type: "string", enum: ["python", "node", "bash", "go", "rust"] },
      code: { type: "string" },
      files: { type: "object", additionalProperties: { type: "string" }, description: "name to text" },
      collect: { type: "array", items: { type: "string" }, description: "names or globs" },
      timeout_secs: { type: "integer", minimum: 1, maximum: 120 },
    },
    required: ["language", "code"],
  },
};

type Arguments = { language: string; code: string; files?: Record<string, string>; collect?: string[]; timeout_secs?: number };
type Result = {
  exit_code: number;
  termination_reason: string;
  stdout: string;
  stderr: string;
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  files: Record<string, string | { base64: string }>; // base64 is for what is no text
};

// Refused is the server's error; code is stable.
class Refused extends Error {
  status: number;
  code: string;
  text: string;
  details: { field: string; reason: string }[];
  constructor(status: number, { code, message, request_id, details = [] }: { code: string; message: string; request_id?: string; details?: Refused["details"] }) {
    super(`HTTP ${status}: ${code}: ${message} (${request_id})`);
    this.text = message;
    [this.status, this.code, this.details] = [status, code, details];
  }
}

// runCode gives what the model reads: how the program ended, or why it could not run. A program's failure is a result.
export async function runCode({ language, code, files = {}, collect = [], timeout_secs = 30 }: Arguments): Promise<Result | { error: object }> {
  const limits = { resource_limits: { memory_mb: 256, pids: 64 }, network: { egress: "none" }, max_output_bytes: 16384 }; // not the model's to choose
  try {
    const result = await post<Result>("/sandbox/execute", { language, code, files, collect, timeout_secs, ...limits }, (timeout_secs + 120) * 1000);
    const { exit_code, termination_reason, stdout, stderr, stdout_truncated, stderr_truncated, files: collected } = result;
    return { exit_code, termination_reason, stdout, stderr, stdout_truncated, stderr_truncated, files: collected };
  } catch (e) {
    if (!(e instanceof Refused) || e.status !== 422) throw e;
    return { error: { code: e.code, message: e.text, details: e.details } }; // the model can mend it: the message and the details say how
  }
}

// post makes one call, and again where the server says when. The key makes it one run, however often it is sent.
async function post<T>(path: string, body: object, timeoutMs: number): Promise<T> {
  const headers = {
    Authorization: (token.includes("$") ? "API-Key " : "Bearer ") + token,
    "Content-Type": "application/json",
    "Idempotency-Key": randomUUID(),
  };
  for (const end = Date.now() + patienceMs; ; ) {
    const signal = AbortSignal.timeout(timeoutMs);
    const answer = await fetch(`${url}/auth/v1/seed/${namespace}${path}`, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (answer.ok) return await answer.json();
    const text = await answer.text();
    const waitMs = 1000 * Number(answer.headers.get("Retry-After") ?? 1);
    if ((answer.status !== 429 && answer.status !== 503) || Date.now() + waitMs > end) throw new Refused(answer.status, errorOf(text));
    await new Promise((wake) => setTimeout(wake, waitMs));
  }
}

// errorOf is the error of an answer; one that is no outpost's, a proxy's for example, keeps its beginning.
function errorOf(text: string) {
  try {
    const { error } = JSON.parse(text);
    if (error?.code) return error;
  } catch {}
  return { code: "internal", message: `no answer of outpost's: ${text.slice(0, 200)}` };
}

// calls are some that a model might make.
const calls: Arguments[] = [
  {
    language: "python",
    code: "n = [int(x) for x in open('in.txt')]\nopen('sum.txt', 'w').write(str(sum(n)))\nprint(len(n), 'numbers')",
    files: { "in.txt": "1\n2\n39\n" },
    collect: ["*.txt"],
  },
  { language: "python", code: "1 / 0" },
  { language: "bash", code: "echo working; sleep 600", timeout_secs: 1 },
  { language: "cobol", code: "STOP RUN." },
];

try {
  const given = process.argv.slice(2).map((a) => JSON.parse(a) as Arguments);
  for (const call of given.length > 0 ? given : calls) console.log(JSON.stringify(await runCode(call)));
} catch (e) {
  const { message, cause } = e as Error; // a server that there is not is told by the cause
  console.error(`agent_tool: ${message}${cause ? `: ${(cause as Error).message || cause}` : ""}`);
  process.exitCode = 1;
}
