// Package service holds the use cases: create, exec, execute, keys. It knows no HTTP, no SQL and no kernel.
package service
