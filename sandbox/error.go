// Package sandbox is the vocabulary of outpost: what a client asks for, what it gets back, and the one error that
// crosses packages. It imports the standard library alone, so that every room may import it.
package sandbox

import (
	"errors"
	"fmt"
)

// Code names one kind of failure for good: never renamed, never reused. The server maps each to an HTTP status.
type Code string

// The codes of the contract.
const (
	MalformedJSON          Code = "malformed_json"
	Unauthorized           Code = "unauthorized"
	Forbidden              Code = "forbidden"
	NotFound               Code = "not_found"
	MethodNotAllowed       Code = "method_not_allowed"
	UpgradeRequired        Code = "upgrade_required"
	Conflict               Code = "conflict"
	BodyTooLarge           Code = "body_too_large"
	UnsupportedMediaType   Code = "unsupported_media_type"
	Invalid                Code = "invalid_request"
	UnsupportedLanguage    Code = "unsupported_language"
	NotSupported           Code = "not_supported"
	MicroVMUnavailable     Code = "microvm_unavailable"
	UserNotFound           Code = "user_not_found"
	PolicyFloor            Code = "policy_floor"
	ImageNotFound          Code = "image_not_found"
	ImagePreparing         Code = "image_preparing"
	LanguageRuntimeMissing Code = "language_runtime_missing"
	CollectTooLarge        Code = "collect_too_large"
	DiskFull               Code = "disk_full"
	FileNotFound           Code = "file_not_found"
	FilePermissionDenied   Code = "file_permission_denied"
	FileTooLarge           Code = "file_too_large"
	IsADirectory           Code = "is_a_directory"
	NotADirectory          Code = "not_a_directory"
	PortNotAllowed         Code = "port_not_allowed"
	PortInUse              Code = "port_in_use"
	GPUUnavailable         Code = "gpu_unavailable"
	DepsFailed             Code = "deps_failed"
	SandboxStopped         Code = "sandbox_stopped"
	NotStateful            Code = "not_stateful"
	AlreadyFinished        Code = "already_finished"
	IdempotencyMismatch    Code = "idempotency_mismatch"
	RateLimited            Code = "rate_limited"
	QuotaExceeded          Code = "quota_exceeded"
	Capacity               Code = "capacity"
	Lost                   Code = "lost"
	ShuttingDown           Code = "shutting_down"
	Internal               Code = "internal"
)

// Detail is one bad field of a request.
type Detail struct {
	Field  string `json:"field"`  // spelled env[1][0], ports[0].guest_port
	Reason string `json:"reason"` // what is wrong and what would be right
}

// Error is the one error that crosses packages on its way to a client.
type Error struct {
	Code           Code     `json:"code"`
	Message        string   `json:"message"` // what happened and what mends it; no host path, pid or secret
	Details        []Detail `json:"details,omitempty"`
	RetryAfterSecs int      `json:"retry_after_secs,omitempty"` // 0: no Retry-After
	cause          error    // for the operator's log; never marshalled
}

// Errorf makes an Error; cause may be nil and is for the operator's log alone.
func Errorf(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), cause: cause}
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf is the code of the first Error in the chain: "" for nil, Internal for an error that has none.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
