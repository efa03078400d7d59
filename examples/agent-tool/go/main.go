// A tool for an agent: RunCode runs a program in a clean Linux machine of its own, by plain HTTP.
package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const patience = 5 * time.Minute // for a server that is busy or still makes an image

// Tool is what the model is told, in the form that the APIs of models take.
const Tool = `{"name": "run_code",
  "description": "Runs a program in a clean Linux machine that is thrown away afterwards. It has no network. Give input as files, and name in collect what is to come back.",
  "parameters": {"type": "object", "required": ["language", "code"], "properties": {
    "language": {"type": "string", "enum": ["python", "node", "bash", "go", "rust"]},
    "code": {"type": "string"},
    "files": {"type": "object", "additionalProperties": {"type": "string"}, "description": "name to text"},
    "collect": {"type": "array", "items": {"type": "string"}, "description": "names or globs"},
    "timeout_secs": {"type": "integer", "minimum": 1, "maximum": 120}}}}`

// Arguments are those of the tool, as the model gives them.
type Arguments struct {
	Language    string            `json:"language"`
	Code        string            `json:"code"`
	Files       map[string]string `json:"files,omitempty"`
	Collect     []string          `json:"collect,omitempty"`
	TimeoutSecs int               `json:"timeout_secs,omitempty"`
}

// Result is how the program ended.
type Result struct {
	ExitCode          int            `json:"exit_code"`
	TerminationReason string         `json:"termination_reason"` // exited, signaled, timed_out, oom_killed, cancelled
	Stdout            string         `json:"stdout"`
	Stderr            string         `json:"stderr"`
	StdoutTruncated   bool           `json:"stdout_truncated"`
	StderrTruncated   bool           `json:"stderr_truncated"`
	Files             map[string]any `json:"files"` // text, or {"base64": …} for what is no text
}

// Refused is the server's error; Code is stable.
type Refused struct {
	Status    int               `json:"-"`
	Code      string            `json:"code"`
	Message   string            `json:"message"`
	RequestID string            `json:"request_id"`
	Details   []json.RawMessage `json:"details,omitempty"`
}

func (r *Refused) Error() string {
	return fmt.Sprintf("HTTP %d: %s: %s (%s)", r.Status, r.Code, r.Message, r.RequestID)
}

// RunCode gives what the model reads: how the program ended, or why it could not run. A program's failure is a result.
func RunCode(a Arguments) (any, error) {
	a.TimeoutSecs = cmp.Or(a.TimeoutSecs, 30)
	var result Result
	err := post("/sandbox/execute", struct {
		Arguments
		Limits    map[string]int    `json:"resource_limits"` // these are not the model's to choose
		Network   map[string]string `json:"network"`
		MaxOutput int               `json:"max_output_bytes"`
	}{a, map[string]int{"memory_mb": 256, "pids": 64}, map[string]string{"egress": "none"}, 16384}, &result, time.Duration(a.TimeoutSecs+120)*time.Second)
	if refused, is := errors.AsType[*Refused](err); is && refused.Status == http.StatusUnprocessableEntity {
		return map[string]any{"error": refused}, nil // the model can mend it: the message and the details say how
	}
	return result, err
}

// post makes one call, and again where the server says when. The key makes it one run, however often it is sent.
func post(path string, body, result any, timeout time.Duration) error {
	url := cmp.Or(os.Getenv("OUTPOST_URL"), "http://127.0.0.1:8080") + "/auth/v1/seed/" + cmp.Or(os.Getenv("OUTPOST_NAMESPACE"), "default") + path
	scheme, token := "Bearer ", os.Getenv("OUTPOST_TOKEN")
	if strings.Contains(token, "$") {
		scheme = "API-Key "
	}
	text, err := json.Marshal(body)
	client, key := http.Client{Timeout: timeout}, rand.Text()
	for end := time.Now().Add(patience); err == nil; {
		var req *http.Request
		if req, err = http.NewRequest(http.MethodPost, url, bytes.NewReader(text)); err != nil {
			break
		}
		req.Header = http.Header{"Authorization": {scheme + token}, "Content-Type": {"application/json"}, "Idempotency-Key": {key}}
		var res *http.Response
		if res, err = client.Do(req); err != nil {
			break
		}
		defer res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return json.NewDecoder(res.Body).Decode(result)
		}
		secs, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		wait := time.Duration(max(1, secs)) * time.Second
		busy := res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable
		if !busy || time.Now().Add(wait).After(end) {
			refused := struct{ Error Refused }{Refused{Status: res.StatusCode}}
			if err := json.NewDecoder(res.Body).Decode(&refused); err != nil || refused.Error.Code == "" {
				return fmt.Errorf("HTTP %d: no answer of outpost's", res.StatusCode) // a proxy's, for example
			}
			return &refused.Error
		}
		time.Sleep(wait)
	}
	return err
}

func main() {
	calls := os.Args[1:]
	if len(calls) == 0 { // some that a model might make
		calls = []string{
			`{"language": "python", "files": {"in.txt": "1\n2\n39\n"}, "collect": ["*.txt"],
			  "code": "n = [int(x) for x in open('in.txt')]\nopen('sum.txt', 'w').write(str(sum(n)))\nprint(len(n), 'numbers')"}`,
			`{"language": "python", "code": "1 / 0"}`,
			`{"language": "bash", "code": "echo working; sleep 600", "timeout_secs": 1}`,
			`{"language": "cobol", "code": "STOP RUN."}`,
		}
	}
	for _, call := range calls {
		var a Arguments
		if err := json.Unmarshal([]byte(call), &a); err != nil {
			log.Fatal(err)
		}
		answer, err := RunCode(a)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}
