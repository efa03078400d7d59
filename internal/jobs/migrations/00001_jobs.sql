-- +goose Up
CREATE TABLE jobs (
	seq           INTEGER PRIMARY KEY AUTOINCREMENT,
	id            TEXT NOT NULL UNIQUE,
	namespace     TEXT NOT NULL,
	sandbox_id    TEXT,
	status        TEXT NOT NULL,
	handed        INTEGER NOT NULL DEFAULT 0, -- an attempt was handed to the workers
	priority      INTEGER NOT NULL,
	attempts      INTEGER NOT NULL DEFAULT 0, -- that have begun
	cut           INTEGER NOT NULL DEFAULT 0, -- of those, cut off by the server's end
	max_attempts  INTEGER NOT NULL,
	due           INTEGER NOT NULL DEFAULT 0, -- no attempt begins before; Unix milliseconds
	created_at    TEXT NOT NULL, -- RFC 3339 with milliseconds: sorts as time does
	started_at    TEXT,
	finished_at   TEXT,
	spec          BLOB NOT NULL, -- JSON: what was submitted, values of env included
	result        BLOB,          -- JSON; null: none, or in a file of its own
	in_file       INTEGER NOT NULL DEFAULT 0,
	error         BLOB,
	callback_left INTEGER NOT NULL DEFAULT 0, -- tries to tell of its end that are left
	callback_due  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_that_wait ON jobs (namespace, priority DESC, seq) WHERE status = 'queued' AND handed = 0;
CREATE INDEX jobs_of_namespace ON jobs (namespace, created_at, seq);
CREATE INDEX jobs_that_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_to_tell ON jobs (callback_due) WHERE callback_left > 0 AND finished_at IS NOT NULL;

-- +goose Down
DROP TABLE jobs;
