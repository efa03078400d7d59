package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// statuses maps each code of the contract; a test checks that every code has a row.
var statuses = map[sandbox.Code]int{
	sandbox.MalformedJSON:          http.StatusBadRequest,
	sandbox.Unauthorized:           http.StatusUnauthorized,
	sandbox.Forbidden:              http.StatusForbidden,
	sandbox.NotFound:               http.StatusNotFound,
	sandbox.MethodNotAllowed:       http.StatusMethodNotAllowed,
	sandbox.UpgradeRequired:        http.StatusUpgradeRequired,
	sandbox.Conflict:               http.StatusConflict,
	sandbox.BodyTooLarge:           http.StatusRequestEntityTooLarge,
	sandbox.UnsupportedMediaType:   http.StatusUnsupportedMediaType,
	sandbox.Invalid:                http.StatusUnprocessableEntity,
	sandbox.UnsupportedLanguage:    http.StatusUnprocessableEntity,
	sandbox.NotSupported:           http.StatusUnprocessableEntity,
	sandbox.MicroVMUnavailable:     http.StatusUnprocessableEntity,
	sandbox.UserNotFound:           http.StatusUnprocessableEntity,
	sandbox.PolicyFloor:            http.StatusUnprocessableEntity,
	sandbox.ImageNotFound:          http.StatusUnprocessableEntity,
	sandbox.LanguageRuntimeMissing: http.StatusUnprocessableEntity,
	sandbox.IdempotencyMismatch:    http.StatusUnprocessableEntity,
	sandbox.CollectTooLarge:        http.StatusRequestEntityTooLarge,
	sandbox.DiskFull:               http.StatusInsufficientStorage,
	sandbox.FileNotFound:           http.StatusNotFound,
	sandbox.FilePermissionDenied:   http.StatusForbidden,
	sandbox.FileTooLarge:           http.StatusRequestEntityTooLarge,
	sandbox.IsADirectory:           http.StatusConflict,
	sandbox.NotADirectory:          http.StatusConflict,
	sandbox.PortNotAllowed:         http.StatusUnprocessableEntity,
	sandbox.PortInUse:              http.StatusConflict,
	sandbox.GPUUnavailable:         http.StatusUnprocessableEntity,
	sandbox.DepsFailed:             http.StatusUnprocessableEntity,
	sandbox.SandboxStopped:         http.StatusConflict,
	sandbox.NotStateful:            http.StatusConflict,
	sandbox.AlreadyFinished:        http.StatusConflict,
	sandbox.RateLimited:            http.StatusTooManyRequests,
	sandbox.QuotaExceeded:          http.StatusTooManyRequests,
	sandbox.ImagePreparing:         http.StatusServiceUnavailable,
	sandbox.Capacity:               http.StatusServiceUnavailable,
	sandbox.Lost:                   http.StatusServiceUnavailable,
	sandbox.ShuttingDown:           http.StatusServiceUnavailable,
	sandbox.Internal:               http.StatusInternalServerError,
}

// clientGone is for the log: there is nobody who could hear an answer. The number is a convention of web servers.
const clientGone = 499

// answerOf is what a handler's result amounts to. An error's body has no request id yet, so that it can be kept and
// said again under another one.
func answerOf(status int, body any, err error) service.Answer {
	if err != nil {
		e, is := errors.AsType[*sandbox.Error](err)
		if !is && errors.Is(err, context.Canceled) {
			return service.Answer{Status: clientGone}
		}
		if !is {
			e = sandbox.Errorf(sandbox.Internal, err, "the server failed; its log says more under this request id")
		}
		if status = statuses[e.Code]; status == 0 {
			status = http.StatusInternalServerError
		}
		return service.Answer{Status: status, Body: encode(e)}
	}
	if body == nil {
		return service.Answer{Status: status}
	}
	return service.Answer{Status: status, Body: encode(body)}
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types: a bug
	}
	return b.Bytes()
}

// fail answers with an error and hands it to the log line.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	traceOf(r).fails(err)
	s.write(w, r, answerOf(0, nil, err))
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, a service.Answer) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // a test's writer has none
	body := a.Body
	if a.Status >= http.StatusBadRequest && len(a.Body) > 0 {
		body = s.errorBody(w, r, a)
	}
	if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(body) // who has gone away hears nothing
}

func (s *Server) errorBody(w http.ResponseWriter, r *http.Request, a service.Answer) []byte {
	var e sandbox.Error
	if err := json.Unmarshal(a.Body, &e); err != nil {
		panic(err) // answerOf wrote it
	}
	if e.RetryAfterSecs > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfterSecs))
	} else if a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if a.Status == http.StatusUpgradeRequired { // RFC 9110, 15.5.22
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
	}
	if a.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="outpost", API-Key realm="outpost"`)
	}
	return encode(sandbox.ErrorAnswer{Error: sandbox.ErrorBody{
		Code: e.Code, Message: e.Message, RequestID: traceOf(r).requestID, Details: e.Details,
	}})
}
