package server

import (
	"net/http"
	"reflect"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// route is one row of the table: what it takes, who may call it, what it answers. The router, the rules and the OpenAPI
// document are all made from it.
type route struct {
	method, path string
	access       access
	summary      string
	request      reflect.Type // nil: no body
	takes        string       // the type of a body that is bytes; "": it is JSON
	params       []param      // of the query; nil: it is not looked at
	status       int          // of success
	response     reflect.Type // nil: no body
	idempotent   bool         // takes an Idempotency-Key
	patient      bool         // a body that is bytes may stand still
	audit        string       // what the audit log calls it; "": it changes nothing
	live         bool         // answers an exec as server-sent events where the client wants them
	doc          string       // more than the summary says
	headers      []param      // of the answer, beside those of all
	media        string       // of what stream answers; "" server-sent events
	handler      func(*call) (any, error)
	page         *page                                                 // instead of a handler
	direct       http.Handler                                          // instead of a handler: text/plain that it writes itself
	stream       func(*call, http.ResponseWriter) error                // instead of a handler: it answers by itself unless it fails
	hijacks      func(*call, http.ResponseWriter, *http.Request) error // the same, and takes the connection over
}

// page is a document that is the same for everybody.
type page struct {
	contentType string
	body        func() []byte
}

const (
	namespace   = "/auth/v1/seed/{namespace}"
	ofNamespace = namespace + "/sandbox"
	anExec      = ofNamespace + "/{id}/execs/{exec_id}"
	allJobs     = ofNamespace + "/jobs"
	pats        = "/auth/v1/pat"
	keys        = "/auth/v1/api_keys"
)

func (s *Server) table() []route {
	sandboxParams := append(paging(service.SandboxSorts),
		param{name: "status", enum: []string{"creating", "running", "stopped", "failed", "lost"}},
		param{name: "language", enum: service.KnownLanguages()},
		param{name: "mode", enum: []string{"ephemeral", "stateful"}},
		param{name: "label", doc: "name:value"})
	credentialParams := paging(service.CredentialSorts)
	rows := []route{
		{method: "POST", path: ofNamespace, access: writers, audit: "sandbox.create", summary: "Create a sandbox", request: typeOf[sandbox.CreateRequest](), status: http.StatusCreated, response: typeOf[sandbox.Sandbox](), idempotent: true, handler: s.createSandbox},
		{method: "GET", path: ofNamespace, access: readers, summary: "List sandboxes", params: sandboxParams, status: http.StatusOK, response: typeOf[sandbox.Page[sandbox.Sandbox]](), handler: s.listSandboxes(sandboxParams)},
		{method: "GET", path: ofNamespace + "/{id}", access: readers, summary: "Get a sandbox", status: http.StatusOK, response: typeOf[sandbox.Sandbox](), handler: s.getSandbox},
		{method: "DELETE", path: ofNamespace + "/{id}", access: writers, audit: "sandbox.delete", summary: "Delete a sandbox and everything in it", status: http.StatusNoContent, handler: s.deleteSandbox},
		{method: "POST", path: ofNamespace + "/{id}/exec", access: writers, audit: "exec.run", summary: "Run a program in a sandbox", request: typeOf[sandbox.ExecRequest](), status: http.StatusOK, response: typeOf[sandbox.ExecResult](), idempotent: true, live: true, doc: execDoc, handler: s.exec},
		{method: "POST", path: ofNamespace + "/execute", access: writers, audit: "exec.run", summary: "Run a program in a fresh machine, or in the sandbox of sandbox_id", request: typeOf[sandbox.ExecuteRequest](), status: http.StatusOK, response: typeOf[sandbox.ExecResult](), idempotent: true, live: true, doc: execDoc, handler: s.execute},
		{method: "GET", path: ofNamespace + "/{id}/execs", access: readers, summary: "List the execs of a sandbox that run or ended in the last ten minutes", params: execsParams, status: http.StatusOK, response: typeOf[sandbox.Page[sandbox.ExecState]](), handler: s.listExecs},
		{method: "GET", path: anExec, access: readers, summary: "Get an exec with its result", status: http.StatusOK, response: typeOf[sandbox.ExecState](), handler: s.getExec},
		{method: "POST", path: anExec + "/cancel", access: writers, audit: "exec.cancel", summary: "Kill an exec's program", status: http.StatusOK, response: typeOf[sandbox.ExecState](), handler: s.cancelExec},
		{method: "POST", path: anExec + "/stdin", access: writers, audit: "exec.stdin", summary: "Give input to a program whose exec has stdin_open, as it comes", params: stdinParams, takes: "application/octet-stream", patient: true, status: http.StatusOK, response: typeOf[sandbox.StdinTaken](), doc: stdinDoc, handler: s.execStdin},
		{method: "GET", path: anExec + "/output", access: readers, summary: "Output of an exec from an offset on: X-Next-Offset is where to go on, X-Finished whether more can come", params: outputParams, status: http.StatusOK, media: "application/octet-stream", headers: outputHeaders[:3], stream: s.execOutput},
		{method: "GET", path: ofNamespace + "/{id}/files", access: readers, summary: "Get a file of a stateful sandbox; Range: bytes=N- goes on in its middle", params: fileParams, status: http.StatusOK, media: "application/octet-stream", headers: fileHeaders, stream: s.getFile},
		{method: "HEAD", path: ofNamespace + "/{id}/files", access: readers, summary: "What Get a file would answer, without the file: Content-Length is its size, X-File-Mode its permissions", params: fileParams, status: http.StatusOK, media: "application/octet-stream", stream: s.headFile},
		{method: "PUT", path: ofNamespace + "/{id}/files", access: writers, audit: "file.write", summary: "Write a file of a stateful sandbox, and the folders above it", params: putParams, takes: "application/octet-stream", status: http.StatusNoContent, handler: s.putFile},
		{method: "DELETE", path: ofNamespace + "/{id}/files", access: writers, audit: "file.delete", summary: "Delete a file of a stateful sandbox, or a folder with all that is in it", params: fileParams, status: http.StatusNoContent, handler: s.deleteFile},
		{method: "GET", path: ofNamespace + "/{id}/files/list", access: readers, summary: "List a folder of a stateful sandbox", params: fileParams, status: http.StatusOK, response: typeOf[sandbox.List[sandbox.FileInfo]](), handler: s.listFiles},
		{method: "POST", path: ofNamespace + "/{id}/files/mkdir", access: writers, audit: "file.mkdir", summary: "Make a folder of a stateful sandbox, and those above it", request: typeOf[sandbox.MkdirRequest](), status: http.StatusNoContent, handler: s.mkdir},
		{method: "GET", path: ofNamespace + "/{id}/files/archive", access: readers, summary: "Get a folder of a stateful sandbox as a tar archive", params: fileParams, status: http.StatusOK, media: "application/x-tar", stream: s.getArchive},
		{method: "PUT", path: ofNamespace + "/{id}/files/archive", access: writers, audit: "file.unpack", summary: "Unpack a tar archive in a folder of a stateful sandbox", params: fileParams, takes: "application/x-tar", status: http.StatusNoContent, handler: s.putArchive},
		{method: "GET", path: ofNamespace + "/{id}/processes", access: readers, summary: "List the processes of a stateful sandbox", status: http.StatusOK, response: typeOf[sandbox.List[sandbox.Process]](), handler: s.processes},
		{method: "POST", path: ofNamespace + "/{id}/processes/{pid}/signal", access: writers, audit: "process.signal", summary: "Send a signal to a process of a stateful sandbox", request: typeOf[sandbox.SignalRequest](), status: http.StatusNoContent, handler: s.signal},
		{method: "GET", path: ofNamespace + "/{id}/pty", access: terminals, audit: "terminal.open", summary: "A terminal of a stateful sandbox, as a WebSocket: binary messages are bytes, text messages JSON ({\"resize\":{\"cols\",\"rows\"}}, {\"signal\":\"SIGINT\"}; at the end {\"exit\":{…}})", params: ptyParams, status: http.StatusSwitchingProtocols, hijacks: s.pty},
		{method: "POST", path: ofNamespace + "/{id}/pty/ticket", access: writers, audit: "terminal.ticket", summary: "Make a ticket, with which a browser opens a terminal: once, within 30 seconds", status: http.StatusCreated, response: typeOf[sandbox.Ticket](), handler: s.makeTicket},
		{method: "POST", path: allJobs, access: writers, audit: "job.submit", summary: "Put a program on the queue: it runs at least once, whatever becomes of the server", doc: jobDoc, request: typeOf[sandbox.JobRequest](), status: http.StatusCreated, response: typeOf[sandbox.Job](), idempotent: true, handler: s.submitJob},
		{method: "GET", path: allJobs, access: readers, summary: "List jobs", params: jobParams, status: http.StatusOK, response: typeOf[sandbox.Page[sandbox.Job]](), handler: s.listJobs},
		{method: "GET", path: allJobs + "/callback_key", access: admins, summary: "The key that the namespace's callbacks are signed with", status: http.StatusOK, response: typeOf[sandbox.CallbackKey](), handler: s.callbackKey},
		{method: "GET", path: allJobs + "/{id}", access: readers, summary: "Get a job with its result", status: http.StatusOK, response: typeOf[sandbox.Job](), handler: s.getJob},
		{method: "POST", path: allJobs + "/{id}/cancel", access: writers, audit: "job.cancel", summary: "Cancel a job that waits, or kill the program of one that runs", status: http.StatusOK, response: typeOf[sandbox.Job](), handler: s.cancelJob},
		{method: "GET", path: allJobs + "/{id}/output", access: readers, summary: "Output of a job's last attempt from an offset on, as of an exec; X-Attempt is whose it is", params: jobOutputParams, status: http.StatusOK, media: "application/octet-stream", headers: outputHeaders, stream: s.jobOutput},
		{method: "PATCH", path: ofNamespace + "/{id}", access: writers, audit: "sandbox.change", summary: "Change name, labels and times of a sandbox", request: typeOf[sandbox.PatchRequest](), status: http.StatusOK, response: typeOf[sandbox.Sandbox](), handler: s.patchSandbox},
		{method: "POST", path: ofNamespace + "/{id}/stop", access: writers, audit: "sandbox.stop", summary: "Stop a stateful sandbox: its files stay, memory and processes go", status: http.StatusOK, response: typeOf[sandbox.Sandbox](), idempotent: true, handler: s.stopSandbox},
		{method: "POST", path: ofNamespace + "/{id}/start", access: writers, audit: "sandbox.start", summary: "Start a stopped or lost stateful sandbox on its files", status: http.StatusOK, response: typeOf[sandbox.Sandbox](), idempotent: true, handler: s.startSandbox},
		{method: "POST", path: ofNamespace + "/{id}/ports", access: writers, audit: "port.open", summary: "Publish a port of a stateful sandbox", request: typeOf[sandbox.PortRequest](), status: http.StatusCreated, response: typeOf[sandbox.Port](), idempotent: true, handler: s.openPort},
		{method: "DELETE", path: ofNamespace + "/{id}/ports/{guest_port}", access: writers, audit: "port.close", summary: "Close a published port of a stateful sandbox", params: portParams, status: http.StatusNoContent, handler: s.closePort},
		{method: "GET", path: ofNamespace + "/{id}/events", access: readers, summary: "Changes of a sandbox, as server-sent events", params: eventParams, status: http.StatusOK, response: typeOf[sandbox.Event](), stream: s.events},
		{method: "GET", path: namespace + "/events", access: readers, summary: "Changes of all sandboxes, as server-sent events", params: eventParams, status: http.StatusOK, response: typeOf[sandbox.Event](), stream: s.events},
		{method: "GET", path: namespace + "/languages", access: readers, summary: "Languages of this server", status: http.StatusOK, response: typeOf[sandbox.List[sandbox.LanguageInfo]](), handler: s.languages},
		{method: "GET", path: namespace + "/images", access: readers, summary: "Images that are ready on this server", status: http.StatusOK, response: typeOf[sandbox.List[sandbox.ImageInfo]](), handler: s.images},
		{method: "GET", path: namespace + "/usage", access: readers, summary: "Quota of the namespace, and what it has of it", status: http.StatusOK, response: typeOf[sandbox.NamespaceUsage](), handler: s.usage},
		{method: "GET", path: "/auth/v1/whoami", access: readers, summary: "The credential's namespace and role", status: http.StatusOK, response: typeOf[sandbox.Whoami](), handler: s.whoami},

		{method: "POST", path: pats, access: readers, audit: "token.create", summary: "Make a personal access token", request: typeOf[sandbox.TokenRequest](), status: http.StatusCreated, response: typeOf[sandbox.Token](), handler: s.createToken},
		{method: "GET", path: pats, access: readers, summary: "List personal access tokens", params: credentialParams, status: http.StatusOK, response: typeOf[sandbox.Page[sandbox.Token]](), handler: s.listTokens(credentialParams)},
		{method: "GET", path: pats + "/{id}", access: readers, summary: "Get a personal access token", status: http.StatusOK, response: typeOf[sandbox.Token](), handler: s.getToken},
		{method: "DELETE", path: pats + "/{id}", access: readers, audit: "token.delete", summary: "Delete a personal access token, and those made with it", status: http.StatusNoContent, handler: s.deleteToken},
		{method: "POST", path: keys, access: admins, audit: "key.create", summary: "Make an API key", request: typeOf[sandbox.KeyRequest](), status: http.StatusCreated, response: typeOf[sandbox.Key](), handler: s.createKey},
		{method: "GET", path: keys, access: admins, summary: "List API keys", params: credentialParams, status: http.StatusOK, response: typeOf[sandbox.Page[sandbox.Key]](), handler: s.listKeys(credentialParams)},
		{method: "GET", path: keys + "/{id}", access: admins, summary: "Get an API key", status: http.StatusOK, response: typeOf[sandbox.Key](), handler: s.getKey},
		{method: "DELETE", path: keys + "/{id}", access: admins, audit: "key.delete", summary: "Delete an API key, and the tokens made with it", status: http.StatusNoContent, handler: s.deleteKey},

		{method: "GET", path: "/healthz", access: openToAll, summary: "Whether the server is alive", status: http.StatusOK, response: typeOf[status](), handler: s.healthz},
		{method: "GET", path: "/readyz", access: openToAll, summary: "Whether the server takes calls", status: http.StatusOK, response: typeOf[status](), handler: s.readyz},
		{method: "GET", path: "/version", access: openToAll, summary: "The server's version", status: http.StatusOK, response: typeOf[versionAnswer](), handler: s.versionOf},
		{method: "GET", path: "/openapi.json", access: openToAll, summary: "This document", status: http.StatusOK, page: &page{"application/json", func() []byte { return s.openapi }}},
		{method: "GET", path: "/docs", access: openToAll, summary: "The same for people", status: http.StatusOK, page: &page{"text/html; charset=utf-8", func() []byte { return s.docs }}},
	}
	if who, served := metricsAccess[s.metricsAccess]; served {
		rows = append(rows, route{method: "GET", path: "/metrics", access: who, summary: "What the server measures of itself, for Prometheus", status: http.StatusOK, direct: s.metrics.Handler()})
	}
	return rows
}

// metricsAccess is by the words of the configuration who may read /metrics; under any other there is no such route.
var metricsAccess = map[string]access{"open": openToAll, "operator": operators}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
