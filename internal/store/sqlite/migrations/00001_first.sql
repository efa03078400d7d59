-- +goose Up
CREATE TABLE sandboxes (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT, -- breaks ties of created_at
	id         TEXT NOT NULL UNIQUE,
	namespace  TEXT NOT NULL,
	name       TEXT NOT NULL,
	language   TEXT NOT NULL,
	mode       TEXT NOT NULL,
	status     TEXT NOT NULL,
	labels     TEXT NOT NULL, -- a JSON object
	created_at TEXT NOT NULL, -- RFC 3339 with milliseconds: sorts as time does
	updated_at TEXT NOT NULL,
	record     TEXT NOT NULL  -- the whole as JSON, values of env included
) STRICT;
CREATE INDEX sandboxes_of_namespace ON sandboxes (namespace, created_at, seq);

CREATE TABLE credentials (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	id         TEXT NOT NULL UNIQUE,
	kind       TEXT NOT NULL, -- key or pat
	name       TEXT NOT NULL,
	namespace  TEXT NOT NULL,
	role       TEXT NOT NULL,
	rate_limit INTEGER,
	hash       BLOB NOT NULL UNIQUE, -- SHA-256 of the secret, which has 256 bits of its own
	maker      TEXT NOT NULL,
	created_at TEXT NOT NULL,
	expires_at TEXT
) STRICT;
CREATE INDEX credentials_of_maker ON credentials (maker);

CREATE TABLE calls ( -- with an idempotency key
	scope   TEXT NOT NULL,
	key     TEXT NOT NULL,
	body    BLOB NOT NULL, -- SHA-256
	run     TEXT NOT NULL,
	done    INTEGER NOT NULL,
	status  INTEGER NOT NULL,
	answer  BLOB NOT NULL,
	expires INTEGER NOT NULL, -- Unix seconds
	PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX calls_by_expiry ON calls (expires);

-- +goose Down
DROP TABLE calls;
DROP TABLE credentials;
DROP TABLE sandboxes;
